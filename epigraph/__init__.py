"""Epigraph: specialise a frozen language model by prompt tuning.

    base = epigraph.load_base()                         # or a folder / hub name
    task = epigraph.Task.from_file("train.csv")
    result = epigraph.tune(base, task)                  # result.prompt, result.scores, result.cost
    result.prompt.save("prompts/routing")
    model = epigraph.load("prompts/routing", base)
    model.predict(["my card was swallowed"])            # labels with probabilities

Nothing heavy is imported before it is used: ``import epigraph`` takes milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epigraph.base import Base, load_base
    from epigraph.config import TuneConfig
    from epigraph.correct.fixed import FixResult
    from epigraph.correct.fixing import fix
    from epigraph.correct.mistakes import Mistakes, errors_of
    from epigraph.correct.settings import FixConfig
    from epigraph.distilling import DistillConfig, DistillResult, distill
    from epigraph.engine import Engine
    from epigraph.errors import EpigraphError
    from epigraph.evaluation import evaluate
    from epigraph.explaining import ExplainConfig, Explanation, explain
    from epigraph.library import Library
    from epigraph.model import PromptModel, load
    from epigraph.routing import Router, open_auto
    from epigraph.tasks.task import Task
    from epigraph.tuning import TuneResult, tune

_HOMES = {
    "Base": "epigraph.base",
    "load_base": "epigraph.base",
    "TuneConfig": "epigraph.config",
    "FixResult": "epigraph.correct.fixed",
    "fix": "epigraph.correct.fixing",
    "Mistakes": "epigraph.correct.mistakes",
    "errors_of": "epigraph.correct.mistakes",
    "FixConfig": "epigraph.correct.settings",
    "DistillConfig": "epigraph.distilling",
    "DistillResult": "epigraph.distilling",
    "distill": "epigraph.distilling",
    "Engine": "epigraph.engine",
    "EpigraphError": "epigraph.errors",
    "evaluate": "epigraph.evaluation",
    "ExplainConfig": "epigraph.explaining",
    "Explanation": "epigraph.explaining",
    "explain": "epigraph.explaining",
    "Library": "epigraph.library",
    "PromptModel": "epigraph.model",
    "load": "epigraph.model",
    "Router": "epigraph.routing",
    "open_auto": "epigraph.routing",
    "Task": "epigraph.tasks.task",
    "TuneResult": "epigraph.tuning",
    "tune": "epigraph.tuning",
}

__all__ = [
    "Base",
    "DistillConfig",
    "DistillResult",
    "Engine",
    "EpigraphError",
    "ExplainConfig",
    "Explanation",
    "FixConfig",
    "FixResult",
    "Library",
    "Mistakes",
    "PromptModel",
    "Router",
    "Task",
    "TuneConfig",
    "TuneResult",
    "distill",
    "errors_of",
    "evaluate",
    "explain",
    "fix",
    "load",
    "load_base",
    "open_auto",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'epigraph' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
