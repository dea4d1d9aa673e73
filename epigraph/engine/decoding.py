"""Mixed batches: rows that are read and generated together, each with its own prompt, its own past, its own position.

    row     [segment 0 | block 1 | segment 1 | … | generated tokens, or a label tree]
    step    some of each row's next elements in one pass; their last states

Keys and values of a row lie on a shelf (``shelves``); a block of keys and values is written there when the row opens, vectors
are elements that are computed like tokens. What a step computes of a row may be any number of its next elements, so long inputs
are read in parts beside rows that get one token each. A base that is run by plain concatenation keeps nothing and reads the
whole row again at every step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from epigraph.base import Base
from epigraph.engine.concatenation import forward_rows
from epigraph.engine.engine import Engine
from epigraph.engine.ragged import Branches, Line, Ragged
from epigraph.engine.shelves import Place, Shelves
from epigraph.errors import TaskError, Unsupported
from epigraph.prompts import Embedded, Form, KeyValue

VECTOR, STORED = -1, -2  # in ``ids``: a prompt vector, a position of stored keys and values
States = tuple[Tensor, Tensor]  # keys and values [L, A, n, D] each


@runtime_checkable
class Hanging(Protocol):
    """Tokens that hang behind a row as a tree: a ``Tree`` of labels, for example."""

    @property
    def fed_tokens(self) -> Sequence[int]: ...
    @property
    def fed_depths(self) -> tuple[int, ...]: ...
    @property
    def ancestors(self) -> Bool[Tensor, "F F"]: ...


class Row:
    """One sequence: its elements, how many of them are in its slot, and which slot that is.

    ``waits`` says that its blocks depend on what stands before the first of them: ``forms`` have their shapes, and nothing
    from there on is computed before ``settle`` puts the real ones in.
    """

    def __init__(
        self, segments: Sequence[Sequence[int]], forms: Sequence[Form], tree: Hanging | None = None, *, waits: bool = False
    ) -> None:
        self.ids: list[int] = list(segments[0])
        self.blocks: list[tuple[int, Form]] = []
        for form, segment in zip(forms, segments[1:], strict=True):
            self.blocks.append((len(self.ids), form))
            self.ids += [VECTOR if isinstance(form, Embedded) else STORED] * form.length
            self.ids += segment
        self.end = len(self.ids)  # of the input; behind it stand generated tokens or the label tree
        self.held = self.blocks[0][0] if waits else None
        self.branches: Branches | None = None
        if tree is not None and tree.fed_tokens:
            self.branches = Branches(self.end, tree.fed_depths, tree.ancestors.cpu())
            self.ids += tree.fed_tokens
        self.done = 0
        self.place: Place | None = None

    @property
    def last(self) -> int:
        """The last element of the input; its state says what comes next. TaskError if that is no state."""
        if not self.end or self.ids[self.end - 1] == STORED:
            what = "the input is empty" if not self.end else "nothing stands after the prompt"
            raise TaskError(f"{what}, so the base has no token to answer from.", "Give a text, or a cue after the prompt.")
        return self.end - 1

    @property
    def virtual(self) -> int:
        """Positions that the prompt takes."""
        return sum(form.length for _, form in self.blocks)

    @property
    def complete(self) -> bool:
        """Whether every element has been computed."""
        return self.done == len(self.ids)

    def settle(self, forms: Sequence[Form]) -> None:
        """Put in the forms that were waited for."""
        self.blocks = [(start, form) for (start, _), form in zip(self.blocks, forms, strict=True)]
        self.held = None
        if self.place is not None:
            put_stored(self)

    def next(self, most: int) -> list[int]:
        """The next elements to compute, ``most`` at most."""
        found: list[int] = []
        at, end = self.done, len(self.ids) if self.held is None else self.held
        while at < end and len(found) < most:
            if self.ids[at] != STORED:
                found.append(at)
            at += 1
        return found

    def advance(self, computed: Sequence[int]) -> None:
        """Note that these elements, the next ones, are computed."""
        self.done = self.skip(computed[-1] + 1)

    def skip(self, at: int) -> int:
        """The first element from here on that is no stored position."""
        while at < len(self.ids) and self.ids[at] == STORED:
            at += 1
        return at

    def vectors(self, base: Base, elements: Sequence[int]) -> Float[Tensor, "n H"]:
        """The embedded elements, prompt vectors in their places."""
        embedded = base.embed(torch.tensor([max(self.ids[i], 0) for i in elements], dtype=torch.long))
        place = {element: n for n, element in enumerate(elements) if self.ids[element] == VECTOR}
        for start, form in self.blocks if place else []:
            if isinstance(form, Embedded):
                own = [(place[i], i - start) for i in range(start, start + form.length) if i in place]
                if own:
                    columns, rows = (torch.tensor(side, device=base.device) for side in zip(*own, strict=True))
                    embedded[columns] = form.vectors.to(base.device, base.dtype)[rows.to(form.vectors.device)]
        return embedded


def put_stored(row: Row) -> None:
    """Write the row's blocks of keys and values into its slot."""
    assert row.place is not None
    for start, form in row.blocks:
        if isinstance(form, KeyValue):
            row.place.put(start, form.keys, form.values)


