"""Which kind of prompt is best, and where: every kind in every place on named sets, all else by default.

    python benchmarks/kinds.py sst2 trec6 banking77 rte --rows 1000
    python benchmarks/kinds.py ag_news subj --kinds auto kv sink token --places template first --rounds 3

A cell is one tuning with its answers to the whole test set (or ``--tests`` rows), score, 95% interval, bytes kept, and seconds;
rounds are seeds. ``auto`` is what ``tune`` picks by itself, kind, place and hard prompt among it; it is tested against the best
fixed setting of every set, paired by rows and seeds, with Holm's correction over the sets, and its mean stands beside those of
the settings that were measured on all of them. Every cell is written to ``results/kinds.json`` when it is done, and one that
stands there is not run again: an interrupted table goes on where it was. Later cells of a set find its texts read already;
``frozen_seconds`` says so.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kept import Table
from measuring import data_set, open_base, parser, show, verdict
from paired import Column, answers_of, compare_columns

import epigraph
from epigraph.errors import EpigraphError
from epigraph.metrics import upward
from epigraph.prompts import KINDS
from epigraph.tasks.row import Split
from epigraph.tasks.split import head
from epigraph.tasks.task import Task

PLACES = ("template", "first", "last", "both")
QUICK = {"epochs": 1, "batch": 16}
AUTO = "auto"


def main() -> None:
    """Every cell that is not there yet; a table a set; what ``tune`` picks against the best of each."""
    asked = arguments()
    base = open_base(asked)
    table, columns = Table(asked.out / "kinds.json", base, quick=asked.quick), list[Column]()
    for name in asked.sets:
        with data_set(name, quick=asked.quick) as folder, tempfile.TemporaryDirectory(prefix="bench-") as states:
            engine = epigraph.Engine(base, folder=Path(states)) if asked.quick else epigraph.Engine(base)
            task = read(folder, asked)
            for kind, place, seed in cells(asked):
                cell = key(name, kind, place, seed, asked)
                if cell not in table.cells:
                    table.add(cell, measure(engine, task, kind, place, seed, asked))
        show(f"{name}, {asked.rows} rows", summary(name, table.cells, asked))
        columns += against_best(name, task, table.cells, asked)
    table.close(
        verdicts=on_average(table.cells, asked), pairs=compare_columns("auto against the best fixed setting", columns)
    )


def key(name: str, kind: str, place: str, seed: int, asked: argparse.Namespace) -> str:
    """What a cell is of."""
    return f"{name} {kind} {place} {asked.rows} {asked.tests} {seed} {asked.config}"


def cells(asked: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Kinds, places and seeds, a seed after the other, so that a first table is there early."""
    for seed in range(asked.rounds):
        for kind, place in settings(asked):
            yield kind, place, seed


def settings(asked: argparse.Namespace) -> list[tuple[str, str]]:
    """Kind and place; ``auto`` has no place of its own."""
    fixed = [(kind, place) for kind in asked.kinds if kind != AUTO for place in asked.places]
    return [(AUTO, AUTO)] * (AUTO in asked.kinds) + fixed


def read(folder: Path, asked: argparse.Namespace) -> Task:
    """The set with the test rows that all cells answer."""
    task = Task.from_file(folder)
    assert task.test is not None
    tests = task.test.rows if asked.tests is None else tuple(head(task.test.rows, asked.tests, seed=0))
    return replace(task, test=Split(rows=tests))


def measure(
    engine: epigraph.Engine, task: Task, kind: str, place: str, seed: int, asked: argparse.Namespace
) -> dict[str, Any]:
    """One tuning."""
    task = replace(task, train=Split(rows=tuple(head(task.train.rows, asked.rows, seed=seed))))
    fixed = {} if kind == AUTO else {"kind": kind, "place": place}
    config = epigraph.TuneConfig(**fixed, seed=seed, **(QUICK if asked.quick else {}), **json.loads(asked.config))
    cell: dict[str, Any] = {"kind": kind, "place": place, "seed": seed}
    try:
        result = epigraph.tune(engine.base, task, config if kind == AUTO else config.single, engine=engine)
    except EpigraphError as error:  # a kind may not fit a base or a set: that is a finding too
        return cell | {"refused": str(error)}
    score, cost, chosen = result.scores[task.metric], result.cost, result.settings
    return cell | {
        "metric": task.metric,
        **{name: score[name] for name in ("value", "low", "high")},
        "hard_prompt": result.hard.json[task.metric]["value"],
        "rows": result.scores["rows"],
        **{name: cost[name] for name in ("seconds", "frozen_seconds", "kept_bytes", "trained_parameters")},
        "chosen": {name: chosen[name] for name in ("kind", "place", "length", "rate", "start", "verdict")},
        "stop": result.reasons["stop"],
        "answers": answers_of(result.scored),
    }


