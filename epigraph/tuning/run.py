"""The run folder: what a tuning needs to be continued by another process, and what it reported.

run.toml        data with hashes, task, choices, base, dtype, threads: written before the first step, obeyed on resume
metrics.jsonl   one line a validation
state.safetensors   where it stands        stored   the prompt it ended in
trials.toml     the trials of its search, compiling.toml whether steps are compiled: written before the first, obeyed on resume
planned         keys of the texts whose frozen states were not there when it was begun
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epigraph.config import read_toml, without_none, write_toml
from epigraph.errors import ConfigError, NotFound, StorageFailed
from epigraph.tasks.row import Row
from epigraph.tuning.loop import Moment

DESCRIPTION, METRICS, STATE, STORED, PLANNED = "run.toml", "metrics.jsonl", "state.safetensors", "stored", "planned"
TRIALS, COMPILING = "trials.toml", "compiling.toml"


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
            shutil.rmtree(folder, ignore_errors=True)
            raise StorageFailed(
                f"the run folder {folder} could not be written: {error.strerror or error}.",
                "Pass --library with a folder that you may write to and that has room.",
            ) from error
        except BaseException:  # Ctrl-C: a folder without its description is no run
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """An existing run folder; NotFound if it is none."""
        if not (folder / DESCRIPTION).is_file():
            raise NotFound(f"{folder} is no run folder: it has no {DESCRIPTION}.", "Give the folder that tune printed.")
        run = cls(folder)
        run.drop_broken_line()
        return run

    def drop_broken_line(self) -> None:
        """A kill while a measurement was written leaves a part of its line, to which the next would be appended."""
        if self.metrics_file.is_file():
            with self.metrics_file.open("r+b") as file:
                whole = file.read().rfind(b"\n") + 1
                file.truncate(whole)

    @property
    def stored_as(self) -> str:
        """The prompt that this run ended in; empty while it has not."""
        note = self.folder / STORED
        return note.read_text(encoding="utf-8").strip() if note.is_file() else ""

    def finish(self, reference: str) -> None:
        """Note under which reference the prompt was stored; the state, which nobody needs any more, goes."""
        (self.folder / STORED).write_text(reference + "\n", encoding="utf-8")
        for state in self.folder.glob(f"*{STATE}*"):
            state.unlink(missing_ok=True)

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
        try:
            with self.metrics_file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(values) + os.linesep)
        except OSError as error:
            raise StorageFailed(
                f"the measurements of the run could not be written to {self.metrics_file}: {error.strerror or error}.",
                "Free disk space and resume.",
            ) from error

    def planned(self, find: Callable[[], Sequence[str]]) -> Sequence[str]:
        """The keys noted when the run was begun; those that ``find`` gives are noted now if none were."""
        note = self.folder / PLANNED
        if note.is_file():
            return note.read_text(encoding="utf-8").split()
        keys = find()
        partial = note.with_name(f".{PLANNED}")
        try:
            partial.write_text("\n".join(keys), encoding="utf-8")
            partial.replace(note)
        except OSError as error:
            raise StorageFailed(
                f"the run folder {self.folder} could not be written: {error.strerror or error}.",
                "Free disk space and resume.",
            ) from error
        return keys

    def noted(self, name: str, find: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What was noted in the file of this name when the run was begun; what ``find`` gives is noted now if nothing was."""
        note = self.folder / name
        if not note.is_file():
            try:
                write_toml(note, find())
            except OSError as error:
                raise StorageFailed(
                    f"the run folder {self.folder} could not be written: {error.strerror or error}.",
                    "Free disk space and resume.",
                ) from error
        return read_toml(note)

    def check_unchanged(self, now: Mapping[str, Any]) -> None:
        """Raise ConfigError, naming what, if something that the run depends on is no longer what it was."""
        then = self.description
        found = {part: _differences(then.get(part), value, part) for part, value in without_none(now).items()}
        changed = [change for changes in found.values() for change in changes]
        if changed:
            raise ConfigError(
                f"run {self.folder} cannot be resumed: since it was begun, {changed[0]}.",
                "Bring back what it was, or tune again.",
            )


def rows_hash(rows: Iterable[Row]) -> str:
    """sha256 of what rows say, whatever file they come from."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([dict(row.fields), row.target, row.references, row.choices, row.labels]).encode())
    return digest.hexdigest()


def _differences(then: object, now: object, name: str) -> list[str]:
    """Every value that differs, by its path: "data.train: … is now …"."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*then, *now])
        return [change for key in keys for change in _differences(then.get(key), now.get(key), f"{name}.{key}")]
    return [] if then == now else [f"its {name}, {_short(then)}, became {_short(now)}"]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:100] + "…"
