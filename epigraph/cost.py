"""What a piece of work cost: seconds, joules, peak memory.

Joules are measured where the machine tells them (Intel's running average power limit, read from /sys/class/powercap);
otherwise they are estimated as 10 watts a core and marked so.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

WATTS_A_CORE = 10.0
RAPL = Path("/sys/class/powercap")


@dataclass
class Meter:
    """Running totals since it was made."""

    started: float = field(default_factory=time.perf_counter)
    joules_before: float | None = field(default_factory=lambda: counted_joules())

    @property
    def seconds(self) -> float:
        """Wall-clock seconds so far."""
        return time.perf_counter() - self.started

    def energy(self) -> dict[str, Any]:
        """``joules`` and ``joules_source``: "measured", or how they were estimated."""
        now = counted_joules()
        if now is not None and self.joules_before is not None and now >= self.joules_before:
            return {"joules": round(now - self.joules_before, 1), "joules_source": "measured (RAPL)"}
        cores = psutil.cpu_count() or 1
        joules = self.seconds * cores * WATTS_A_CORE
        return {"joules": round(joules, 1), "joules_source": f"estimated: {WATTS_A_CORE:.0f} W a core, {cores} cores"}


def counted_joules() -> float | None:
    """The energy counter of all CPU packages in joules; None where the machine has none or hides it."""
    try:
        counters = [p / "energy_uj" for p in RAPL.glob("intel-rapl:?")]
        return sum(int(c.read_text()) for c in counters) / 1e6 if counters else None
    except (OSError, ValueError):
        return None


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
