"""At what share of the machine's matrix-product rate are frozen states built, and does a training step run?

    share = counted FLOPs of the work / its seconds / rate of products of the layers' shapes with as many tokens

    python benchmarks/building.py

``share`` is of products whose weight lies in the processor's cache (``layer_rate``). ``share of streamed`` is of products with
all layers' weights in turn, read from memory, as a pass of few tokens must: what is left to gain there.

Built are fresh random texts, written to disk as always. A step is one of the loop: gathering, forward, backward, AdamW; a
``kv`` step computes one token a row, a ``token`` step 8 more. Targets: building ≥ 0.6, a step that fills the machine ≥ 0.5.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

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
    timed_steps,
    verdict,
    write,
)

from epigraph.base import Base
from epigraph.bench.machine import layer_rate, streamed_rate
from epigraph.engine import Engine
from epigraph.engine.building import TOKENS_A_BATCH
from epigraph.tasks.row import Row

Measures = dict[tuple[str, str, int], Callable[[], float]]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured."""

    lengths: tuple[int, ...] = (16, 32, 64, 128, 256)
    passes: int = 2
    batches: tuple[tuple[str, tuple[int, ...]], ...] = (("kv", (16, 32, 64, 128, 256, 512)), ("token", (16, 32, 64, 128)))
    cached: int = 32
    rows: int = 512
    steps: int = 3


QUICK = Sizes(lengths=(16, 64), passes=1, batches=(("kv", (4, 8)), ("token", (4,))), rows=16)


def main() -> None:
    """Both tables, their verdicts, JSON."""
    asked = parser(__doc__, rounds=5).parse_args()
    base, sizes = open_base(asked), QUICK if asked.quick else Sizes()
    built = building(base, sizes, asked)
    show(f"Building frozen states, {sizes.passes} passes of {TOKENS_A_BATCH} tokens", built)
    with fresh_engine(base) as engine:
        steps = training(engine, sizes, asked)
    show(f"A training step over {sizes.cached} cached tokens a row", steps)
    verdicts = [verdict(f"building texts of {row['tokens']} tokens, share", row["share"], least=0.6) for row in built]
    for kind in dict(sizes.batches):
        best = max((row for row in steps if row["kind"] == kind), key=lambda row: row["share"])
        verdicts.append(verdict(f"a {kind} step at batch {best['batch']}, share", best["share"], least=0.5))
    write(asked, base, "building", {"building": built, "steps": steps, "verdicts": verdicts})


def building(base: Base, sizes: Sizes, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Rates of building and of products, for every length."""
    measures: Measures = {}
    for length in sizes.lengths:
        tokens = TOKENS_A_BATCH // length * length
        measures["product", "", length] = partial(layer_rate, base, tokens)
        measures["streamed", "", length] = partial(streamed_rate, base, tokens)
        measures["work", "", length] = partial(build_rate, base, length, sizes.passes)
    rates = alternate(measures, asked.rounds)
    return [{"tokens": n, **shares(rates, "", n)} for n in sizes.lengths]


def build_rate(base: Base, length: int, passes: int) -> float:
    """FLOPs a second of building fresh texts of this length in a new store."""
    with fresh_engine(base) as engine:
        rows = RandomTexts(engine).encode(random_rows([length] * (passes * (TOKENS_A_BATCH // length))))
        flops, started = engine.flops, time.perf_counter()
        engine.freeze(rows)
        return (engine.flops - flops) / (time.perf_counter() - started)


def training(engine: Engine, sizes: Sizes, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Rates of steps and of products, for every kind and batch."""
    rows = random_rows([sizes.cached] * sizes.rows)
    engine.freeze(RandomTexts(engine).encode(rows))
    computed = {kind: RandomTexts(engine, kind=kind).computed for kind, _ in sizes.batches}
    measures: Measures = {}
    for kind, batches in sizes.batches:
        for batch in batches:
            tokens = batch * computed[kind]
            measures["product", kind, batch] = partial(layer_rate, engine.base, tokens)
            measures["streamed", kind, batch] = partial(streamed_rate, engine.base, tokens)
            measures["work", kind, batch] = partial(step_rate, engine, kind, batch, rows, sizes.steps)
    rates = alternate(measures, asked.rounds)
    return [
        {"kind": kind, "batch": batch, "computed tokens": batch * computed[kind], **shares(rates, kind, batch)}
        for kind, batches in sizes.batches
        for batch in batches
    ]


def step_rate(engine: Engine, kind: str, batch: int, rows: list[Row], steps: int) -> float:
    """FLOPs a second of a few steps at this batch."""
    solver = RandomTexts(engine, kind=kind)
    some = rows[: batch * max(1, min(steps, len(rows) // batch))]
    epochs = -(-steps * batch // len(some))
    objective = Unwatched(solver, some)
    flops = engine.flops
    seconds = timed_steps(solver.prompt, objective, settings(kind, batch=batch, epochs=epochs))
    return (engine.flops - flops) / sum(seconds)


def shares(rates: dict[tuple[str, str, int], list[float]], kind: str, size: int) -> dict[str, float]:
    """Medians of one row of a table, in GFLOP/s, and their ratios."""
    middle = medians({what: rates[what, kind, size] for what in ("work", "product", "streamed")})
    return {
        "GFLOP/s": middle["work"] / 1e9,
        "products GFLOP/s": middle["product"] / 1e9,
        "share": middle["work"] / middle["product"],
        "streamed GFLOP/s": middle["streamed"] / 1e9,
        "share of streamed": middle["work"] / middle["streamed"],
    }


if __name__ == "__main__":
    main()
