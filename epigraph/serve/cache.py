"""What was computed or converted once, by a hash of what it is of; the longest unused goes first, within a budget in bytes."""

from collections import OrderedDict
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Values by hash, least recently used last; several threads may ask."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self.hits = self.misses = self.evictions = 0
        self._values: OrderedDict[bytes, tuple[Value, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: bytes) -> Value | None:
        """The value, counted as a hit; None, counted as a miss."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._values.move_to_end(key)
            return found[0]

    def __contains__(self, key: bytes) -> bool:
        return key in self._values

    def put(self, key: bytes, value: Value, size: int) -> None:
        """Take a value of ``size`` bytes, unless it alone exceeds the budget."""
        with self._lock:
            if size > self.budget:
                return
            if key in self._values:
                self.bytes -= self._values.pop(key)[1]
            self._values[key] = (value, size)
            self.bytes += size
            while self.bytes > self.budget:
                _, (_, freed) = self._values.popitem(last=False)
                self.bytes -= freed
                self.evictions += 1
