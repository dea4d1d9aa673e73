"""Memory that a step frees is kept for the next one, where the C library would give it back to the system.

Large tensors come from fresh pages otherwise, and every page costs a fault before it can be written: on virtual machines
that is a tenth of the time it takes to read a text.
"""

import ctypes
import functools
import platform

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # glibc's malloc.h: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
KEPT_BYTES = 1 << 30


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc to serve blocks up to 1 GB from its heap, and to keep up to 1 GB of it; whether it listened."""
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(MMAP_THRESHOLD, KEPT_BYTES) and library.mallopt(TRIM_THRESHOLD, KEPT_BYTES))
