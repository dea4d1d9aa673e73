"""What a piece of work cost: seconds, joules, peak memory.

Joules are measured where the machine tells them (Intel's running average power limit, read from /sys/class/powercap);
otherwise they are estimated and marked so: 10 watts a core and wall-clock second or, where codecarbon is asked for, the
power it knows of this processor times the share of it that this process was busy.
"""

import ctypes
import functools
import gc
import logging
import platform
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

WATTS_A_CORE = 10.0
RAPL = Path("/sys/class/powercap")
SAMPLE_SECONDS = 0.02


@dataclass
class Meter:
    """Running totals since it was made."""

    started: float = field(default_factory=time.perf_counter)
    joules_before: dict[str, float] | None = field(default_factory=lambda: counted_joules())
    busy_before: float = field(default_factory=time.process_time)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds so far."""
        return time.perf_counter() - self.started

    def energy(self, power: "Power | None" = None) -> dict[str, Any]:
        """``joules`` and ``joules_source``: "measured", or how they were estimated. ``power`` is the processor's, if known."""
        counted = joules_between(self.joules_before, counted_joules())
        if counted is not None:
            return {"joules": round(counted, 1), "joules_source": "measured (RAPL: the CPU packages, whoever used them)"}
        cores = psutil.cpu_count() or 1
        if power is not None:
            busy = time.process_time() - self.busy_before
            return {"joules": round(power.watts / cores * busy, 1), "joules_source": f"estimated: {power.source}"}
        joules = self.seconds * cores * WATTS_A_CORE
        return {"joules": round(joules, 1), "joules_source": f"estimated: {WATTS_A_CORE:.0f} W a core, {cores} cores"}


@dataclass(frozen=True)
class Power:
    """The watts of all cores of this processor when they are busy, and who says so."""

    watts: float
    source: str


@functools.cache
def processor_power() -> Power:
    """What codecarbon's table (offline) has of this processor; 10 watts a core without it."""
    cores = psutil.cpu_count() or 1
    with suppress(Exception):  # not installed, or another version of it: the estimate below says which it is
        from codecarbon.core.cpu import TDP

        logging.getLogger("codecarbon").setLevel(logging.ERROR)  # it warns of processors that it does not know
        found = TDP()
        if found.tdp:
            guessed = found._get_cpu_power_from_registry(found.model) is None  # it has a default for all others
            of = f"its guess, since it does not know {found.model}" if guessed else f"a whole {found.model}"
            return Power(float(found.tdp), f"{found.tdp} W for {cores} cores (codecarbon: {of}), CPU seconds")
    return Power(WATTS_A_CORE * cores, f"{WATTS_A_CORE:.0f} W a core, CPU seconds")


def counted_joules() -> dict[str, float] | None:
    """The energy counter of every CPU package in joules; None where the machine has none or hides it.

    Other zones, such as ``psys`` for the whole machine, hold the packages too and would count them twice.
    """
    try:
        zones = [zone for zone in RAPL.glob("intel-rapl:*") if (zone / "name").read_text().startswith("package")]
        return {zone.name: int((zone / "energy_uj").read_text()) / 1e6 for zone in zones} or None
    except (OSError, ValueError):
        return None


def joules_between(before: Mapping[str, float] | None, now: Mapping[str, float] | None) -> float | None:
    """Joules of all packages between two readings; a counter that began anew meanwhile is followed once over its end.

    None where it cannot be known.
    """
    if before is None or now is None or set(before) != set(now):
        return None
    spent = {name: now[name] - before[name] for name in now}
    try:
        for name in [name for name, joules in spent.items() if joules < 0]:
            spent[name] += int((RAPL / name / "max_energy_range_uj").read_text()) / 1e6
    except (OSError, ValueError):
        return None
    return sum(spent.values()) if min(spent.values()) >= 0 else None


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes."""
    import sys

    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def anonymous_memory() -> int:
    """Bytes of this process that belong to no file (RssAnon); all resident bytes where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


def trim_memory() -> None:
    """Give freed memory back to the system, so that the next measurement starts without it."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


class MemoryWatch:
    """The highest anonymous memory while it is open, sampled every 20 ms."""

    def __enter__(self) -> "MemoryWatch":
        self.before = self.highest = anonymous_memory()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.highest = max(self.highest, anonymous_memory())

    @property
    def added(self) -> int:
        """Bytes above what there was when it was opened."""
        return self.highest - self.before
