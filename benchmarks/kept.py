"""Measurements that are kept as they come, so that a script that was stopped goes on where it was.

A JSON line a measurement in ``--out``, under a first line that says what was asked; another question begins anew. After
``--minutes`` no further measurement begins: the same command goes on.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class TimeUp(Exception):
    """No further measurement begins now."""


class Kept:
    """What was measured, by name."""

    def __init__(self, path: Path, asked: argparse.Namespace, **facts: object) -> None:
        said = {k: v for k, v in vars(asked).items() if k not in ("out", "minutes", "rounds", "peft", "folder")}
        self.head = json.dumps(said | facts, sort_keys=True, default=str)
        self.path = path
        self.until = time.monotonic() + 60 * asked.minutes
        self.known: dict[str, Any] = {}
        lines = path.read_text().splitlines() if path.exists() else []
        if lines[:1] == [self.head]:
            for line in lines[1:]:
                self.known |= self._read(line)
            print(f"{len(self.known)} measurements are there already, in {path}", flush=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.head + "\n")

    def _read(self, line: str) -> dict[str, Any]:
        """What a line says; nothing where it was cut off by a kill, which is then taken away."""
        try:
            return dict(json.loads(line))
        except ValueError:
            whole = self.path.read_bytes().removesuffix(line.encode())
            self.path.write_bytes(whole)
            return {}

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """The measurement of this name, taken now if it is not there. TimeUp if it is too late to begin."""
        if name not in self.known:
            if time.monotonic() > self.until:
                raise TimeUp
            self.known[name] = measure()
            with self.path.open("a") as file:
                file.write(json.dumps({name: self.known[name]}) + "\n")
        return self.known[name]


def go_on(kept: Kept, minutes: float) -> None:
    """Say that time is up."""
    print(f"{minutes:g} minutes are over; {len(kept.known)} measurements are in {kept.path}. The same command goes on.")
