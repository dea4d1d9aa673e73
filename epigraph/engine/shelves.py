"""Where the keys and values of running sequences lie: shelves of equal slots, each row of the batch in a slot of its own.

    shelf     keys and values [L, R, A, N, D]: R slots of N positions, N a power of two
    slot      position i of a sequence stands at column i

Nothing is copied as a sequence grows: a step writes its columns and the attention reads the columns up to the longest of
neighbouring slots, in place. Freed columns are zeroed, so that nothing of a sequence, not even a NaN, meets the next one.
Bytes are counted by whole shelves and never exceed the budget; a sequence that outgrows its slot moves to one twice as long.
"""

import heapq
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.base import Base

SHORTEST = 64  # positions of the smallest slot
LARGEST = 4  # a shelf takes at most one part in so many of the budget


@dataclass(eq=False)
class Shelf:
    """R slots of N positions; ``free`` is a heap, so that rows stay near each other."""

    keys: Float[Tensor, "L R A N D"]
    values: Float[Tensor, "L R A N D"]
    free: list[int] = field(default_factory=list)

    @property
    def slots(self) -> int:
        """R"""
        return self.keys.shape[1]

    @property
    def positions(self) -> int:
        """N"""
        return self.keys.shape[3]

    @property
    def bytes(self) -> int:
        """What the shelf takes, used or not."""
        return 2 * self.keys.numel() * self.keys.element_size()

    @property
    def empty(self) -> bool:
        """Whether no slot is taken."""
        return len(self.free) == self.slots


@dataclass(frozen=True)
class Place:
    """A slot of a shelf."""

    shelf: Shelf
    slot: int

    @property
    def positions(self) -> int:
        """How long a sequence may grow here."""
        return self.shelf.positions

    def put(self, start: int, keys: Float[Tensor, "L A n D"], values: Float[Tensor, "L A n D"]) -> None:
        """Write n positions, of whatever dtype and device."""
        columns = slice(start, start + keys.shape[2])
        self.shelf.keys[:, self.slot, :, columns] = keys
        self.shelf.values[:, self.slot, :, columns] = values

    def get(self, start: int, end: int) -> tuple[Float[Tensor, "L A n D"], Float[Tensor, "L A n D"]]:
        """The positions from start to end, as they lie."""
        return self.shelf.keys[:, self.slot, :, start:end], self.shelf.values[:, self.slot, :, start:end]


class Shelves:
    """All shelves of one purpose, within a budget in bytes; ``rows`` sequences are expected at once."""

    def __init__(self, base: Base, budget: int, rows: int) -> None:
        self.base = base
        self.budget = budget
        self.rows = rows
        self._shelves: list[Shelf] = []

    @property
    def bytes(self) -> int:
        """What all shelves take."""
        return sum(shelf.bytes for shelf in self._shelves)

    def fits(self, positions: int) -> bool:
        """Whether a sequence of so many positions fits when nothing else is there."""
        return self._row_bytes(_slot_length(positions)) <= self.budget

    def take(self, positions: int) -> Place | None:
        """A slot of at least so many positions; None while there is no room."""
        length = _slot_length(positions)
        fitting = [s for s in self._shelves if s.positions == length and s.free]
        shelf = min(fitting, key=lambda s: len(s.free) - s.slots, default=None) or self._add(length) or self._longer(length)
        return None if shelf is None else Place(shelf, heapq.heappop(shelf.free))

    def give_back(self, place: Place, used: int) -> None:
        """Free a slot of which ``used`` positions were written."""
        place.shelf.keys[:, place.slot, :, :used] = 0
        place.shelf.values[:, place.slot, :, :used] = 0
        heapq.heappush(place.shelf.free, place.slot)

    def _add(self, length: int) -> Shelf | None:
        """A new shelf for all rows, or as many as there is room for."""
        each = self._row_bytes(length)
        wanted = max(1, min(self.rows, self.budget // LARGEST // each))
        self._drop_empty(each * wanted)
        rows = min(wanted, (self.budget - self.bytes) // each)
        if rows < 1:
            return None
        base = self.base
        shape = (base.layers, rows, base.heads, length, base.head_size)
        keys, values = (torch.zeros(shape, dtype=base.dtype, device=base.device) for _ in range(2))
        self._shelves.append(Shelf(keys, values, list(range(rows))))
        return self._shelves[-1]

    def _drop_empty(self, needed: int) -> None:
        for shelf in [s for s in self._shelves if s.empty]:
            if self.bytes + needed <= self.budget:
                return
            self._shelves.remove(shelf)

    def _longer(self, length: int) -> Shelf | None:
        longer = [s for s in self._shelves if s.positions > length and s.free]
        return min(longer, key=lambda s: s.positions, default=None)

    def _row_bytes(self, length: int) -> int:
        base = self.base
        return 2 * base.layers * base.heads * length * base.head_size * base.dtype.itemsize


def _slot_length(positions: int) -> int:
    length = SHORTEST
    while length < positions:
        length *= 2
    return length
