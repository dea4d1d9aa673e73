"""Does a hard prompt of 40 examples fit into 16 vectors? Agreement with it, what a request saves, before and behind the text.

    python benchmarks/distill.py                              SST-2, 500 unlabelled texts, both places
    python benchmarks/distill.py --places first --tests 500
    python benchmarks/distill.py --quick                      a toy base and made-up rows

Several draws of the examples are tried in turn, and the first under which the base does not give one label to nearly all texts is
taken: to imitate a constant is nothing. The student learns from texts alone; labels are used for the scores only. Cohen's kappa is on
test texts, beside the agreement of the constant answer, whose kappa is 0. Tokens and seconds are of one request: before as the hard
prompt is read anew, with its keys and values kept, and after. An interrupted measurement goes on where it was. The set is found through
$EPIGRAPH_DATA.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from measuring import open_base, parser, show, verdict, write

import epigraph
from epigraph.bench.tuning import data_folder
from epigraph.distilling import DistillConfig, DistillResult
from epigraph.distilling.answers import ask_all
from epigraph.distilling.fidelity import answers_of
from epigraph.distilling.teacher import BaseTeacher, hard_prompt_teacher
from epigraph.distilling.written import draw
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.loop import Moment
from epigraph.tuning.run import Run
from epigraph.tuning.surroundings import Surroundings

TARGET = 0.9  # of kappa, prompt first
POOL = 1000  # training rows from which examples are drawn
TRIED_TEXTS, MOST_OF_ONE = 64, 0.7


def main() -> None:
    """Choose the hard prompt, distil it in every place, print the table and the verdict, write JSON."""
    asked = arguments()
    base = open_base(asked)
    engine = epigraph.Engine(base)
    task, pool, texts, tests = read_rows(asked)
    teacher, draws = choose(engine, task, pool, texts, asked)
    found = []
    for place in asked.places:
        config = DistillConfig(place=place, length=asked.length, epochs=asked.epochs, rate=asked.rate, batch=asked.batch)
        runs = asked.out / f"distill-{place}"
        around = Surroundings(runs=runs, resume=unfinished(runs), listener=tell, note=print, stage=stage)
        result = epigraph.distill(base, task, texts, teacher, config, tests=tests, engine=engine, around=around)
        assert result.prompt.metrics_file is not None
        Run(result.prompt.metrics_file.parent).finish(place)
        found.append(line(place, result))
        show("so far", found)
    verdicts = [verdict(f"kappa, prompt {one['place']}", one["kappa"], least=TARGET) for one in found]
    write(asked, base, "distill", {"draws": draws, "places": found, "verdicts": verdicts, "texts": len(texts)})


def read_rows(asked: argparse.Namespace) -> tuple[Task, list[Row], list[Row], list[Row]]:
    """The task, rows to draw examples from, texts without labels, and test rows."""
    task = made_up() if asked.quick else Task.from_file(data_folder() / asked.set)
    assert task.test is not None
    rows = list(task.train.rows)
    random.Random(asked.seed).shuffle(rows)
    pool = min(POOL, len(rows) // 2)
    texts = [replace(row, target=None) for row in rows[pool : pool + asked.texts]]
    tests = list(task.test.rows)
    random.Random(asked.seed).shuffle(tests)
    return task, rows[:pool], texts, tests[: asked.tests]


def choose(
    engine: epigraph.Engine, task: Task, pool: Sequence[Row], texts: Sequence[Row], asked: argparse.Namespace
) -> tuple[BaseTeacher, list[dict[str, Any]]]:
    """The first draw of examples under which no label is given to nearly all texts; else the most even one."""
    draws: list[dict[str, Any]] = []
    teachers = []
    for seed in range(asked.draws):
        examples = draw(engine, task, pool, asked.shots, seed)
        teacher = hard_prompt_teacher(engine, task, task.instruction, examples=examples)
        some = texts[:TRIED_TEXTS]
        given = Counter(answers_of(task, some, ask_all(teacher, some, stage=stage)))
        draws.append({"seed": seed, "examples": len(examples), "most of one label": max(given.values()) / len(some)})
        teachers.append(teacher)
        print(draws[-1], flush=True)
        if draws[-1]["most of one label"] <= MOST_OF_ONE:
            return teacher, draws
    best = min(range(len(draws)), key=lambda i: draws[i]["most of one label"])
    return teachers[best], draws


def unfinished(runs: Path) -> Path | None:
    """The run that was interrupted, if there is one: it is gone on with."""
    found = [folder for folder in sorted(runs.glob("*/")) if not Run(folder).stored_as]
    return found[-1] if found else None


def line(place: str, result: DistillResult) -> dict[str, Any]:
    """A row of the table."""
    found = result.json
    tokens, seconds = found["request"]["tokens"], found["request"]["seconds"]
    accuracy = [None if s is None else s["accuracy"]["value"] for s in (found["teacher_scores"], found["scores"])]
    return {
        "place": place,
        "texts": found["rows"],
        "agreement": found["agreement"]["value"],
        "kappa": found["kappa"]["value"],
        "low": found["kappa"]["low"],
        "high": found["kappa"]["high"],
        "constant": found["constant"]["agreement"],
        "kappa at start": found["start"]["kappa"]["value"],
        "nats": found["divergence"],
        "teacher": accuracy[0],
        "student": accuracy[1],
        "tokens before": tokens["before"],
        "after": tokens["after"],
        "s before": seconds["before"],
        "s prefix kept": seconds.get("before_prefix_kept"),
        "s after": seconds["after"],
        "s training": found["cost"]["train_seconds"],
    }


def tell(moment: Moment) -> None:
    """A line a validation."""
    if moment.score is not None:
        print(f"epoch {moment.epoch}: loss {moment.loss:.4f}, divergence on validation {-moment.score:.4f}", flush=True)


def stage(name: str, done: int, total: int) -> None:
    """A line now and then."""
    print(f"{name}: {done} of {total}", flush=True)


def made_up() -> Task:
    """Rows for a toy base."""
    texts, labels = [f"text {i % 7} {'ab'[i % 2] * 4}" for i in range(160)], ["one", "two"] * 80
    task = Task.from_rows(texts, labels, name="made-up")
    return replace(task, test=replace(task.train, rows=task.train.rows[:20]))


def arguments() -> argparse.Namespace:
    """What was asked."""
    found = parser(__doc__, rounds=1)
    found.add_argument("--set", default="sst2")
    found.add_argument("--places", nargs="+", default=["first", "last"])
    found.add_argument("--shots", type=int, default=40)
    found.add_argument("--draws", type=int, default=8, help="draws of the examples that are tried")
    found.add_argument("--texts", type=int, default=500, help="texts without labels")
    found.add_argument("--tests", type=int, default=500)
    found.add_argument("--length", type=int, default=16)
    found.add_argument("--epochs", type=int, default=None)
    found.add_argument("--rate", type=float, default=None)
    found.add_argument("--batch", type=int, default=16)
    found.add_argument("--seed", type=int, default=7)
    asked = found.parse_args()
    if asked.quick:
        asked.shots, asked.texts, asked.tests, asked.epochs = 4, 40, 20, 1
    return asked


if __name__ == "__main__":
    main()
