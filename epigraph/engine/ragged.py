"""The attention of a mixed batch: the tokens of all rows in one stream, each row reading its own slot.

    stream    [1, N, H]: one token of a row that is being generated, forty of one that is being read, …
    a row     a = softmax(q Kᵀ + mask)   over the columns of its slot, the new keys and values written there first

Everything but the attention goes token by token, so rows of any lengths share the products of the base's layers without
padding. The attention takes rows with about as many new tokens and neighbouring slots together, in one product over the shelf
as it lies: nothing is gathered. A free slot between two rows is computed along and not read.

A column's index is its position, except in a label tree behind the text, whose tokens stand at their depth and see their
ancestors only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from epigraph.engine.attention import MASKED, finish
from epigraph.engine.shelves import Place, Shelf

TOGETHER = 32  # rows with more new tokens than this are read alone
GAP = 2  # free slots that are computed along rather than start another product
WIDTH = 16  # columns are read in multiples of this, so that shapes repeat


@dataclass(frozen=True)
class Branches:
    """The label tree of a row: it begins at column ``start``; token i stands at ``depths[i]`` and sees its ancestors."""

    start: int
    depths: tuple[int, ...]
    ancestors: Bool[Tensor, "F F"]

    def positions(self) -> list[int]:
        """Where its tokens stand."""
        return [self.start + depth - 1 for depth in self.depths]


@dataclass(frozen=True)
class Line:
    """A row's part of the stream: the columns of its slot that are computed now, and where the first stands in the stream."""

    place: Place
    columns: Sequence[int]
    first: int
    branches: Branches | None = None


