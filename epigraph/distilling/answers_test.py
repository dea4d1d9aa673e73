"""A teacher's answers: asked once, kept as they come, and only where they are numbers."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from epigraph.distilling.answers import ask_all, row_key
from epigraph.distilling.taught import Taught, of_logs
from epigraph.errors import Unsupported
from epigraph.tasks.row import Row

ROWS = [Row(fields={"text": f"text {i}"}) for i in range(6)]


@dataclass
class Sayer:
    """Says the same of every row, and remembers what it was asked."""

    logs: tuple[float, ...] = (-0.1, -2.4)
    seen: list[Row] = field(default_factory=list)
    name: str = "a sayer"
    text: str = ""
    shown: Sequence[Row] = ()
    together: int = 4
    vocabulary: Mapping[str, int] | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)

    def teach(self, rows: Sequence[Row]) -> list[Taught]:
        self.seen += rows
        return [of_logs(self.logs) for _ in rows]

    def ask(self, row: Row) -> None: ...

    def tokens(self, rows: Sequence[Row]) -> float | None: ...


def quiet(_name: str, _done: int, _total: int) -> None: ...


def test_what_is_kept_is_not_asked_again(tmp_path: Path) -> None:
    first, second = Sayer(), Sayer()
    asked = ask_all(first, [*ROWS[:4], ROWS[0]], stage=quiet, folder=tmp_path)
    assert (len(asked.answers), asked.now, len(first.seen)) == (5, 4, 4)
    asked = ask_all(second, ROWS, stage=quiet, folder=tmp_path)
    assert (len(asked.answers), asked.now, second.seen) == (6, 2, ROWS[4:])


def test_answers_that_are_no_numbers_are_refused_and_not_kept(tmp_path: Path) -> None:
    """A base whose states overflowed taught NaN: it was kept for ever, the student diverged, and the rate was blamed."""
    with pytest.raises(Unsupported, match="a sayer gives probabilities that are no numbers"):
        ask_all(Sayer(logs=(math.nan, -1.0)), ROWS, stage=quiet, folder=tmp_path)
    assert not list(tmp_path.glob("*.jsonl"))
    ask_all(Sayer(), ROWS[:1], stage=quiet, folder=tmp_path)
    (file,) = tmp_path.glob("*.jsonl")
    with file.open("a") as out:  # what an earlier version kept
        out.write(json.dumps({"key": row_key(ROWS[1]), "logs": [math.nan, -1.0]}) + "\n")
    again = Sayer()
    asked = ask_all(again, ROWS[:2], stage=quiet, folder=tmp_path)
    assert again.seen == [ROWS[1]]
    assert all(one.finite for one in asked.answers)