def of_setting(
    name: str, kind: str, place: str, done: Mapping[str, Mapping[str, Any]], asked: argparse.Namespace
) -> list[Mapping[str, Any]]:
    """The cells of a setting that were measured, by seed."""
    seeds = [done.get(key(name, kind, place, seed, asked), {}) for seed in range(asked.rounds)]
    return [cell for cell in seeds if "value" in cell]


def mean(cells_of: Sequence[Mapping[str, Any]]) -> float:
    """The mean score, turned so that higher is better."""
    return upward(cells_of[0]["metric"], statistics.fmean(cell["value"] for cell in cells_of))


def summary(name: str, done: Mapping[str, Mapping[str, Any]], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a kind and place: means over seeds, half the width of the interval over the test rows, the best first."""
    measured = {one: of_setting(name, *one, done, asked) for one in settings(asked)}
    ranked = sorted((one for one in measured if measured[one]), key=lambda one: -mean(measured[one]))
    return [_row(*one, measured[one]) for one in ranked]


def _row(kind: str, place: str, own: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "kind": kind,
        "place": place,
        own[0]["metric"]: statistics.mean(c["value"] for c in own),
        "±": statistics.mean((c["high"] - c["low"]) / 2 for c in own),
        "seeds": len(own),
        "hard prompt": statistics.mean(c["hard_prompt"] for c in own),
        "kept bytes": own[0]["kept_bytes"],
        "seconds": statistics.median(c["seconds"] for c in own),
    }


def against_best(name: str, task: Task, done: Mapping[str, Mapping[str, Any]], asked: argparse.Namespace) -> list[Column]:
    """What ``tune`` picked and the best fixed setting of a set, where both were measured."""
    own = of_setting(name, AUTO, AUTO, done, asked)
    fixed = {one: of_setting(name, *one, done, asked) for one in settings(asked) if one[0] != AUTO}
    fixed = {one: found for one, found in fixed.items() if found}
    if not own or not fixed:
        return []
    best = max(fixed, key=lambda one: mean(fixed[one]))
    first, second = ([cell["answers"] for cell in found] for found in (fixed[best], own))
    return [Column(name=f"{name}: auto − {' '.join(best)}", task=task, first=first, second=second)]


def on_average(done: Mapping[str, Mapping[str, Any]], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Whether what ``tune`` picks is better over all sets than any setting that was measured on all of them."""
    means: dict[str, float] = {}
    for one in settings(asked):
        found = [of_setting(name, *one, done, asked) for name in asked.sets]
        if all(found):
            means[" ".join(one)] = statistics.fmean(mean(cells_of) for cells_of in found)
    own = means.pop(f"{AUTO} {AUTO}", None)
    if own is None or not means:
        return []
    best = max(means, key=lambda one: means[one])
    show("mean over all sets", [{"setting": one, "mean": value} for one, value in [(AUTO, own), *means.items()]])
    return [verdict(f"auto over {best}, mean of all sets", own - means[best], least=0.0)]


def arguments() -> argparse.Namespace:
    """What was asked."""
    found = parser(__doc__, rounds=1)
    found.add_argument("sets", nargs="*", default=["sst2"])
    found.add_argument("--rows", type=int, default=1000)
    found.add_argument("--tests", type=int)
    found.add_argument("--kinds", nargs="+", choices=[AUTO, *KINDS], default=[AUTO, *KINDS])
    found.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    found.add_argument("--config", default="{}", help="more TuneConfig fields as JSON")
    asked = found.parse_args()
    if asked.quick:
        asked.rows, asked.places = min(asked.rows, 48), ["template", "both"]
    return asked


if __name__ == "__main__":
    main()
