"""Does a universal start help a new task with few examples? Universal against text start against SPoT, five draws.

    python benchmarks/multitask.py                       all sources and targets, 4, 16, 32 and 100 examples
    python benchmarks/multitask.py --targets imdb --shots 4 16 --draws 2
    python benchmarks/multitask.py --quick               a toy base and made-up tasks

Sources: SST-2, TREC, AG News, Subj, RTE, BoolQ; targets: clinc10_domain, ten classes of banking77, IMDb; sets are found through
$EPIGRAPH_DATA. ``universal`` starts from what MPT shares, ``spot`` from one prompt tuned on the mixture of all sources, ``text`` from the
target's own labels. All three are tuned by the same ``tune`` with the same settings, at as many rates (``--trials``), each
keeping what is best on validation rows. Every cell is written as soon as it is measured and not measured again.
"""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import epigraph
from epigraph.base.toy import toy_base
from epigraph.bench.tuning import data_folder
from epigraph.config import TuneConfig
from epigraph.jobs import forms_on
from epigraph.library import Library
from epigraph.multitask.errand import MultitaskJob, run_job
from epigraph.multitask.settings import MultitaskConfig
from epigraph.tasks.row import Row, Split
from epigraph.tasks.split import head
from epigraph.tuning import Surroundings

SOURCES = ("sst2", "trec6", "ag_news", "subj", "rte", "boolq")
TARGETS = ("clinc10_domain", "banking77", "imdb")
SHOTS = (4, 16, 32, 100)
STARTS = ("text", "universal", "spot")
LENGTH = 8  # the default, but asked for: else the trials of a start differ by length too
CLASSES = {"banking77": 10}


def main() -> None:
    """The two starts, then every cell; a table; JSON."""
    asked = arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    home = made_up(asked.out / "toy") if asked.quick else data_folder()
    base = epigraph.load_base(str(home / "base") if asked.quick else "default", dtype=asked.dtype)
    library = asked.out / "multitask-library"
    for kind, name in (("multitask", "universal"), ("spot", "spot")):
        prepare(kind, name, home, library, base, asked)
    file = asked.out / "multitask.json"
    cells = json.loads(file.read_text())["cells"] if file.exists() else {}
    engine = epigraph.Engine(base)
    for target in asked.targets:
        task = read_target(home, target, asked)
        for shots in asked.shots:
            for draw in range(asked.draws):
                for start in STARTS:
                    key = f"{target}/{shots}/{draw}/{start}"
                    if key not in cells:
                        cells[key] = measure(engine, task, shots, draw, start, library, asked)
                        print(f"{key}: {cells[key]:.3f}", flush=True)
                        file.write_text(
                            json.dumps({"quick": asked.quick, "sources": asked.sources, "cells": cells}, indent=1)
                        )
    summary = summarise(cells, asked)
    file.write_text(
        json.dumps({"quick": asked.quick, "sources": asked.sources, "cells": cells, "summary": summary}, indent=1)
    )
    print(f"written: {file}")


def prepare(kind: str, name: str, home: Path, library: Path, base: epigraph.Base, asked: argparse.Namespace) -> None:
    """Tune the sources together, once; an interrupted one goes on."""
    mark = asked.out / f"multitask-{name}.folder"
    if name in Library(library).names():
        return
    tune = TuneConfig(epochs=1, batch=4, length=2) if asked.quick else TuneConfig()
    config = MultitaskConfig(kind=kind, transfer=0, rows=None if asked.quick else asked.rows, tune=tune)
    resume = Path(mark.read_text()) if mark.exists() else None
    tasks = tuple(str(home / one) for one in asked.sources) if resume is None else ()
    job = MultitaskJob(
        tasks=tasks, library=library, config=config, name=name, resume=resume, base=str(base.path), dtype=base.precision.name
    )
    print(f"tuning {', '.join(asked.sources)} together ({kind})", flush=True)
    result = run_job(job, started=lambda folder: mark.write_text(str(folder)), note=lambda text: print(text, flush=True))
    for one in result.tasks:
        ours, plain = (scores[one.metric]["value"] for scores in (one.scores, one.plain))
        print(f"{one.name}: {kind} {ours:.3f}, plain {plain:.3f}", flush=True)


