"""Compare: every way to solve a task under the same conditions, its costs, and a verdict in words.

from epigraph.compare import CompareConfig, compare
comparison = compare(base, task, CompareConfig(seeds=3), folder="comparison")
comparison.json, comparison.page
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epigraph.compare.asked import CompareConfig
    from epigraph.compare.comparison import Comparison
    from epigraph.compare.session import compare

_HOMES = {
    "CompareConfig": "epigraph.compare.asked",
    "Comparison": "epigraph.compare.comparison",
    "compare": "epigraph.compare.session",
}

__all__ = ["CompareConfig", "Comparison", "compare"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'epigraph.compare' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
