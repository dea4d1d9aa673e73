"""Measurements that are kept as they come, so that a script that was stopped goes on where it was.

``Kept``: a JSON line a measurement in ``--out``, under a first line that says what was asked; another question begins anew. What
is only more of the same (``more``: how many draws, which sets) is no other question. After ``--minutes`` no further measurement
begins: the same command goes on. ``Table``: one JSON file of all cells, whatever was asked, so that more of them can be asked later.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from epigraph.base import Base


class TimeUp(Exception):
    """No further measurement begins now."""


class Kept:
    """What was measured, by name."""

    def __init__(self, path: Path, asked: argparse.Namespace, *, more: Sequence[str] = (), **facts: object) -> None:
        said = {k: v for k, v in vars(asked).items() if k not in ("out", "minutes", "rounds", "peft", "folder", *more)}
        self.head = json.dumps(said | facts, sort_keys=True, default=str)
        self.path = path
        self.until = time.monotonic() + 60 * getattr(asked, "minutes", math.inf)
        self.known: dict[str, Any] = {}
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        if lines[:1] == [self.head + "\n"]:
            whole = [line for line in lines if line.endswith("\n")]  # a kill leaves a part of a line
            if len(whole) < len(lines):
                path.write_text("".join(whole))
            for line in whole[1:]:
                self.known |= json.loads(line)
            print(f"{len(self.known)} measurements are there already, in {path}", flush=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.head + "\n")

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


class Table:
    """All cells so far, on disk after each."""

    def __init__(self, file: Path, base: Base, *, quick: bool) -> None:
        self.file = file
        self.machine = {
            "base": base.name,
            "dtype": base.precision.name,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "quick": quick,
        }
        found = json.loads(file.read_text()) if file.exists() else {"cells": {}, "machine": self.machine}
        if found["machine"] != self.machine:
            raise SystemExit(f"{file} was measured on {found['machine']}, this is {self.machine}: give another --out.")
        self.cells: dict[str, dict[str, Any]] = found["cells"]

    def add(self, what: str, cell: dict[str, Any]) -> None:
        """Keep a cell; an interrupt leaves the file whole."""
        self.cells[what] = cell
        self._write({"verdicts": []})
        print(f"{what}: {cell.get('value', cell.get('refused'))} {cell.get('seconds', '')}", flush=True)

    def close(self, *, verdicts: Sequence[Mapping[str, Any]], **found: object) -> None:
        """Keep what follows from the cells."""
        self._write({"verdicts": list(verdicts), **found})
        print(f"written: {self.file}")

    def _write(self, more: Mapping[str, object]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps({"machine": self.machine, **more, "cells": self.cells}))
        partial.replace(self.file)
