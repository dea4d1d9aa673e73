"""Memory that a step frees is kept for the next one, where the C library would give it back to the system.

Large tensors come from fresh pages otherwise, and every page costs a fault before it can be written: on virtual machines
that is a tenth of the time it takes to read a text. One heap serves all threads: else every thread of a server that once read a
long text keeps tens of megabytes of its own, and no tensor above 64 MB comes from a thread's heap.
"""

import ctypes
import functools
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8  # glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX
KEPT_BYTES = 1 << 30


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc to serve blocks up to 1 GB from one heap, and to keep up to 1 GB of it; whether it listened."""
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    told = ((MMAP_THRESHOLD, KEPT_BYTES), (TRIM_THRESHOLD, KEPT_BYTES), (ARENA_MAX, 1))
    return all(library.mallopt(*one) for one in told)
