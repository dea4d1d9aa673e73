"""What this machine can do: its rate of matrix products, and how much memory of its own a process takes.

rate = 2 · M · K · N / seconds         M: tokens of a pass, K and N: the base's hidden and inner size
"""

import threading
import time
from pathlib import Path

import psutil
import torch

REPEATS, WARM = 12, 3


def product_rate(tokens: int, hidden: int, inner: int, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a [tokens, hidden] by [hidden, inner] product, the best of several."""
    left, right = torch.randn(tokens, hidden).to(dtype), torch.randn(inner, hidden).to(dtype)
    seconds = []
    for _ in range(WARM + REPEATS):
        started = time.perf_counter()
        torch.nn.functional.linear(left, right)
        seconds.append(time.perf_counter() - started)
    return 2.0 * tokens * hidden * inner / min(seconds[WARM:])


def anonymous_memory() -> int:
    """Bytes of this process that belong to no file (RssAnon); all resident bytes where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)


class MemoryWatch:
    """The highest anonymous memory while it is open, sampled every 20 ms."""

    def __enter__(self) -> "MemoryWatch":
        self.before = self.highest = anonymous_memory()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(0.02):
            self.highest = max(self.highest, anonymous_memory())

    @property
    def added(self) -> int:
        """Bytes above what there was when it was opened."""
        return self.highest - self.before