def read_target(home: Path, name: str, asked: argparse.Namespace) -> epigraph.Task:
    """A target with at most ``--tests`` test rows; of banking77 the ten classes that come first."""
    task = epigraph.Task.from_file(home / name)
    assert task.test is not None
    kept = sorted(task.labels)[: CLASSES.get(name, len(task.labels))]
    train, test = (tuple(row for row in split.rows if row.target in kept) for split in (task.train, task.test))
    return replace(
        task,
        labels={label: task.labels[label] for label in kept},
        train=Split(rows=train),
        test=Split(rows=tuple(head(test, asked.tests, seed=0))),
    )


def drawn(task: epigraph.Task, shots: int, draw: int) -> tuple[Row, ...]:
    """So many training rows in all, every label in turn as far as they go."""
    order = head(task.train.rows, len(task.train.rows), seed=draw)
    by_label = [[row for row in order if row.target == label] for label in task.labels]
    turns = [rows[i] for i in range(shots) for rows in by_label if i < len(rows)]
    return tuple(turns[:shots])


def measure(
    engine: epigraph.Engine, task: epigraph.Task, shots: int, draw: int, start: str, library: Path, asked: argparse.Namespace
) -> float:
    """Accuracy on the test rows from this start."""
    small = replace(task, train=Split(rows=drawn(task, shots, draw)))
    settings = {"epochs": 1, "batch": 4, "length": 2} if asked.quick else {"trials": asked.trials, "length": LENGTH}
    config = TuneConfig(kind="kv", seed=draw, start="text" if start == "text" else f"prompt:{start}", **settings)
    around = Surroundings(forms_of=lambda name: forms_on(Library(library).get(name), engine.base.fingerprint))
    result = epigraph.tune(engine.base, small, config, engine=engine, around=around)
    return float(result.scores["accuracy"]["value"])


def summarise(cells: dict[str, float], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Mean and spread over the draws, and whether the universal start is ahead of both others."""
    rows = []
    for target in asked.targets:
        for shots in asked.shots:
            each = {s: [cells[f"{target}/{shots}/{d}/{s}"] for d in range(asked.draws)] for s in STARTS}
            mean = {s: statistics.mean(values) for s, values in each.items()}
            spread = {s: statistics.stdev(values) if len(values) > 1 else 0.0 for s, values in each.items()}
            helps = mean["universal"] > max(mean["text"], mean["spot"])
            rows.append({"target": target, "examples": shots, "mean": mean, "spread": spread, "universal_is_ahead": helps})
            shown = "  ".join(f"{s} {mean[s]:.3f} ± {spread[s]:.3f}" for s in STARTS)
            print(
                f"{target:16} {shots:4}  {shown}  {'universal is ahead' if helps else 'universal does not help'}", flush=True
            )
    return rows


def made_up(home: Path) -> Path:
    """A toy base on disk and made-up sources and targets; their folder."""
    for n, (name, words) in enumerate({"one": ("yes", "no"), "two": ("up", "down"), "new": ("odd", "even")}.items()):
        folder = home / name
        folder.mkdir(parents=True, exist_ok=True)
        for part, rows in (("train", 24), ("test", 6)):
            lines = [json.dumps({"text": f"{name} {words[i % 2] * 3} {i + n}", "label": words[i % 2]}) for i in range(rows)]
            (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    base = toy_base()
    base.model.save_pretrained(home / "base")
    base.tokenizer.save_pretrained(home / "base")
    return home


def arguments() -> argparse.Namespace:
    """What was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a toy base and made-up rows: to try the script, not the machine"
    )
    parser.add_argument("--sources", nargs="+", default=list(SOURCES))
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--shots", type=int, nargs="+", default=list(SHOTS))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1000, help="training rows of a source")
    parser.add_argument("--tests", type=int, default=500, help="test rows of a target")
    parser.add_argument("--trials", type=int, default=3, help="rates tried from every start, the same for all")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=Path, default=Path("results"), help="the folder of the JSON and of the prompts")
    asked = parser.parse_args()
    if asked.quick:
        asked.sources, asked.targets, asked.shots, asked.draws = ["one", "two"], ["new"], [4], 1
    return asked


if __name__ == "__main__":
    main()
