"""Does ``torch.compile`` of the trained part pay within a tuning?

    pays after = (seconds of the first epoch − of a later one) / (plain step − compiled step)         in steps

    python benchmarks/compile.py

The base's trunk is compiled, everything else is the product: kv steps at batch 64 over cached texts of 8 to 48 tokens, so
batches differ in width as they do in life. ``dynamic`` compiles for any width, ``static`` once for every width. Compiled from
nothing: the compiler's own cache is an empty folder; ``again`` is the start-up of a later process that finds it filled.
A typical run takes 3,000 / batch steps (``tuning/choices.py``). A mode that fails is printed with its reason.
"""

import argparse
import contextlib
import os
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
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
    timed_steps,
    verdict,
    write,
)
from torch import Tensor

from epigraph.engine import Engine
from epigraph.tasks.row import Row
from epigraph.tuning.choices import EXAMPLES_SEEN

MODES = {"dynamic": True, "static": False}


def main() -> None:
    """One row a mode; JSON."""
    asked = arguments()
    base = open_base(asked)
    typical = EXAMPLES_SEEN["classification"] // asked.batch
    rng = random.Random(0)
    with fresh_engine(base) as engine:
        rows = random_rows([rng.randint(*asked.tokens) for _ in range(asked.rows)])
        engine.freeze(RandomTexts(engine).encode(rows))
        found = [tried(engine, rows, mode, asked) for mode in asked.modes]
    show(f"kv steps at batch {asked.batch}; a typical run takes {typical}", found)
    for row in found:
        if row["failure"]:
            print(f"{row['mode']} failed: {row['failure']}")
    never = float("inf")
    after = min((row["pays after"] for row in found if row["pays after"] is not None), default=never)
    verdicts = [verdict("steps after which compiling pays", after, most=typical)]
    answer = {"typical_steps": typical, "modes": found, "pays": after <= typical}
    print("it pays" if answer["pays"] else "it does not pay in a typical run")
    write(asked, base, "compile", answer | {"verdicts": [v | {"value": str(v["value"])} for v in verdicts]})


def tried(plain: Engine, rows: list[Row], mode: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One mode beside the plain trunk; what it costs and gains, or why it fails."""
    empty = dict.fromkeys(("first epoch, s", "again, s", "plain ms", "compiled ms", "difference", "pays after", "graphs"))
    try:
        with empty_compiler_cache():
            return {"mode": mode, **empty, **compared(plain, rows, mode, asked), "failure": ""}
    except Exception as error:  # the compiler's are of every kind, and each is an answer
        return {"mode": mode, **empty, "failure": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def compared(plain: Engine, rows: list[Row], mode: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Start-up, steps with and without, and how far the prompts are apart."""
    from torch._dynamo.utils import counters

    counters.clear()
    compiled = compiled_engine(plain, MODES[mode], asked.backend)
    first = sum(epoch(compiled, rows, asked.batch)[0])
    graphs = {"graphs": counters["stats"]["unique_graphs"], "breaks": sum(counters["graph_break"].values())}
    compiled = compiled_engine(plain, MODES[mode], asked.backend)
    again = sum(epoch(compiled, rows, asked.batch)[0])
    ways: dict[str, Callable[[], float]] = {
        "plain": partial(mean_step, plain, rows, asked.batch),
        "compiled": partial(mean_step, compiled, rows, asked.batch),
    }
    step = medians(alternate(ways, asked.rounds))
    steps = len(epoch(plain, rows, asked.batch)[0])
    cost, gain = max(0.0, first - steps * step["compiled"]), step["plain"] - step["compiled"]
    mine, theirs = epoch(plain, rows, asked.batch)[1], epoch(compiled, rows, asked.batch)[1]
    return {
        "first epoch, s": first,
        "again, s": again,
        "plain ms": 1000 * step["plain"],
        "compiled ms": 1000 * step["compiled"],
        "difference": float((mine - theirs).abs().max() / mine.abs().max()),
        "pays after": cost / gain if gain > 0 else None,
        **graphs,
    }


def compiled_engine(plain: Engine, dynamic: bool, backend: str) -> Engine:
    """An engine over the same weights and frozen states whose trunk is compiled anew at its first passes."""
    torch._dynamo.reset()
    engine = Engine(plain.base, folder=plain.store.disk.folder.parent)
    engine.trunk.compile_steps(dynamic=dynamic, backend=backend)
    return engine


def epoch(engine: Engine, rows: list[Row], batch: int) -> tuple[list[float], Tensor]:
    """Seconds of the steps of one epoch, and the prompt it ended in."""
    solver = RandomTexts(engine)
    seconds = timed_steps(solver.prompt, Unwatched(solver, rows), settings("kv", batch=batch, epochs=1))
    return seconds, torch.cat([parameter.detach().flatten() for parameter in solver.prompt.parameters()])


def mean_step(engine: Engine, rows: list[Row], batch: int) -> float:
    """Seconds."""
    return statistics.mean(epoch(engine, rows, batch)[0])


@contextlib.contextmanager
def empty_compiler_cache() -> Iterator[None]:
    """What the compiler keeps on disk begins empty and goes afterwards."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        os.environ[name] = str(Path(folder))
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(name)
            else:
                os.environ[name] = before


def arguments() -> argparse.Namespace:
    """What was asked."""
    found = parser(__doc__, rounds=3)
    found.add_argument("--batch", type=int, default=64)
    found.add_argument("--rows", type=int, default=512)
    found.add_argument("--tokens", type=int, nargs=2, default=[8, 48], help="the shortest and the longest cached text")
    found.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    found.add_argument("--backend", default="inductor")
    asked = found.parse_args()
    if asked.quick:
        asked.rows, asked.batch, asked.rounds, asked.tokens = 8, 8, 1, [8, 8]
        asked.modes, asked.backend = ["static"], "aot_eager"  # traced, but nothing is built
    return asked


if __name__ == "__main__":
    main()
