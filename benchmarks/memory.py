"""How much memory of its own does a tuning take above the loaded base?

    added = highest RssAnon of a phase − RssAnon with the base loaded         target ≤ budget + 300 MB

    python benchmarks/memory.py                    frozen states on disk, mapped (as ``tune`` keeps them)
    python benchmarks/memory.py --hold             held in memory up to the budget, the rest on disk

1,000 rows of IMDB from $EPIGRAPH_DATA, cut at 256 tokens, 150 of them validated after each of 3 epochs; kv, batch 64; a
budget of 1 GB for frozen states that take some 12 GB in fp32. Pages of mapped files do not count. Memory that the loading
of the base left free is given back before the clock starts, so that it hides nothing.
"""

import argparse
import ctypes
import gc
import platform
import time
from collections.abc import Sequence
from typing import Any

from measuring import data_set, fresh_engine, open_base, parser, settings, show, verdict, write

from epigraph.base import Base
from epigraph.bench.contest import VALIDATION, Ours, Plan, read_parts
from epigraph.cost import MemoryWatch, anonymous_memory
from epigraph.methods.watched import Watched
from epigraph.prompts import Form
from epigraph.tuning.loop import Loop
from epigraph.tuning.objective import Objective

TOKENS, BATCH, EPOCHS = 256, 64, 3
ALLOWED = 300e6


def main() -> None:
    """One row a phase, the highest of all; JSON."""
    asked = arguments()
    base = open_base(asked)
    phases, store = measure(base, asked)
    rows = phases.rows
    show(f"Anonymous memory above the base, budget {asked.budget / 1e6:.0f} MB", rows)
    print(f"frozen states: {store['on disk'] / 1e6:.0f} MB on disk, {store['in memory'] / 1e6:.0f} MB in memory")
    most = max(row["added MB"] for row in rows)
    verdicts = [verdict("highest of all phases, MB", most, most=(asked.budget + ALLOWED) / 1e6)]
    write(asked, base, "memory", {"budget": asked.budget, "phases": rows, "store": store, "verdicts": verdicts})


class Phases:
    """The highest memory and the seconds of every phase, entered as often as it likes."""

    def __init__(self) -> None:
        _give_back()
        self.before = anonymous_memory()
        self.highest: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self._now = ""

    def enter(self, name: str) -> None:
        """End the phase before; "" begins none."""
        if self._now:
            self._watch.__exit__(None, None, None)
            self.highest[self._now] = max(self.highest.get(self._now, 0), self._watch.highest, anonymous_memory())
            self.seconds[self._now] = self.seconds.get(self._now, 0.0) + time.perf_counter() - self._since
        self._now, self._since = name, time.perf_counter()
        if name:
            self._watch = MemoryWatch().__enter__()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table."""
        return [
            {"phase": name, "added MB": (most - self.before) / 1e6, "seconds": self.seconds[name]}
            for name, most in self.highest.items()
        ]


class Noted:
    """An objective whose validations are a phase of their own."""

    def __init__(self, objective: Objective, phases: Phases) -> None:
        self.objective, self.phases = objective, phases

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)

    def watch(self, forms: Sequence[Form]) -> Watched:
        """As the objective does it."""
        self.phases.enter("validating")
        try:
            return self.objective.watch(forms)
        finally:
            self.phases.enter("training")


def measure(base: Base, asked: argparse.Namespace) -> tuple[Phases, dict[str, int]]:
    """A first run, phase by phase, and where its frozen states ended up, in bytes."""
    phases = Phases()
    phases.enter("reading rows")
    with data_set("imdb", quick=asked.quick) as folder:
        plan = Plan(folder=str(folder), rows=asked.rows - VALIDATION, tests=1, tokens=TOKENS)
        task, parts, _ = read_parts(base, plan, BATCH)
    phases.enter("building")
    with fresh_engine(base, budget=asked.budget, keep=not asked.hold) as engine:
        ours = Ours(engine, task, parts, "kv", seed=0)
        ours.begin()
        phases.enter("training")
        noted: Any = Noted(ours.objective, phases)
        Loop(ours.module, noted, settings("kv", batch=BATCH, epochs=EPOCHS), lambda _moment: None).run()
        phases.enter("")
        return phases, {"on disk": engine.store.bytes_on_disk, "in memory": engine.store.bytes_in_memory}


def _give_back() -> None:
    """Return free memory to the system, where the C library keeps it."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def arguments() -> argparse.Namespace:
    """What was asked."""
    found = parser(__doc__, rounds=1)
    found.add_argument("--rows", type=int, default=1000, help=f"training and {VALIDATION} validation rows together")
    found.add_argument("--budget", type=int, default=1 << 30, help="bytes")
    found.add_argument("--hold", action="store_true", help="memory first, as for texts that do not come back")
    asked = found.parse_args()
    if asked.quick:
        asked.rows, asked.budget = VALIDATION + 30, 1 << 20
    if asked.rows <= VALIDATION:
        found.error(f"--rows must be more than {VALIDATION}: so many are validated")
    return asked


if __name__ == "__main__":
    main()
