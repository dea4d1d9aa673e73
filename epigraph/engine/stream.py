"""From encoded rows and forms to what one pass computes: the own tokens, where they stand and what they may see.

    frozen            own stream                                     tail
    [segment 0]       [block 1] [segment 1] [block 2] [segment 2] …  [answer tokens, or the label tree]

A ``KeyValue`` block takes positions but no own tokens. A beginning that all rows have in common (nothing, or the same
instruction) is shared by the batch together with the block after it, whatever its form: that block is then run once a
step at batch one, and gradients add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from epigraph.tasks.encode import Encoded

SLOT = -1  # in ``ids``: a prompt vector stands here


@dataclass(frozen=True)
class Tail:
    """What follows the last segment: a chain of tokens a row, several side by side (``chains``: the number of the chain of
    every token, those of a chain together), or one tree (``ancestors``) for all rows."""

    tokens: Sequence[Sequence[int]]
    depths: Sequence[int] | None = None
    ancestors: Bool[Tensor, "F F"] | None = None
    chains: Sequence[Sequence[int]] | None = None

    def steps(self, row: int) -> Sequence[int] | None:
        """The depth of every token of a row's tail, from 1; None where each is one deeper than the last."""
        if self.chains is None:
            return self.depths
        chain = self.chains[row]
        return [i + 1 - chain.index(number) for i, number in enumerate(chain)]


@dataclass(frozen=True)
class Item:
    """An element of the own stream: the number of a prompt block and its length, or -1 for a segment of the row."""

    block: int
    length: int
    takes_tokens: bool


@dataclass(frozen=True)
class Stream:
    """The own tokens of a batch.

    ``ends`` is the column after each row's last segment, where its tail begins. ``slots`` are the rows and columns of all
    prompt vectors in reading order. ``starts`` and ``columns`` say for every block at which position and column it begins.
    """

    ids: Int[Tensor, "B Q"]
    positions: Int[Tensor, "B Q"]
    ends: Int[Tensor, "B"]
    own: Bool[Tensor, "#B Q Q"]
    slots: tuple[Int[Tensor, "N"], Int[Tensor, "N"]]
    starts: dict[int, Int[Tensor, "B"]]
    columns: dict[int, Int[Tensor, "B"]]


def lay_out(
    rows: Sequence[Encoded], items: Sequence[Sequence[Item]], first: int, offsets: Sequence[int], tail: Tail
) -> Stream:
    """The own stream of ``rows``: each row's ``items`` in order (segments are taken from ``first`` on), then the tail.

    ``offsets`` is the position at which each row's own stream begins.
    """
    lines = [_line(*given) for given in zip(rows, items, [first] * len(rows), offsets, strict=True)]
    ends = [len(line.ids) for line in lines]
    for row, (line, tokens) in enumerate(zip(lines, tail.tokens, strict=True)):
        line.extend(tokens, tail.steps(row))
    width = max(len(line.ids) for line in lines)
    ids = torch.tensor([line.ids + [0] * (width - len(line.ids)) for line in lines], dtype=torch.long)
    positions = torch.tensor([line.positions + [0] * (width - len(line.positions)) for line in lines], dtype=torch.long)
    blocks = sorted({item.block for row in items for item in row if item.block >= 0})
    return Stream(
        ids=ids,
        positions=positions,
        ends=torch.tensor(ends),
        own=_own_mask(width, ends, tail),
        slots=_slots(ids),
        starts={block: torch.tensor([line.starts[block] for line in lines]) for block in blocks},
        columns={block: torch.tensor([line.columns[block] for line in lines]) for block in blocks},
    )


class _Line:
    """One row of the stream while it is being laid out."""

    def __init__(self, position: int) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.position = position
        self.starts: dict[int, int] = {}
        self.columns: dict[int, int] = {}

    def extend(self, tokens: Sequence[int], depths: Sequence[int] | None = None) -> None:
        steps = range(len(tokens)) if depths is None else [d - 1 for d in depths]
        self.ids.extend(tokens)
        self.positions.extend(self.position + s for s in steps)
        self.position += len(tokens)

    def place(self, item: Item) -> None:
        self.starts[item.block] = self.position
        self.columns[item.block] = len(self.ids)
        if item.takes_tokens:
            self.extend([SLOT] * item.length)
        else:
            self.position += item.length


def _line(row: Encoded, items: Sequence[Item], first: int, offset: int) -> _Line:
    line, segment = _Line(offset), first
    for item in items:
        if item.block >= 0:
            line.place(item)
        else:
            line.extend(row.segments[segment])
            segment += 1
    return line


def _slots(ids: Int[Tensor, "B Q"]) -> tuple[Tensor, Tensor]:
    """Where prompt vectors stand: rows and columns, row after row from left to right."""
    rows, columns = torch.nonzero(ids == SLOT, as_tuple=True)
    return rows, columns


def _own_mask(width: int, ends: Sequence[int], tail: Tail) -> Bool[Tensor, "#B Q Q"]:
    """Causal; in a tree tail a token sees its ancestors only, in one of several chains that chain only. One mask for all
    rows where their tails are alike."""
    causal = torch.ones(width, width, dtype=torch.bool).tril()[None]
    if tail.chains is not None:
        number = torch.full((len(ends), width), -1)
        for row, (end, chain) in enumerate(zip(ends, tail.chains, strict=True)):
            number[row, end : end + len(chain)] = torch.tensor(chain, dtype=torch.long)
        return causal & ((number[:, None, :] < 0) | (number[:, None, :] == number[:, :, None]))
    if tail.ancestors is None or not len(tail.ancestors):
        return causal
    starts = torch.tensor(ends[:1] if len(set(ends)) == 1 else list(ends))
    related = torch.arange(width)[None] - starts[:, None]
    inside = (related >= 0) & (related < len(tail.ancestors))
    node = related.clamp(0, len(tail.ancestors) - 1)
    tree = tail.ancestors.cpu()[node[:, :, None], node[:, None, :]]
    return torch.where(inside[:, :, None] & inside[:, None, :], tree, causal)
