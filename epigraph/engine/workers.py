"""The workers that share a product belong to the thread that began it; they are let go when another thread is to compute.

PyTorch's CPU products run under OpenMP, which gives every thread that computes workers of its own and keeps them. Where all of
these together are more than there are processors, GNU's runtime no longer lets a waiting worker spin: it sleeps, and waking it
costs more than a small product. A server whose base was loaded by one thread and is run by another pays that at every
product of every layer (seen: 43,000 sleeps in five seconds, and steps that took 1.6 times as long). Source: OpenMP 5.0,
section 3.2.44 (omp_pause_resource_all).
"""

import ctypes
import functools
from pathlib import Path

SOFT = 1  # omp_pause_soft: what threads hold for themselves stays
MAPS = Path("/proc/self/maps")


def release_workers() -> None:
    """End the calling thread's workers; it gets new ones when it computes again."""
    for runtime in _runtimes():
        runtime.omp_pause_resource_all(SOFT)


@functools.cache
def _runtimes() -> tuple[ctypes.CDLL, ...]:
    """GNU's OpenMP runtimes in this process; none where there is another runtime, which lets workers spin as before."""
    try:
        mapped = {line.split(maxsplit=5)[-1] for line in MAPS.read_text().splitlines() if "libgomp" in line}
    except OSError:
        return ()
    loaded = [ctypes.CDLL(path) for path in sorted(mapped) if Path(path).name.startswith("libgomp")]
    return tuple(one for one in loaded if hasattr(one, "omp_pause_resource_all"))
