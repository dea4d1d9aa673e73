"""Frozen states of what requests begin with, kept in blocks: the same text, or the same prompt before it, is computed once.

    key of block i = blake2b(key of block i − 1, tokens of block i)        32 tokens a block, the last may be shorter
    key of nothing = who asks

What comes first depends on nothing, so its states serve every prompt and the bare base. Texts that begin alike share the
blocks that are alike (the idea of vLLM's automatic prefix caching, https://docs.vllm.ai/en/latest/design/prefix_caching/), as
far as one API key asked for them: what was reused shows in counts and in seconds, and would tell what another has asked.
Vectors that come first are one block, by the hash of their content; stored keys and values need no computing at all.

Beside its keys and values each block of text keeps the sum of its last states: their mean is the frozen query, by which a
prompt that depends on the input is asked for its forms, and a router says where a text belongs.
"""

import hashlib
from array import array
from collections.abc import Collection, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.engine.decoding import Row, ShelfDecoder
from epigraph.prompts import Embedded
from epigraph.serve.cache import Cache
from epigraph.serve.prompts import NOTHING, Ready
from epigraph.serve.work import Job

TOKENS = 32


class Beginning:
    """The blocks a row of ``job`` begins with: where each ends, and its key. Nothing from element ``limit`` on is taken from
    the cache.

    ``ready`` is asked for its forms where they depend on the input; ``member`` is whose row it is where several vote.
    """

    def __init__(self, row: Row, job: Job, limit: int, ready: Ready = NOTHING, member: int = 0) -> None:
        self.row = row
        self.limit = limit
        self.ready = ready
        self.is_prompt = False
        self.sums: dict[int, Tensor] = {}  # of the last states of a block of text, by its end
        self.blocks: list[tuple[int, bytes]] = []
        if row.blocks and row.blocks[0][0] == 0:
            form, prompt = row.blocks[0][1], job.prompt
            if prompt is not None and isinstance(form, Embedded) and form.length:
                self.is_prompt = True
                self.blocks = [(form.length, f"{prompt.content}/{member}/first".encode())]
        else:
            self.blocks = _text_blocks(row.ids[: row.blocks[0][0] if row.blocks else row.end], job.owner)

    def next(self) -> tuple[int, bytes] | None:
        """The block that the row is about to compute; None where it stands beyond or within one."""
        before = 0
        for end, key in self.blocks:
            if before == self.row.done:
                return end, key
            before = end
        return None

    def restore(self, decoder: ShelfDecoder, cache: Cache[Any]) -> int:
        """Take from the cache what is there of the row's next blocks; how many elements."""
        found = 0
        self._begin_anew(self.row.done)
        while (block := self.next()) is not None and block[0] <= self.limit:
            states = cache.get(block[1])
            if states is None:
                break
            keys, values, total = states
            self.sums[block[0]] = total
            decoder.restore(self.row, (keys, values))
            found += keys.shape[2]
        self.settle()
        return found

    def _begin_anew(self, at: int) -> None:
        if at == 0:  # for the first time, or after it lost its room
            self.sums.clear()

    def gather(self, elements: Sequence[int], hidden: Float[Tensor, "n H"]) -> None:
        """Take the last states of these elements."""
        self._begin_anew(elements[0])
        before = 0
        for end, _ in self.blocks:
            start, stop = max(before, elements[0]), min(end, elements[-1] + 1)
            if start < stop:
                part = hidden[start - elements[0] : stop - elements[0]].float().sum(0)
                self.sums[end] = self.sums[end] + part if end in self.sums else part
            before = end
        self.settle()

    def query(self) -> Float[Tensor, " H"]:
        """The frozen query: the mean of the last states over the text that the row begins with."""
        return torch.stack(list(self.sums.values())).sum(0) / self.blocks[-1][0]

    def settle(self) -> None:
        """Ask a prompt that depends on the input for its forms, as soon as the text before it is read."""
        if self.row.held is not None and self.row.done >= self.row.held:
            self.row.settle(self.ready.of_input(self.query()))

    def is_claimed(self, claims: Collection[bytes]) -> bool:
        """Whether another row computes the next block in this very step: then it is there in the next."""
        block = self.next()
        return block is not None and block[0] <= self.limit and block[1] in claims

    def cut(self, elements: Sequence[int]) -> Sequence[int]:
        """The elements up to the end of the last whole block among them, where there is one: blocks are computed whole."""
        after = elements[-1] + 1
        ends = [end for end, _ in self.blocks if elements[0] < end <= after]
        inside = any(end > after for end, _ in self.blocks)
        return elements[: ends[-1] - elements[0]] if inside and ends else elements

    def computed(self, elements: Sequence[int]) -> list[tuple[int, int, bytes]]:
        """Start, end and key of the blocks that end within these elements."""
        found, before = [], 0
        for end, key in self.blocks:
            if elements[0] < end <= elements[-1] + 1:
                found.append((before, end, key))
            before = end
        return found

    def keep(self, decoder: ShelfDecoder, cache: Cache[Any], elements: Sequence[int]) -> None:
        """Put the blocks that were computed with these elements into the cache."""
        for start, end, key in self.computed(elements):
            if key not in cache:
                states = (*decoder.keep(self.row, start, end), self.sums[end])
                cache.put(key, states, sum(t.numel() * t.element_size() for t in states))


def _text_blocks(ids: Sequence[int], owner: str) -> list[tuple[int, bytes]]:
    blocks, key = [], owner.encode()
    for start in range(0, len(ids), TOKENS):
        part = ids[start : start + TOKENS]
        key = hashlib.blake2b(key + array("q", part).tobytes(), digest_size=16).digest()
        blocks.append((start + len(part), key))
    return blocks
