"""The run folder of a distilling: what another process needs to go on, under a name of its own.

distill.toml        what was asked, and what it depends on      metrics.jsonl, state.safetensors, stored   as in any run
"""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epigraph.config import read_toml, without_none, write_toml
from epigraph.errors import ConfigError, NotFound
from epigraph.library.disk import storing
from epigraph.tuning.run import Run

DESCRIPTION = "distill.toml"


def create(parent: Path, name: str, description: Mapping[str, Any]) -> Run:
    """A new run folder; StorageFailed if it cannot be written."""
    folder = parent / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    with storing("the run", folder):
        folder.mkdir(parents=True)
        write_toml(folder / DESCRIPTION, description)
    return Run(folder)


def described(folder: Path) -> dict[str, Any]:
    """What was written when the run was begun; NotFound if it is none of a distilling."""
    if not (folder / DESCRIPTION).is_file():
        raise NotFound(
            f"{folder} is no run of a distilling: it has no {DESCRIPTION}.", "Give the folder that distill printed."
        )
    return read_toml(folder / DESCRIPTION)


def resume(folder: Path, now: Mapping[str, Any]) -> Run:
    """The run to go on with. ConfigError, naming what, if something that it depends on is no longer what it was."""
    then = described(folder)
    changed = next((name for name, value in without_none(now).items() if then.get(name) != value), None)
    if changed is not None:
        raise ConfigError(
            f"run {folder} cannot be resumed: its {changed} is no longer what it was.",
            "Bring back what it was, or begin anew.",
        )
    run = Run(folder)
    run.drop_broken_line()
    return run
