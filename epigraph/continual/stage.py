"""The folder of a sequence: what was asked, which tasks in which order, and what each method learned and scored so far.

    sequence.toml                    tasks with their sources, order, settings, base: obeyed on resume
    METHOD/2-sst2/learned.json       the task is learned: cost, growth          prompt/ | weights.safetensors
    METHOD/2-sst2/scores.json        row R[2, …] of every scenario
    METHOD/2-sst2/runs/…             a tuning under way: an interrupted sequence goes on in it
    zero_shot.json                   b_i of every task

Every file is written whole or not at all, so that a kill at any moment leaves a sequence that goes on where it was. Nothing
in it holds texts, but for ``replay.jsonl`` of the method that replays them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epigraph.config import read_toml, write_toml
from epigraph.errors import Corrupt, NotFound
from epigraph.library.disk import replace_file, storing

SEQUENCE, LEARNED, SCORES, RUNS, PROMPT = "sequence.toml", "learned.json", "scores.json", "runs", "prompt"
ZERO_SHOT = "zero_shot.json"


@dataclass(frozen=True)
class Stage:
    """One method's work on one task."""

    folder: Path

    @property
    def runs(self) -> Path:
        """Where its tunings are kept."""
        return self.folder / RUNS

    @property
    def prompt(self) -> Path:
        """The prompt it ended in."""
        return self.folder / PROMPT

    @property
    def begun(self) -> bool:
        """Whether anything was learned or measured."""
        return any(path for path in self.folder.iterdir() if not path.name.startswith("."))

    @property
    def learned(self) -> dict[str, Any] | None:
        """What learning the task cost; None while it is not learned."""
        return read_json(self.folder / LEARNED)

    @property
    def scores(self) -> dict[str, Any] | None:
        """The row of every scenario; None while it is not scored."""
        return read_json(self.folder / SCORES)

    def finish_learning(self, said: Mapping[str, Any]) -> None:
        """The task is learned; last of all, so that half a stage is none."""
        write_json(self.folder / LEARNED, said)

    def finish_scoring(self, said: Mapping[str, Any]) -> None:
        """The row is measured."""
        write_json(self.folder / SCORES, said)

    def unfinished_run(self) -> Path | None:
        """The tuning that was interrupted, if there is one."""
        found = sorted(
            path for path in self.runs.glob("*") if (path / "run.toml").is_file() and not (path / "stored").exists()
        )
        return found[-1] if found else None


@dataclass(frozen=True)
class SequenceFolder:
    """A sequence on disk."""

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> "SequenceFolder":
        """An existing one; NotFound if it is none."""
        if not (folder / SEQUENCE).is_file():
            raise NotFound(
                f"{folder} is no sequence of tasks: it has no {SEQUENCE}.", "Give the folder that continual printed."
            )
        return cls(folder)

    @property
    def description(self) -> dict[str, Any]:
        """What was asked."""
        return read_toml(self.folder / SEQUENCE)

    def describe(self, said: Mapping[str, Any]) -> None:
        """Write what was asked."""
        with storing("the sequence", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_toml(self.folder / SEQUENCE, said)

    def stage(self, method: str, number: int, task: str) -> Stage:
        """One method's work on one task."""
        folder = self.folder / method / f"{number}-{task}"
        with storing("the sequence", folder):
            folder.mkdir(parents=True, exist_ok=True)
        return Stage(folder)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, None where there is no file; Corrupt if it is no JSON object."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise Corrupt(f"{path} cannot be read: {fault}.", "Delete it: it is measured again.") from fault
    if not isinstance(found, dict):
        raise Corrupt(f"{path} holds no object.", "Delete it: it is measured again.")
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object, whole or not at all."""
    with storing(path.name, path.parent):
        replace_file(path, json.dumps(value).encode())
