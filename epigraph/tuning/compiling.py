"""Whether the base's layers are compiled for the steps of a tuning: tried where it may pay, kept where it does.

    tried ⇔ steps · plain · MOST_GAIN > START_UP              kept ⇔ compiled < plain            seconds a step, measured

A compiled step saves what stands between the products of the layers, not the products themselves; the compiler takes its time
before the first. What was found on a CPU stands in ``benchmarks/README.md`` (``benchmarks/compile.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from epigraph.engine.trunk import Trunk

START_UP = 300.0  # seconds, of a base of 30 layers on two cores
MOST_GAIN = 0.3  # of a plain step; .26 was measured
FEWEST_STEPS = 1000  # below which no step is timed: it would have to take more than a second for compiling to pay


@dataclass(frozen=True)
class Compiling:
    """Whether steps are compiled, and why."""

    on: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the run folder."""
        return {"on": self.on, "reason": self.reason}


def weigh(trunk: Trunk, steps: int, step: Callable[[], float], *, backend: str = "inductor") -> Compiling:
    """Decide for so many ``steps`` to come; ``step`` takes one and gives its seconds. The trunk is left as was decided."""
    if steps < FEWEST_STEPS:
        return Compiling(False, f"no: {steps} steps are over before compiling, about {START_UP:.0f} s, could pay")
    step()
    plain = step()
    if steps * plain * MOST_GAIN < START_UP:
        return Compiling(
            False,
            f"no: {steps} steps of {plain:.2f} s could save {steps * plain * MOST_GAIN:.0f} s at most, and compiling takes "
            f"about {START_UP:.0f} s",
        )
    return _tried(trunk, plain, step, backend)


def _tried(trunk: Trunk, plain: float, step: Callable[[], float], backend: str) -> Compiling:
    try:
        trunk.compile_steps(backend=backend)
        first, compiled = step(), min(step(), step())
    except Exception as error:  # the compiler's are of every kind; without it all goes on
        trunk.leave_plain()
        return Compiling(False, f"no: it failed ({type(error).__name__}: {' '.join(str(error).split())[:120]})")
    if compiled >= plain:
        trunk.leave_plain()
        return Compiling(False, f"no: a step takes {compiled:.2f} s compiled and {plain:.2f} s plain")
    return Compiling(True, f"yes: a step takes {compiled:.2f} s instead of {plain:.2f} s, after {first:.0f} s of compiling")
