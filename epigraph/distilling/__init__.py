"""Distilling: a prompt of a few vectors that answers as a long hard prompt, a larger model or another base's prompt does.

Nothing heavy is imported before it is used, since the command line reads the settings for its flags.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from epigraph.distilling.settings import DistillConfig

if TYPE_CHECKING:
    from epigraph.distilling.result import DistillResult
    from epigraph.distilling.session import distill

_HOMES = {"DistillResult": "epigraph.distilling.result", "distill": "epigraph.distilling.session"}

__all__ = ["DistillConfig", "DistillResult", "distill"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
