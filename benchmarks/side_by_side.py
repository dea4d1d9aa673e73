"""How much faster are 8 trials side by side than the same 8 one after another, and do the same prompts come out?

    gain = seconds of 8 runs one after another / seconds of the 8 in one pass a step         over the same frozen states

    python benchmarks/side_by_side.py

At batch 16 (target ≥ 1.5) and at batches where one run already fills the machine. The trials have other rates and seeds,
hence other orders; validation is not in it. ``difference`` is the largest of the 8 prompts' differences, side by side against
alone, in units of the prompt's largest number; ``moved`` is how far training moved the prompts, in the same unit.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measuring import (
    RandomTexts,
    Unwatched,
    alternate,
    fresh_engine,
    medians,
    open_base,
    parser,
    random_rows,
    settings,
    show,
    timed_together,
    verdict,
    write,
)
from torch import Tensor

from epigraph.engine import Engine
from epigraph.tasks.row import Row
from epigraph.tuning.loop import Loop
from epigraph.tuning.search.space import RATES

TRIALS = 8
STEPS = 8  # of every trial, in one epoch


def main() -> None:
    """One row a batch; JSON."""
    asked = arguments()
    base = open_base(asked)
    with fresh_engine(base) as engine:
        rows = random_rows([asked.tokens] * (STEPS * max(asked.batches)))
        engine.freeze(RandomTexts(engine).encode(rows))
        found = compare(engine, rows, asked)
    show(f"{TRIALS} trials of {STEPS} steps, {asked.tokens} cached tokens a row", found)
    verdicts = [verdict(f"gain at batch {row['batch']}", row["gain"], least=1.5) for row in found if row["batch"] == 16]
    verdicts += [verdict(f"difference at batch {row['batch']}", row["difference"], most=1e-3) for row in found]
    write(asked, base, "side_by_side", {"rows": found, "verdicts": verdicts})


def compare(engine: Engine, rows: list[Row], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Both ways in turn, at every batch."""
    measures: dict[tuple[str, int], Callable[[], float]] = {}
    prompts: dict[tuple[str, int], list[Tensor]] = {}
    for batch in asked.batches:
        for way in ("alone", "together"):
            measures[way, batch] = partial(tuned, engine, rows[: STEPS * batch], batch, way, prompts)
    seconds = medians(alternate(measures, asked.rounds))
    start = [parameters(loop) for loop in trials(engine, rows[:1], 1)]
    return [
        {
            "batch": batch,
            "one after another, s": seconds["alone", batch],
            "side by side, s": seconds["together", batch],
            "gain": seconds["alone", batch] / seconds["together", batch],
            "difference": apart(prompts["alone", batch], prompts["together", batch]),
            "moved": apart(start, prompts["together", batch]),
        }
        for batch in asked.batches
    ]


def tuned(engine: Engine, rows: list[Row], batch: int, way: str, prompts: dict[tuple[str, int], list[Tensor]]) -> float:
    """Seconds of all trials; their prompts are left in ``prompts``."""
    loops = trials(engine, rows, batch)
    groups = [loops] if way == "together" else [[loop] for loop in loops]
    seconds = sum(timed_together(group) for group in groups)
    prompts[way, batch] = [parameters(loop) for loop in loops]
    return seconds


def trials(engine: Engine, rows: list[Row], batch: int) -> list[Loop]:
    """As ``tune --trials 8`` makes them: other rates, then other seeds; each starts from other tokens."""
    solvers = [RandomTexts(engine, start="vocab", seed=i) for i in range(TRIALS)]
    objective = Unwatched(solvers[0], rows)
    rounds = [divmod(i, len(RATES)) for i in range(TRIALS)]
    each = [settings("kv", batch=batch, epochs=1, rate=RATES[which], seed=seed) for seed, which in rounds]
    return [Loop(s.prompt, objective, one, lambda _moment: None) for s, one in zip(solvers, each, strict=True)]


def parameters(loop: Loop) -> Tensor:
    """All that is trained, as one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in loop.prompt.parameters()])


def apart(left: list[Tensor], right: list[Tensor]) -> float:
    """The largest difference, in units of the largest number."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(left, right, strict=True))


def arguments() -> argparse.Namespace:
    """What was asked."""
    found = parser(__doc__, rounds=3)
    found.add_argument("--batches", type=int, nargs="+", default=[16, 64, 128])
    found.add_argument("--tokens", type=int, default=25, help="cached tokens a row; 25 is a sentence of SST-2")
    asked = found.parse_args()
    if asked.quick:
        asked.batches, asked.tokens = [4, 16], 8
    return asked


if __name__ == "__main__":
    main()
