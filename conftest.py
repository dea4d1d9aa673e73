"""Every test gets a home of its own and no network; torch runs deterministic and small."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("epigraph", deadline=None, max_examples=50, derandomize=True)  # no test asserts a time
settings.register_profile("search", deadline=None, max_examples=200)  # HYPOTHESIS_PROFILE=search looks for new faults
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "epigraph"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


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