@dataclass
class Group:
    """Rows in neighbouring slots with about as many new tokens: one product a layer. Q is padded, and so are free slots.

    ``tokens`` are indices of the stream; those that are no padding stand at ``real`` of them, flattened.
    """

    shelf: Shelf
    slots: slice
    reads: slice
    tokens: Int[Tensor, "B Q"]
    real: Int[Tensor, "n"]
    positions: Int[Tensor, "B Q"]
    seen: Bool[Tensor, "B Q T"]
    places: Int[Tensor, "#B T"]
    biases: dict[int | None, Tensor] = field(default_factory=dict)

    def bias(self, window: int | None) -> Float[Tensor, "B 1 1 Q T"]:
        """The additive mask."""
        if window not in self.biases:
            seen = self.seen
            if window is not None:
                seen = seen & (self.positions[:, :, None] - self.places[:, None, :] < window)
            zeros = torch.zeros(seen.shape, device=seen.device)
            self.biases[window] = zeros.masked_fill_(~seen, MASKED)[:, None, None]
        return self.biases[window]

    @property
    def scores(self) -> int:
        """How many keys are multiplied with queries."""
        return self.seen.numel()

    def attend(self, query: Float[Tensor, "N AG D"], layer: int, bias: Tensor, softcap: float | None) -> Tensor:
        """The outputs of the group's real tokens, in their order: [n, AG, D]. ``query`` is scaled."""
        keys = self.shelf.keys[layer, self.slots, :, self.reads]
        values = self.shelf.values[layer, self.slots, :, self.reads]
        B, Q = self.tokens.shape
        A, AG, D = keys.shape[1], query.shape[1], query.shape[2]
        rows = (
            query.index_select(0, self.tokens.view(-1)).view(B, Q, A, AG // A, D).permute(0, 2, 3, 1, 4).reshape(B, A, -1, D)
        )
        scores = finish((rows @ keys.transpose(-1, -2)).view(B, A, AG // A, Q, -1), bias, softcap)
        weights = torch.softmax(scores, -1).to(values.dtype).view(B, A, -1, scores.shape[-1])
        out = (weights @ values).view(B, A, AG // A, Q, D).permute(0, 3, 1, 2, 4).reshape(B * Q, AG, D)
        return out if len(self.real) == B * Q else out.index_select(0, self.real)


@dataclass(frozen=True)
class Write:
    """Where the new keys and values of one shelf go: token i of the stream to this slot and column."""

    shelf: Shelf
    slots: Int[Tensor, "n"]
    columns: Int[Tensor, "n"]
    tokens: Int[Tensor, "n"]

    def put(self, layer: int, keys: Float[Tensor, "N A D"], values: Float[Tensor, "N A D"]) -> None:
        """Write those of one layer."""
        self.shelf.keys[layer].transpose(1, 2)[self.slots, self.columns] = keys[self.tokens]
        self.shelf.values[layer].transpose(1, 2)[self.slots, self.columns] = values[self.tokens]


class Ragged:
    """What the attention of every layer reads in a mixed batch."""

    def __init__(self, lines: Sequence[Line], device: torch.device) -> None:
        self.positions = torch.tensor([[p for line in lines for p in _positions(line)]], device=device)
        self.groups = [_group(rows, device) for rows in _neighbours(lines)]
        self._targets = [group.tokens.view(-1)[group.real] for group in self.groups]
        shelves = dict.fromkeys(line.place.shelf for line in lines)
        self._writes = [_write(shelf, [line for line in lines if line.place.shelf is shelf], device) for shelf in shelves]

    @property
    def scores(self) -> int:
        """How many pairs of query and key are multiplied, padding included."""
        return sum(group.scores for group in self.groups)

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "B AG Q D"],
        key: Float[Tensor, "B A Q D"],
        value: Float[Tensor, "B A Q D"],
        *,
        window: int | None,
        softcap: float | None,
    ) -> Float[Tensor, "B Q AG D"]:
        """One layer: write the new keys and values into the slots, then let every group read its own."""
        for write in self._writes:
            write.put(layer, key[0].transpose(0, 1), value[0].transpose(0, 1))
        stream = query[0].transpose(0, 1)
        out = torch.empty(stream.shape, dtype=value.dtype, device=value.device)
        for group, target in zip(self.groups, self._targets, strict=True):
            out.index_copy_(0, target, group.attend(stream, layer, group.bias(window), softcap))
        return out[None]


def _positions(line: Line) -> list[int]:
    tree = line.branches
    if tree is None:
        return list(line.columns)
    at = tree.positions()
    return [c if c < tree.start else at[c - tree.start] for c in line.columns]


def _write(shelf: Shelf, lines: Sequence[Line], device: torch.device) -> Write:
    slots = [line.place.slot for line in lines for _ in line.columns]
    columns = [c for line in lines for c in line.columns]
    tokens = [t for line in lines for t in range(line.first, line.first + len(line.columns))]
    return Write(shelf, *(torch.tensor(each, device=device) for each in (slots, columns, tokens)))


def _neighbours(lines: Sequence[Line]) -> list[list[Line]]:
    """Rows that one product takes: on one shelf, of about as many new tokens (within a power of two), in neighbouring slots."""
    buckets: dict[tuple[int, int], list[Line]] = {}
    found = []
    for line in lines:
        count = len(line.columns)
        if count > TOGETHER:
            found.append([line])
        else:
            buckets.setdefault((id(line.place.shelf), (count - 1).bit_length()), []).append(line)
    for bucket in buckets.values():
        bucket.sort(key=lambda line: line.place.slot)
        run = bucket[:1]
        for line in bucket[1:]:
            if line.place.slot - run[-1].place.slot > GAP:
                found.append(run)
                run = []
            run.append(line)
        found.append(run)
    return found


def _group(lines: Sequence[Line], device: torch.device) -> Group:
    shelf, first = lines[0].place.shelf, lines[0].place.slot
    B, Q = lines[-1].place.slot - first + 1, max(len(line.columns) for line in lines)
    used = max(max(line.columns) for line in lines) + 1
    T = min(-(-used // WIDTH) * WIDTH, shelf.positions)
    columns, tokens, positions = ([[0] * Q for _ in range(B)] for _ in range(3))
    real: list[int] = []
    for line in lines:
        row, n = line.place.slot - first, len(line.columns)
        columns[row][:n] = line.columns
        tokens[row][:n] = range(line.first, line.first + n)
        positions[row][:n] = _positions(line)
        real += range(row * Q, row * Q + n)
    at = torch.tensor(columns)
    places = torch.arange(T)[None]
    seen = places[:, None] <= at[:, :, None]
    trees = [(line.place.slot - first, line.branches) for line in lines if line.branches]
    if trees:
        places = places.repeat(B, 1)
        for row, tree in trees:
            _branch(seen[row], at[row], places[row], tree)
    return Group(
        shelf=shelf,
        slots=slice(first, first + B),
        reads=slice(0, T),
        tokens=torch.tensor(tokens, device=device),
        real=torch.tensor(real, device=device),
        positions=torch.tensor(positions, device=device),
        seen=seen.to(device),
        places=places.to(device),
    )


def _branch(seen: Bool[Tensor, "Q T"], columns: Int[Tensor, "Q"], places: Int[Tensor, "T"], tree: Branches) -> None:
    """Let a row's tree tokens see their ancestors only, and stand at their depth; in place."""
    end = min(tree.start + len(tree.depths), seen.shape[1])
    if end <= tree.start:
        return
    places[tree.start : end] = torch.tensor(tree.positions()[: end - tree.start])
    inside = columns >= tree.start
    seen[inside, tree.start : end] = tree.ancestors[columns[inside] - tree.start, : end - tree.start]
