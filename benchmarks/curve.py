"""What ends a default tuning's accuracy: too few rows, too few vectors, too few passes?

    accuracy(rows, vectors, passes)         one prompt a point, all of them side by side over the same frozen states

    python benchmarks/curve.py banking77 --points 1250x8x5 2500x8x5 2500x32x5 5000x8x7 --rate 0.033 --tests 800

Kind, place, readings and batch are the defaults; nothing is chosen on validation, every row of a point trains. The rows of a
smaller point are among those of the larger ones. Scored on the first rows of the test set after a seeded shuffle.
"""

import argparse
import sys
import time
from dataclasses import replace
from typing import Any, NamedTuple

from measuring import data_set, fresh_engine, open_base, parser, show, write

from epigraph.config import TuneConfig
from epigraph.engine import Engine
from epigraph.evaluation import evaluate
from epigraph.methods.solver import PromptedBase
from epigraph.tasks.row import Split
from epigraph.tasks.split import head
from epigraph.tasks.task import Task
from epigraph.tuning.choices import choose
from epigraph.tuning.loop import Loop, Moment, run_together
from epigraph.tuning.objective import make_objective
from epigraph.tuning.start import make_prompt


class Point(NamedTuple):
    """How much one prompt gets."""

    rows: int
    vectors: int
    passes: int


def main() -> None:
    """One row a point; JSON."""
    asked = arguments()
    base = open_base(asked)
    with data_set(asked.set, quick=asked.quick) as folder, fresh_engine(base) as engine:
        found = measure(engine, Task.from_file(folder), asked)
    show(f"{asked.set}, rate {asked.rate}, seed {asked.seed}", found)
    write(asked, base, f"curve-{asked.set}", {"points": found, "verdicts": []})


def measure(engine: Engine, task: Task, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Train all points side by side, then score each."""
    assert task.test is not None
    most = max(point.rows for point in asked.points)
    task = replace(task, train=Split(rows=tuple(head(task.train.rows, most, seed=asked.seed))))
    chosen = choose(TuneConfig(seed=asked.seed, rate=asked.rate), task, len(task.train.rows))
    task, rows = chosen.task, task.train.rows
    tests = head(task.test.rows, asked.tests, seed=0)
    prompts = [
        make_prompt(engine, task, kind=chosen.kind, length=point.vectors, start=chosen.start, seed=asked.seed)
        for point in asked.points
    ]
    solver = PromptedBase(engine, task, prompts[0].fold())
    started = time.perf_counter()
    engine.freeze(solver.encode(rows))
    print(f"{len(rows)} rows read in {time.perf_counter() - started:.0f} s", flush=True)
    objective = make_objective(solver, rows, rows[:1])
    loops = [
        Loop(prompt, objective, replace(chosen.loop, epochs=point.passes), tell, rows=range(point.rows), blind=True)
        for prompt, point in zip(prompts, asked.points, strict=True)
    ]
    run_together(loops)
    print(f"trained after {time.perf_counter() - started:.0f} s", flush=True)
    found = []
    for point, loop in zip(asked.points, loops, strict=True):
        score = evaluate(solver.with_forms(loop.prompt.fold()), tests, split="test").json["accuracy"]
        found.append(
            {**point._asdict(), "steps": loop.steps, "accuracy": score["value"], "low": score["low"], "high": score["high"]}
        )
        print(found[-1], flush=True)
    return found


def tell(moment: Moment) -> None:
    """Every hundredth step, to see that it goes on."""
    if moment.step % 100 == 0:
        print(f"step {moment.step} of {moment.steps}, loss {moment.loss:.3f}", file=sys.stderr, flush=True)


def point(text: str) -> Point:
    """``rows x vectors x passes``."""
    rows, vectors, passes = map(int, text.split("x"))
    return Point(rows, vectors, passes)


def arguments() -> argparse.Namespace:
    """What was asked."""
    found = parser(__doc__, rounds=1)
    found.add_argument("set", nargs="?", default="banking77", help="a folder of $EPIGRAPH_DATA")
    found.add_argument("--points", nargs="+", type=point, default=[Point(80, 4, 2), Point(160, 4, 2)])
    found.add_argument("--rate", type=float, help="by default what tune would take")
    found.add_argument("--tests", type=int, default=1000)
    found.add_argument("--seed", type=int, default=0)
    return found.parse_args()


if __name__ == "__main__":
    main()
