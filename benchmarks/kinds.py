"""Which kind of prompt is best, and where: every kind in every place on named sets, all else by default.

    python benchmarks/kinds.py sst2 trec6 banking77 rte --rows 1000
    python benchmarks/kinds.py ag_news subj --kinds kv sink token --places template first --rounds 3

A cell is one tuning with its score on the whole test set (or ``--tests`` rows), 95% interval, bytes kept, and seconds; rounds
are seeds. Every cell is written to ``results/kinds.json`` when it is done, and one that stands there is not run again: an
interrupted table goes on where it was. Later cells of a set find its texts read already; ``frozen_seconds`` says so.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measuring import data_set, open_base, parser, show

import epigraph
from epigraph.base import Base
from epigraph.errors import EpigraphError
from epigraph.prompts import KINDS
from epigraph.tasks.row import Split
from epigraph.tasks.split import head

PLACES = ("template", "first", "last", "both")
QUICK = {"epochs": 1, "batch": 16}
METRICS = ("accuracy", "bleu")


def main() -> None:
    """Every cell that is not there yet; a table a set."""
    asked = arguments()
    base = open_base(asked)
    table = Table(asked.out / "kinds.json", base, asked)
    for name in asked.sets:
        with data_set(name, quick=asked.quick) as folder, tempfile.TemporaryDirectory(prefix="bench-") as states:
            engine = epigraph.Engine(base, folder=Path(states)) if asked.quick else epigraph.Engine(base)
            for kind, place, seed in cells(asked):
                cell = key(name, kind, place, seed, asked)
                if cell not in table.cells:
                    table.add(cell, measure(engine, folder, kind, place, seed, asked))
        show(f"{name}, {asked.rows} rows", summary(name, table.cells, asked))
    print(f"written: {table.file}")


class Table:
    """All cells so far, on disk after each."""

    def __init__(self, file: Path, base: Base, asked: argparse.Namespace) -> None:
        self.file = file
        self.machine = {
            "base": base.name,
            "dtype": base.precision.name,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "quick": asked.quick,
        }
        found = json.loads(file.read_text()) if file.exists() else {"cells": {}, "machine": self.machine}
        if found["machine"] != self.machine:
            raise SystemExit(f"{file} was measured on {found['machine']}, this is {self.machine}: give another --out.")
        self.cells: dict[str, dict[str, Any]] = found["cells"]

    def add(self, what: str, cell: dict[str, Any]) -> None:
        """Keep a cell; an interrupt leaves the file whole."""
        self.cells[what] = cell
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps({"machine": self.machine, "verdicts": [], "cells": self.cells}, indent=1))
        partial.replace(self.file)
        print(f"{what}: {cell.get('value', cell.get('refused'))} {cell.get('seconds', '')}", flush=True)


def key(name: str, kind: str, place: str, seed: int, asked: argparse.Namespace) -> str:
    """What a cell is of."""
    return f"{name} {kind} {place} {asked.rows} {asked.tests} {seed} {asked.config}"


def cells(asked: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Kinds, places and seeds, a seed after the other, so that a first table is there early."""
    for seed in range(asked.rounds):
        for kind in asked.kinds:
            for place in asked.places:
                yield kind, place, seed


def measure(
    engine: epigraph.Engine, folder: Path, kind: str, place: str, seed: int, asked: argparse.Namespace
) -> dict[str, Any]:
    """One tuning."""
    task = epigraph.Task.from_file(folder)
    assert task.test is not None
    tests = task.test.rows if asked.tests is None else tuple(head(task.test.rows, asked.tests, seed=0))
    task = replace(task, train=Split(rows=tuple(head(task.train.rows, asked.rows, seed=seed))), test=Split(rows=tests))
    settings = {"kind": kind, "place": place, "seed": seed, **(QUICK if asked.quick else {}), **json.loads(asked.config)}
    cell: dict[str, Any] = {"kind": kind, "place": place, "seed": seed}
    try:
        result = epigraph.tune(engine.base, task, epigraph.TuneConfig(**settings).single, engine=engine)
    except EpigraphError as error:  # a kind may not fit a base or a set: that is a finding too
        return cell | {"refused": str(error)}
    metric = next(name for name in METRICS if name in result.scores)
    hard = result.hard.json[metric]["value"]
    score, cost = result.scores[metric], result.cost
    return cell | {
        "metric": metric,
        **{name: score[name] for name in ("value", "low", "high")},
        "hard_prompt": hard,
        "rows": result.scores["rows"],
        **{name: cost[name] for name in ("seconds", "frozen_seconds", "kept_bytes", "trained_parameters")},
        "rate": result.settings["rate"],
        "stop": result.reasons["stop"],
    }


def summary(name: str, done: Mapping[str, Mapping[str, Any]], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a kind and place: means over seeds, half the width of the interval over the test rows, the best first."""
    rows = []
    for kind in asked.kinds:
        for place in asked.places:
            seeds = [done.get(key(name, kind, place, seed, asked), {}) for seed in range(asked.rounds)]
            own = [cell for cell in seeds if "value" in cell]
            if not own:
                continue
            rows.append(
                {
                    "kind": kind,
                    "place": place,
                    own[0]["metric"]: statistics.mean(c["value"] for c in own),
                    "±": statistics.mean((c["high"] - c["low"]) / 2 for c in own),
                    "seeds": len(own),
                    "hard prompt": statistics.mean(c["hard_prompt"] for c in own),
                    "kept bytes": own[0]["kept_bytes"],
                    "seconds": statistics.median(c["seconds"] for c in own),
                }
            )
    return sorted(rows, key=lambda row: -row.get("accuracy", row.get("bleu", 0.0)))


def arguments() -> argparse.Namespace:
    """What was asked."""
    found = parser(__doc__, rounds=1)
    found.add_argument("sets", nargs="*", default=["sst2"])
    found.add_argument("--rows", type=int, default=1000)
    found.add_argument("--tests", type=int)
    found.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    found.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    found.add_argument("--config", default="{}", help="more TuneConfig fields as JSON")
    asked = found.parse_args()
    if asked.quick:
        asked.rows, asked.places = min(asked.rows, 48), ["template", "both"]
    return asked


if __name__ == "__main__":
    main()
