"""Does a hard prompt of 40 examples fit into 16 vectors? Agreement with it, what a request saves, before and behind the text.

    python benchmarks/distill.py                              SST-2, 3,000 unlabelled texts, the vectors first
    python benchmarks/distill.py --texts 1000                 the same draw with fewer: what more texts are worth
    python benchmarks/distill.py --places first last --rate 0.01
    python benchmarks/distill.py --quick                      a toy base and made-up rows

Several draws of the examples are tried on labelled training rows that are among neither examples nor texts. Taken is the draw that is
right most often of those under which the base does not give one label to nearly all rows: the one that a person would take, and one
whose answers hang on the text. (Where its log-odds are all near 0, rounding to bfloat16 alone turns some of its own answers.) Texts and
test rows are others than those, and the student sees no label. Kappa is beside that of the constant answer, which is 0. Tokens and seconds
are of one request: before as the hard prompt is read anew, with its keys and values kept, and after.

What it computes is said before it begins: a text costs its tokens once under the teacher, and twice (forward and back) a pass. Draws,
answers, places and amounts are kept as they come; after ``--minutes`` a distilling stops at its step, and the same command goes on there.
The set is found through $EPIGRAPH_DATA.
"""

import argparse
import hashlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from kept import Kept, TimeUp, go_on
from measuring import open_base, parser, show, verdict, write

import epigraph
from epigraph.bench.tuning import data_folder
from epigraph.distilling import DistillConfig, DistillResult
from epigraph.distilling.answers import ask_all
from epigraph.distilling.choices import choose
from epigraph.distilling.fidelity import answers_of
from epigraph.distilling.session import divide
from epigraph.distilling.teacher import BaseTeacher, hard_prompt_teacher
from epigraph.distilling.written import draw
from epigraph.engine import Engine
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.loop import Moment
from epigraph.tuning.run import Run
from epigraph.tuning.surroundings import Surroundings

TARGET = 0.9  # of kappa, prompt first
POOL = 1000  # training rows from which examples are drawn
TRIED, MOST_OF_ONE = 64, 0.7
OF_THE_STUDENT = (
    "texts",
    "length",
    "epochs",
    "rate",
    "batch",
    "kind",
    "states",
    "start",
)  # another value: one more measurement
CUE = 3  # tokens behind the vectors, where these stand last
RATE = 100e9  # floating-point operations a second, of two cores with AVX2
Line = dict[str, Any]


def main() -> None:
    """Choose the hard prompt, distil it in every place, print the table and the verdict, write JSON."""
    asked = arguments()
    base = open_base(asked)
    kept = Kept(asked.out / "distill.jsonl", asked, more=("places", *OF_THE_STUDENT), base=base.fingerprint)
    try:
        found = measure(epigraph.Engine(base), kept, asked)
    except TimeUp:
        go_on(kept, asked.minutes)
        return
    except KeyboardInterrupt:
        print(f"interrupted; {len(kept.known)} measurements are in {kept.path}. The same command goes on.")
        raise SystemExit(130) from None
    first = [one["kappa"] for one in found["places"] if one["place"] == "first"]
    verdicts = [verdict("kappa, prompt first", value, least=TARGET) for value in first]
    write(asked, base, "distill", found | {"verdicts": verdicts})


def measure(engine: Engine, kept: Kept, asked: argparse.Namespace) -> dict[str, Any]:
    """The draws, and one line a place."""
    task, pool, texts, tests = read_rows(asked)
    draws = [kept.once(f"draw {seed}", lambda s=seed: tried(engine, task, pool, s, asked)) for seed in range(asked.draws)]  # type: ignore[misc]
    show("draws of the examples", draws)
    chosen = best_draw(draws)
    teacher = teacher_of(engine, task, pool, chosen["seed"], asked)
    found: list[Line] = []
    for place in asked.places:
        student = Student(engine, task, teacher, asked, place, kept)
        found.append(kept.once(student.name, lambda s=student: s.distil(texts, tests)))  # type: ignore[misc]
        show("so far", found)
    show("all that were measured", [one for name, one in kept.known.items() if name.startswith("prompt ")])
    return {"draws": draws, "chosen": chosen, "places": found, "texts": len(texts), "tests": len(tests)}


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


