"""Every test gets a home of its own and no network; torch runs deterministic and small; arrays have the shapes they say.

Functions whose signature names an array are called through a check of its shape. Checking every call of every function took
half of the suite's time; what types of Python go in and out is mypy's to say.
"""

import inspect
import os
import signal
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_args

import pytest
from beartype import beartype
from hypothesis import settings
from jaxtyping import AbstractArray, jaxtyped


class Shaped(MetaPathFinder):
    """Finds Epigraph's modules as they are found without it, and has their shapes checked."""

    def find_spec(self, name: str, path: Any, _target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name.startswith("epigraph.") else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = ShapedLoader(name, spec.loader.path)
        return spec


class ShapedLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        check_shapes(module, module.__name__)


def check_shapes(owner: ModuleType | type, home: str) -> None:
    """Put the check before every function and method that ``home`` defines and whose signature names an array."""
    for name, value in list(vars(owner).items()):
        if isinstance(value, type) and value.__module__ == home:
            check_shapes(value, home)
        elif isinstance(value, staticmethod | classmethod) and names_array(value.__func__, home):
            setattr(owner, name, type(value)(checked(value.__func__)))
        elif isinstance(value, property) and names_array(value.fget, home):
            setattr(owner, name, property(checked(value.fget), value.fset, value.fdel, value.__doc__))
        elif names_array(value, home):
            setattr(owner, name, checked(value))


def names_array(value: Any, home: str) -> bool:
    if not isinstance(value, FunctionType) or value.__module__ != home:
        return False
    if hasattr(value, "__wrapped__") and inspect.isgeneratorfunction(inspect.unwrap(value)):
        return False  # a context manager, which returns something else than its signature says
    return any(is_array(annotation) for annotation in value.__annotations__.values())


def is_array(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(is_array(part) for part in get_args(annotation))


def checked(function: Any) -> Any:
    return jaxtyped(function, typechecker=beartype)


sys.meta_path.insert(0, Shaped())
settings.register_profile("epigraph", deadline=None, max_examples=50, derandomize=True)  # no test asserts a time
settings.register_profile("search", deadline=None, max_examples=200)  # HYPOTHESIS_PROFILE=search looks for new faults
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "epigraph"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun with nohup or &, which a process that is tested would inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    import torch

    if os.environ.get("PYTEST_XDIST_WORKER"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the user's cache out of the tests; ``base_home`` gives back the real one for the embedded base."""
    os.environ.setdefault("EPIGRAPH_REAL_HOME", os.environ.get("EPIGRAPH_HOME", str(Path("~/.cache/epigraph").expanduser())))
    home = tmp_path_factory.mktemp("home")
    os.environ["EPIGRAPH_HOME"] = str(home)
    return home
