"""How does a step grow with the cached text, and the whole time of a first tuning with the rows?

    growth = seconds of a step over 2,048 cached tokens / over 32         batch 16, kv; target ≤ 4
    whole time ≈ a + b · rows         least squares; r², and the largest deviation from the line in units of it

    python benchmarks/scaling.py
    python benchmarks/scaling.py --cached --rows 125 250 500 1000 --rounds 1       the second only

The whole time is that of a first run over 3 epochs at batch 64 (frozen states built in it, 150 rows validated after every
epoch) on the first rows of SST-2, from $EPIGRAPH_DATA. Both are drawn into ``benchmarks/plots/`` (``--plots``).
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from drawing import plot
from measuring import (
    RandomTexts,
    Unwatched,
    alternate,
    data_set,
    fresh_engine,
    medians,
    open_base,
    parser,
    random_rows,
    settings,
    show,
    timed_steps,
    verdict,
    write,
)

from epigraph.base import Base
from epigraph.bench.contest import Ours, Plan, read_parts
from epigraph.engine import Engine
from epigraph.tasks.row import Row
from epigraph.tuning.loop import Loop

BATCH, STEPS = 16, 4
WHOLE_BATCH, EPOCHS = 64, 3


def main() -> None:
    """Both measurements, those that were asked for, plots, JSON."""
    asked = arguments()
    base = open_base(asked)
    found = (grown_steps(base, asked) if asked.cached else {}) | (grown_rows(base, asked) if asked.rows else {})
    write(asked, base, "scaling", found | {"verdicts": [part["verdict"] for part in found.values()]})


def grown_steps(base: Base, asked: argparse.Namespace) -> dict[str, Any]:
    """Steps over more and more cached tokens."""
    steps = step_over_cached(base, asked)
    show(f"A step at batch {BATCH}", steps)
    draw_steps(steps, asked.plots)
    first, last = steps[0], steps[-1]
    growth = last["ms"] / first["ms"]
    judged = verdict(f"a step over {last['cached']} tokens, in steps over {first['cached']}", growth, most=4)
    return {"steps": {"measured": steps, "verdict": judged}}


def grown_rows(base: Base, asked: argparse.Namespace) -> dict[str, Any]:
    """First tunings on more and more rows, and the straight line through their seconds."""
    with data_set("sst2", quick=asked.quick) as folder:
        whole = whole_over_rows(base, folder, asked)
    slope, start = np.polyfit([row["rows"] for row in whole], [row["seconds"] for row in whole], 1)
    for row in whole:
        row["line"] = float(start + slope * row["rows"])
        row["deviation"] = row["seconds"] / row["line"] - 1
    show(f"A first tuning over {EPOCHS} epochs at batch {WHOLE_BATCH}", whole)
    draw_rows(whole, asked.plots)
    r2 = float(np.corrcoef([row["line"] for row in whole], [row["seconds"] for row in whole])[0, 1] ** 2)
    off = max(abs(row["deviation"]) for row in whole)
    print(f"whole time: {start:.3g} s + {1000 * slope:.3g} ms a row; largest deviation from the line {off:.1%}")
    judged = verdict("whole time linear in rows, r²", r2, least=0.99)
    line = {"start": float(start), "slope": float(slope), "r2": r2, "largest_deviation": off}
    return {"whole": {"measured": whole, "line": line, "verdict": judged}}


def step_over_cached(base: Base, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Milliseconds of a step for every length of the cached text."""
    with fresh_engine(base) as engine:
        rows = {n: random_rows([n] * BATCH) for n in asked.cached}
        for some in rows.values():
            engine.freeze(RandomTexts(engine).encode(some))
        found = medians(alternate({n: partial(step_seconds, engine, some) for n, some in rows.items()}, asked.rounds))
        at_once = {n: engine.rows_at_once(RandomTexts(engine).encode(some), 1) for n, some in rows.items()}
    first = found[asked.cached[0]]
    return [
        {"cached": n, "ms": 1000 * found[n], "times the first": found[n] / first, "passes": -(-BATCH // at_once[n])}
        for n in asked.cached
    ]


def step_seconds(engine: Engine, rows: list[Row]) -> float:
    """The mean step over these rows, all in one batch, after a first one."""
    solver = RandomTexts(engine)
    steps = timed_steps(solver.prompt, Unwatched(solver, rows), settings("kv", batch=len(rows), epochs=STEPS + 1))[1:]
    return sum(steps) / len(steps)


def whole_over_rows(base: Base, folder: Path, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of a first tuning for every number of rows."""
    measures = {n: partial(first_tuning, base, folder, n) for n in asked.rows}
    found = medians(alternate(measures, asked.rounds))
    return [{"rows": n, "seconds": found[n]} for n in asked.rows]


def first_tuning(base: Base, folder: Path, rows: int) -> float:
    """Seconds from tokenising to the tuned prompt, nothing known of the texts before."""
    plan = Plan(folder=str(folder), rows=rows, tests=1)
    task, parts, _ = read_parts(base, plan, WHOLE_BATCH)
    with fresh_engine(base) as engine:
        ours = Ours(engine, task, parts, "kv", seed=0)
        started = time.perf_counter()
        ours.begin()
        whole = settings("kv", batch=WHOLE_BATCH, epochs=EPOCHS)
        Loop(ours.module, ours.objective, whole, lambda _moment: None).run()
        return time.perf_counter() - started


def draw_steps(steps: list[dict[str, Any]], folder: Path) -> None:
    """Milliseconds over cached tokens, beside four times the shortest."""
    measured = [(row["cached"], row["ms"]) for row in steps]
    limit = 4 * measured[0][1]
    line = [(0.0, limit), (measured[-1][0], limit)]
    axes = ("cached tokens a row", "milliseconds a step")
    plot(folder / "step.svg", f"A step of {BATCH} rows over cached text", axes, measured, line, "4 × the shortest")


def draw_rows(whole: list[dict[str, Any]], folder: Path) -> None:
    """Seconds over rows, beside the line."""
    measured = [(row["rows"], row["seconds"]) for row in whole]
    line = [(row["rows"], row["line"]) for row in whole]
    plot(folder / "rows.svg", f"A first tuning, {EPOCHS} epochs", ("rows", "seconds"), measured, line, "least squares")


def arguments() -> argparse.Namespace:
    """What was asked."""
    found = parser(__doc__, rounds=3)
    found.add_argument("--cached", type=int, nargs="*", default=[32, 64, 128, 256, 512, 1024, 2048])
    found.add_argument("--rows", type=int, nargs="*", default=[125, 250, 500, 1000])
    found.add_argument("--plots", type=Path, default=Path(__file__).parent / "plots")
    asked = found.parse_args()
    if asked.quick:
        asked.cached, asked.rows, asked.plots = [8, 32, 128], [20, 40, 80], asked.out / "plots"
    return asked


if __name__ == "__main__":
    main()
