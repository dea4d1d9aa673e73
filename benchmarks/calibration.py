"""What calibration brings: none, contextual and prior matching for zero-shot, few-shot and a soft prompt.

    python benchmarks/calibration.py --sets sst2,trec6,ag_news --rows 200 --tests 300 --seeds 3 > calibration.jsonl

One line of JSON for every set, seed, method and calibration, with its scores; a table of the means at the end, on standard
error. Sets are folders with train.jsonl and test.jsonl under $EPIGRAPH_DATA. Shares are matched on texts of the training
rows, never on those that are scored; few-shot shows eight of them.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import epigraph
from epigraph.evaluation import evaluate
from epigraph.methods import PromptedBase
from epigraph.methods.calibration import calibrate
from epigraph.methods.hard import draw_examples, few_shot, instruction_first, instruction_in_place
from epigraph.tasks.row import Row
from epigraph.tasks.split import head
from epigraph.tasks.task import Task

WAYS = ("none", "contextual", "prior")


def main() -> None:
    """Measure and print."""
    asked = _arguments()
    base = epigraph.load_base(asked.base, dtype=asked.dtype)
    engine = epigraph.Engine(base)
    lines = []
    for name in asked.sets.split(","):
        for seed in range(asked.seeds):
            for line in measure(engine, name, seed, rows=asked.rows, tests=asked.tests, tuned=not asked.no_tuning):
                print(json.dumps(line), flush=True)
                lines.append(line)
    _show(lines)


def measure(
    engine: epigraph.Engine, name: str, seed: int, *, rows: int, tests: int, tuned: bool
) -> Iterator[dict[str, Any]]:
    """Every method on one set, with every calibration."""
    whole = Task.from_file(Path(os.environ["EPIGRAPH_DATA"]) / name)
    if whole.test is None:
        raise SystemExit(f"{name} has no test file")
    train, final = head(whole.train.rows, rows, seed), head(whole.test.rows, tests, 0)
    task = cut(whole, train)
    for method, solver in methods(engine, task, train, seed, tuned=tuned).items():
        for way in WAYS:
            scored = evaluate(solver if way == "none" else calibrate(solver, way, train), final, split="test", seed=seed)
            yield {"set": name, "seed": seed, "method": method, "calibration": way, "scores": scored.json}


def methods(engine: epigraph.Engine, task: Task, train: list[Row], seed: int, *, tuned: bool) -> dict[str, PromptedBase]:
    """The solvers to be calibrated."""
    found = {
        "zero-shot, instruction first": instruction_first(engine, task, 1),
        "zero-shot, in place": instruction_in_place(engine, task, 1),
        "8-shot": few_shot(engine, task, draw_examples(engine, task, train, seed=seed), 1),
    }
    if tuned:
        config = epigraph.TuneConfig(seed=seed, holdout=0.0).single
        found["soft prompt"] = epigraph.tune(engine.base, task, config, engine=engine).model.method
    return found


def cut(task: Task, train: list[Row]) -> Task:
    """The task as one who has these training rows alone knows it."""
    known = sorted({row.target or "" for row in train})
    texts, targets = [dict(row.fields) for row in train], [row.target for row in train]
    words = {label: task.labels[label] for label in known}
    return Task.from_rows(texts, targets, name=task.name, template=task.template.text, words=words)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="sst2,trec6,ag_news", help="names of folders under $EPIGRAPH_DATA")
    parser.add_argument("--rows", type=int, default=200, help="training rows")
    parser.add_argument("--tests", type=int, default=300, help="test rows")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the training rows")
    parser.add_argument("--no-tuning", action="store_true", help="hard prompts only")
    parser.add_argument("--base", default="default")
    parser.add_argument("--dtype", default="auto")
    return parser.parse_args()


def _show(lines: list[dict[str, Any]]) -> None:
    groups: dict[tuple[str, str], dict[str, list[float]]] = {}
    for line in lines:
        ways = groups.setdefault((line["set"], line["method"]), {way: [] for way in WAYS})
        ways[line["calibration"]].append(line["scores"]["accuracy"]["value"])
    print(f"{'set':12}{'method':32}" + "".join(f"{way:>12}" for way in WAYS), file=sys.stderr)
    for (name, method), ways in groups.items():
        means = "".join(f"{statistics.mean(ways[way]):12.3f}" for way in WAYS)
        print(f"{name:12}{method:32}{means}", file=sys.stderr)


if __name__ == "__main__":
    main()
