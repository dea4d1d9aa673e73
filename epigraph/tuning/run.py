"""The run folder: what a tuning needs to be continued by another process, and what it reported.

run.toml        choices, task, data with hashes, base, dtype, threads: written before the first step, obeyed on resume
metrics.jsonl   one line a validation
state.safetensors   where it stands
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epigraph.config import read_toml, without_none, write_toml
from epigraph.errors import ConfigError, NotFound, StorageFailed
from epigraph.tuning.loop import Moment

DESCRIPTION, METRICS, STATE = "run.toml", "metrics.jsonl", "state.safetensors"


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path

    @classmethod
    def create(cls, parent: Path, name: str, description: Mapping[str, Any]) -> "Run":
        """A new run folder under ``parent`` with its description."""
        folder = parent / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        try:
            folder.mkdir(parents=True)
            write_toml(folder / DESCRIPTION, description)
        except OSError as error:
            raise StorageFailed(
                f"the run folder {folder} could not be written: {error.strerror or error}.", "Pass --library."
            ) from error
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """An existing run folder; NotFound if it is none."""
        if not (folder / DESCRIPTION).is_file():
            raise NotFound(f"{folder} is no run folder: it has no {DESCRIPTION}.", "Give the folder that tune printed.")
        return cls(folder)

    @property
    def description(self) -> dict[str, Any]:
        """What was written before the first step."""
        return read_toml(self.folder / DESCRIPTION)

    @property
    def state_file(self) -> Path:
        """Where the loop keeps its state."""
        return self.folder / STATE

    @property
    def metrics_file(self) -> Path:
        """One JSON object a validation."""
        return self.folder / METRICS

    def record(self, moment: Moment) -> None:
        """Append a validation (or a note) to the metrics."""
        values = {k: v for k, v in moment.__dict__.items() if v is not None and v != ""}
        with self.metrics_file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(values) + os.linesep)

    def check_unchanged(self, now: Mapping[str, Any]) -> None:
        """Raise ConfigError if what the run depends on is no longer what it was."""
        then = self.description
        for part, value in without_none(now).items():
            if then.get(part) != value:
                raise ConfigError(
                    f"run {self.folder} cannot be resumed: its {part} was {_short(then.get(part))} and is now {_short(value)}.",
                    "Bring back what it was, or tune again.",
                )


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "…"
