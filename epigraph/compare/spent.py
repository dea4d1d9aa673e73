"""What a piece of a comparison spends: seconds, counted FLOPs and joules, all of the same stretch of work.

made = fitted + searched        a method costs what its last fit costs, and what the search for its learning rate did
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SPENT = ("seconds", "flops", "joules")


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Seconds of the wall clock, floating point operations, joules."""

    seconds: float = 0.0
    flops: int = 0
    joules: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(seconds=self.seconds + other.seconds, flops=self.flops + other.flops, joules=self.joules + other.joules)

    def named(self, what: str) -> dict[str, float]:
        """As a cell's cost has it: ``search_seconds`` and so on."""
        return {f"{what}_{name}": round(getattr(self, name), 2) for name in SPENT}


def made(cost: Mapping[str, Any], name: str) -> float:
    """What a method costs to make, its search for a learning rate with it: of ``seconds``, ``flops`` or ``joules``."""
    return float(cost[name]) + float(cost.get(f"search_{name}", 0.0))