def teacher_of(engine: Engine, task: Task, pool: Sequence[Row], seed: int, asked: argparse.Namespace) -> BaseTeacher:
    """The base under one draw of the examples."""
    examples = draw(engine, task, pool, asked.shots, seed)
    return hard_prompt_teacher(engine, task, task.instruction, examples=examples)


def tried(engine: Engine, task: Task, pool: Sequence[Row], seed: int, asked: argparse.Namespace) -> Line:
    """How a draw answers labelled rows that it does not show."""
    teacher = teacher_of(engine, task, pool, seed, asked)
    shown = [row.fields for row in teacher.shown]
    rows = [row for row in pool if row.fields not in shown][:TRIED]
    told = ask_all(teacher, rows, stage=stage).answers
    given = answers_of(task, rows, told)
    sure = [abs(float(np.diff(sorted(one.logs)[-2:])[0])) for one in told]
    return {
        "seed": seed,
        "examples": len(teacher.shown),
        "rows": len(rows),
        "most of one label": max(Counter(given).values()) / len(rows),
        "accuracy": sum(a == row.target for a, row in zip(given, rows, strict=True)) / len(rows),
        "median margin, nats": float(np.median(sure)),
    }


def best_draw(draws: Sequence[Line]) -> Line:
    """The most accurate of those that do not give one label to nearly all rows; where all do, the most even."""
    even = [one for one in draws if one["most of one label"] <= MOST_OF_ONE]
    return max(even, key=lambda one: one["accuracy"]) if even else min(draws, key=lambda one: one["most of one label"])


class Student:
    """The student at one place, of one amount of texts."""

    def __init__(
        self, engine: Engine, task: Task, teacher: BaseTeacher, asked: argparse.Namespace, place: str, kept: Kept
    ) -> None:
        self.engine, self.task, self.teacher, self.place = engine, task, teacher, place
        said = [f"{name} {getattr(asked, name)}" for name in OF_THE_STUDENT if getattr(asked, name) not in (None, "")]
        self.name = f"prompt {place}: {', '.join(said)}"
        self.runs = asked.out / f"distill-{hashlib.sha256((kept.head + self.name).encode()).hexdigest()[:8]}"
        self.until = kept.until
        own = {name: getattr(asked, name) for name in OF_THE_STUDENT if name != "texts"}
        self.config = DistillConfig(place=place, **own)

    def distil(self, texts: Sequence[Row], tests: Sequence[Row]) -> Line:
        """What it is worth; gone on with where its run was stopped."""
        print(self.cost(texts, tests), flush=True)
        around = Surroundings(runs=self.runs, resume=unfinished(self.runs), listener=self.tell, note=print, stage=self.stage)
        result = epigraph.distill(
            self.engine.base, self.task, texts, self.teacher, self.config, tests=tests, engine=self.engine, around=around
        )
        assert result.prompt.metrics_file is not None
        Run(result.prompt.metrics_file.parent).finish(self.place)
        return line(self.place, len(texts), result)

    def cost(self, texts: Sequence[Row], tests: Sequence[Row]) -> str:
        """What will be computed, in words: the layers' products, and under the teacher the attention to what it reads."""
        trunk, solver = self.engine.trunk, self.teacher.solver
        some = solver.encode(texts[:200])
        tokens, shown = sum(row.length for row in some) / len(some), solver.forms[0].length
        read = tokens * (2 * trunk.weights + 4 * self.engine.base.layers * trunk.width * shown)
        train = divide(texts, tests, self.config)[0]
        epochs = choose(self.config, self.task, len(train)).loop.epochs
        own = tokens if self.place == "first" else CUE
        asking, training = read * (len(texts) + len(tests)), 4 * trunk.weights * own * len(train) * epochs
        return (
            f"{len(texts)} texts of {tokens:.0f} tokens: to ask {asking / 1e12:.1f} TFLOP, to learn in {epochs} passes "
            f"{training / 1e12:.1f}; at {RATE / 1e9:.0f} GFLOP/s {(asking + training) / RATE / 60:.0f} minutes"
        )

    def tell(self, moment: Moment) -> None:
        """A line a validation; stopped when time is up, a step after which the state is on disk."""
        if moment.score is not None:
            print(f"epoch {moment.epoch}: loss {moment.loss:.4f}, divergence on validation {-moment.score:.4f}", flush=True)
        self.check_time()

    def stage(self, name: str, done: int, total: int) -> None:
        """A line now and then; what is measured at the end is not stopped."""
        stage(name, done, total)
        if not name.startswith("comparing"):
            self.check_time()

    def check_time(self) -> None:
        """TimeUp when it is: answers and steps so far are kept."""
        if time.monotonic() > self.until:
            raise TimeUp


