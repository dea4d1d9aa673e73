"""Does a universal start help a new task with few examples? Universal against text start against SPoT, five draws.

    python benchmarks/multitask.py                       all sources and targets, 4, 16, 32 and 100 examples
    python benchmarks/multitask.py --targets imdb --shots 4 16 --draws 2
    python benchmarks/multitask.py --quick               a toy base and made-up tasks

Sources: SST-2, TREC, AG News, Subj, RTE, BoolQ; targets: clinc10_domain, ten classes of banking77, IMDb; sets are found through
$EPIGRAPH_DATA. ``universal`` starts from what MPT shares, ``spot`` from one prompt tuned on the mixture of all sources, ``text`` from the
target's own labels. All three are tuned by the same ``tune`` with the same settings, at as many rates (``--trials``), each
keeping what is best on validation rows. Every cell is written as soon as it is measured, to results/multitask-cells.jsonl, and not
measured again by the same command, or by one that asks for more targets, examples or draws.

    interval    mean of D draws ± t(.975, D − 1) · s / √D        of accuracy, and of universal − text and universal − spot by draw
"""

import argparse
import hashlib
import json
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kept import Kept, TimeUp, go_on
from scipy.stats import t

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
    library = asked.out / f"multitask-library-{prepared_as(base, asked)}"
    for kind, name in (("multitask", "universal"), ("spot", "spot")):
        prepare(kind, name, home, library, base, asked)
    kept = Kept(asked.out / "multitask-cells.jsonl", asked, more=("targets", "shots", "draws"), base=base.fingerprint)
    engine = epigraph.Engine(base)
    try:
        for target in asked.targets:
            task = read_target(home, target, asked)
            for draw in range(asked.draws):
                for shots in asked.shots:
                    for start in STARTS:
                        cell(kept, engine, task, f"{target}/{shots}/{draw}/{start}", library, asked)
    except TimeUp:
        go_on(kept, asked.minutes)
        return
    summary = summarise(kept.known, asked)
    file = asked.out / "multitask.json"
    file.write_text(
        json.dumps({"quick": asked.quick, "sources": asked.sources, "cells": kept.known, "summary": summary}, indent=1)
    )
    print(f"written: {file}")


def cell(
    kept: Kept, engine: epigraph.Engine, task: epigraph.Task, key: str, library: Path, asked: argparse.Namespace
) -> None:
    """One cell, measured unless it is there."""
    _, shots, draw, start = key.split("/")
    if key not in kept.known:
        found = kept.once(key, lambda: measure(engine, task, int(shots), int(draw), start, library, asked))
        print(f"{key}: {found:.3f}", flush=True)


def prepared_as(base: epigraph.Base, asked: argparse.Namespace) -> str:
    """A name for what the starts are tuned from, so that those of another question are not taken for them."""
    said = [asked.sources, asked.rows, asked.quick, asked.dtype, base.fingerprint]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


def prepare(kind: str, name: str, home: Path, library: Path, base: epigraph.Base, asked: argparse.Namespace) -> None:
    """Tune the sources together, once; an interrupted one goes on."""
    mark = library.with_suffix(f".{name}.folder")
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
    """So many training rows in all, every label in turn as far as they go; which labels come first is drawn too."""
    order = head(task.train.rows, len(task.train.rows), seed=draw)
    labels = random.Random(draw).sample(list(task.labels), len(task.labels))
    by_label = [[row for row in order if row.target == label] for label in labels]
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


def summarise(cells: Mapping[str, float], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Means over the draws with intervals, and whether the universal start is ahead of each other one by more than its own."""
    rows = []
    for target in asked.targets:
        for shots in asked.shots:
            each = {s: [cells[f"{target}/{shots}/{d}/{s}"] for d in range(asked.draws)] for s in STARTS}
            mean = {s: interval(values) for s, values in each.items()}
            pairs = {s: [a - b for a, b in zip(each["universal"], each[s], strict=True)] for s in ("text", "spot")}
            ahead = {s: interval(differences) for s, differences in pairs.items()}
            rows.append({"target": target, "examples": shots, "draws": asked.draws, "mean": mean, "universal_less": ahead})
            shown = "  ".join(f"{s} {said(mean[s])}" for s in STARTS)
            gains = "  ".join(f"universal − {s} {said(ahead[s])}: {in_words(ahead[s])}" for s in ahead)
            print(f"{target:16} {shots:4}  {shown}  {gains}", flush=True)
    return rows


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """The mean, and the 95% interval of the mean over draws by Student's t; no bounds of a single draw."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return {"value": mean, "low": None, "high": None}
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return {"value": mean, "low": mean - half, "high": mean + half}


def said(found: Mapping[str, float | None]) -> str:
    """A mean with its bounds."""
    bounds = "one draw" if found["low"] is None else f"{found['low']:.3f} to {found['high']:.3f}"
    return f"{found['value']:.3f} [{bounds}]"


def in_words(difference: Mapping[str, float | None]) -> str:
    """What a difference says."""
    low, high = difference["low"], difference["high"]
    if low is None or high is None:
        return "one draw says nothing"
    return "helps" if low > 0 else "harms" if high < 0 else "no difference to be seen"


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
    parser.add_argument("--minutes", type=float, default=math.inf, help="no cell is begun after so many")
    parser.add_argument("--out", type=Path, default=Path("results"), help="the folder of the JSON and of the prompts")
    asked = parser.parse_args()
    if asked.quick:
        asked.sources, asked.targets, asked.shots, asked.draws = ["one", "two"], ["new"], [4], 2
    return asked


if __name__ == "__main__":
    main()