@dataclass(frozen=True)
class Part:
    """What a step computes of a row: these of its elements."""

    row: Row
    elements: Sequence[int]


class Decoder(Protocol):
    """How a base computes rows."""

    keeps: bool
    """Whether what is computed stays: then rows open with a slot, and states can be kept and restored."""

    def open(self, row: Row, shelves: Shelves, positions: int) -> bool:
        """Give the row a slot of at least so many positions; whether there was room."""
        ...

    def close(self, row: Row, shelves: Shelves) -> None:
        """Free its slot; what was computed of it is lost."""
        ...

    def step(self, parts: Sequence[Part]) -> list[Float[Tensor, "n H"]]:
        """The last states of every part's elements. A part may be computed again."""
        ...


class ShelfDecoder:
    """Keeps keys and values on shelves."""

    keeps = True

    def __init__(self, engine: Engine) -> None:
        self.base, self.trunk = engine.base, engine.trunk

    def open(self, row: Row, shelves: Shelves, positions: int) -> bool:
        """Give the row a slot, with its stored blocks in it."""
        place = shelves.take(positions)
        if place is None:
            return False
        row.place, row.done = place, row.skip(0)
        put_stored(row)
        return True

    def close(self, row: Row, shelves: Shelves) -> None:
        """Free its slot."""
        if row.place is not None:
            shelves.give_back(row.place, min(len(row.ids), row.place.positions))
        row.place, row.done = None, 0

    def move(self, row: Row, shelves: Shelves, positions: int) -> bool:
        """Move the row to a slot of at least so many positions; whether there was room."""
        place, old = shelves.take(positions), row.place
        if place is None or old is None:
            return False
        used = min(len(row.ids), old.positions)
        place.put(0, *old.get(0, used))
        shelves.give_back(old, used)
        row.place = place
        return True

    def copy(self, row: Row, other: Row) -> None:
        """Put what was computed of the other row into this one; both are open and begin with the same elements."""
        assert row.place is not None
        assert other.place is not None
        end = min(row.end, other.done)
        row.place.put(0, *other.place.get(0, end))
        row.done = end

    def restore(self, row: Row, states: States) -> None:
        """Put kept states where the row goes on."""
        assert row.place is not None
        row.place.put(row.done, *states)
        row.done = row.skip(row.done + states[0].shape[2])

    def keep(self, row: Row, start: int, end: int) -> States:
        """A copy of the states of these elements."""
        assert row.place is not None
        keys, values = row.place.get(start, end)
        return keys.clone(), values.clone()

    @torch.no_grad()
    def step(self, parts: Sequence[Part]) -> list[Float[Tensor, "n H"]]:
        """All parts in one pass of the base."""
        lines, first = [], 0
        for part in parts:
            assert part.row.place is not None
            lines.append(Line(part.row.place, part.elements, first, part.row.branches))
            first += len(part.elements)
        ragged = Ragged(lines, self.base.device)
        embedded = self._embed(parts)[None]
        self._count(first, ragged)
        found = self.base.trunk(inputs_embeds=embedded, position_ids=ragged.positions, use_cache=False, blocks=ragged)
        hidden: Tensor = found.last_hidden_state[0]
        return list(torch.split(hidden, [len(part.elements) for part in parts]))

    def _embed(self, parts: Sequence[Part]) -> Float[Tensor, "N H"]:
        if any(part.row.ids[i] == VECTOR for part in parts for i in part.elements):
            return torch.cat([part.row.vectors(self.base, part.elements) for part in parts])
        return self.base.embed(torch.tensor([part.row.ids[i] for part in parts for i in part.elements]))

    def _count(self, tokens: int, ragged: Ragged) -> None:
        self.trunk.flops += 2 * tokens * self.trunk.weights + 4 * self.base.layers * ragged.scores * self.trunk.width


class ConcatenatingDecoder:
    """For bases that are run by plain concatenation: every row by itself, from its beginning, at every step."""

    keeps = False

    def __init__(self, engine: Engine) -> None:
        self.base, self.trunk = engine.base, engine.trunk

    def open(self, row: Row, shelves: Shelves, positions: int) -> bool:  # noqa: ARG002 (the decoder's contract)
        """Unsupported if the row has a block of keys and values."""
        if any(isinstance(form, KeyValue) for _, form in row.blocks):
            raise Unsupported(
                f"{self.base.name} is run by plain concatenation, which takes no keys and values.", "Tune with --kind token."
            )
        return True

    def close(self, row: Row, shelves: Shelves) -> None:  # noqa: ARG002 (the decoder's contract)
        """Forget what was computed."""
        row.done = 0

    @torch.no_grad()
    def step(self, parts: Sequence[Part]) -> list[Float[Tensor, "n H"]]:
        """A stock forward a part, over all that stands before its last element."""
        found = []
        for part in parts:
            length = part.elements[-1] + 1
            embedded = part.row.vectors(self.base, range(length))[None]
            hidden = forward_rows(self.trunk, embedded, torch.tensor([length]))[0]
            found.append(hidden[torch.tensor(list(part.elements), device=hidden.device)])
        return found


def decoder_for(engine: Engine) -> ShelfDecoder | ConcatenatingDecoder:
    """The decoder that serves this engine's base."""
    return ConcatenatingDecoder(engine) if engine.plain else ShelfDecoder(engine)