def unfinished(runs: Path) -> Path | None:
    """The run that was interrupted, if there is one: it is gone on with."""
    found = [folder for folder in sorted(runs.glob("*/")) if not Run(folder).stored_as]
    return found[-1] if found else None


def line(place: str, texts: int, result: DistillResult) -> Line:
    """A row of the table."""
    found = result.json
    tokens, seconds = found["request"]["tokens"], found["request"]["seconds"]
    accuracy = [None if s is None else s["accuracy"]["value"] for s in (found["teacher_scores"], found["scores"])]
    return {
        "place": place,
        "texts": texts,
        "rate": found["settings"]["rate"],
        "passes": found["settings"]["epochs"],
        "start": found["settings"]["start"],
        "states": found["settings"]["states"],
        "tests": found["rows"],
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
        "steps": result.reasons["stop"],
        "s training": found["cost"]["train_seconds"],
        "s asking": found["cost"]["teacher_seconds"],
        "asked": found["cost"]["teacher_asked"],
    }


def stage(name: str, done: int, total: int) -> None:
    """A line now and then."""
    print(f"{name}: {done} of {total}", flush=True)


def made_up() -> Task:
    """Rows for a toy base."""
    texts, labels = [f"text {i} {'ab'[i % 2] * 4}" for i in range(160)], ["one", "two"] * 80
    task = Task.from_rows(texts, labels, name="made-up")
    tests = Task.from_rows([f"test {text}" for text in texts[:20]], labels[:20])
    return replace(task, test=tests.train)


def arguments() -> argparse.Namespace:
    """What was asked."""
    found = parser(__doc__, rounds=1)
    found.add_argument("--set", default="sst2")
    found.add_argument("--places", nargs="+", default=["first"])
    found.add_argument("--shots", type=int, default=40)
    found.add_argument("--draws", type=int, default=8, help="draws of the examples that are tried")
    found.add_argument(
        "--texts", type=int, default=3000, help="texts without labels; SST-2 has 4,000 besides those for the draws"
    )
    found.add_argument("--tests", type=int, default=500)
    found.add_argument("--kind", default="")
    found.add_argument("--start", default="", help="first values: matched (the default, prompt first) or text")
    found.add_argument("--states", type=float, default=None, help="weight of the teacher's states, which are imitated too")
    found.add_argument("--length", type=int, default=16)
    found.add_argument("--epochs", type=int, default=None)
    found.add_argument("--rate", type=float, default=None)
    found.add_argument("--batch", type=int, default=16)
    found.add_argument("--seed", type=int, default=7)
    found.add_argument("--minutes", type=float, default=40.0, help="after which it stops; the same command goes on")
    asked = found.parse_args()
    if asked.quick:
        asked.shots, asked.texts, asked.tests, asked.epochs, asked.draws = 4, 40, 20, 1, 2
    return asked


if __name__ == "__main__":
    main()
