"""The way round for bases that our attention cannot serve: the stock forward over the plain concatenation of a batch.

    [segment 0 | block 1 | segment 1 | … | tail | padding]      positions 0, 1, 2, …; nothing frozen, nothing shared

Exact for every causal base, since what stands on the right changes no state before it: attention with ALiBi, recurrent and
hybrid layers. Where rotary positions turn with the length of the whole text (longrope: Ding et al. 2024,
https://arxiv.org/abs/2402.13753), rows on either side of the turn take separate passes; a loss over several tokens is that
of one pass over all of them. Without a mask of our own there is no label tree: every path to a branching node is read as a
chain of its own.

    numbers kept for the backward pass of a row of T tokens = L · T · (17 H + 2.5 A G T)

Source of that: Korthikanti et al. 2022, equation 2, https://arxiv.org/abs/2205.05198.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from epigraph.base import Base
from epigraph.engine.assembly import Prompts, embed_stream
from epigraph.engine.stream import Item, Stream, Tail, lay_out
from epigraph.engine.tree import Tree
from epigraph.engine.trunk import Trunk
from epigraph.errors import Unsupported
from epigraph.prompts import AnyForm, Embedded, Form
from epigraph.prompts.shown import ShownVectors
from epigraph.tasks.encode import Encoded
from epigraph.tasks.trie import ROOT, LabelTrie

if TYPE_CHECKING:
    from epigraph.engine.engine import Engine


def concatenate(rows: Sequence[Encoded], prompts: Prompts, tail: Tail) -> Stream:
    """All tokens of these rows, prompts and tails included; Unsupported if a prompt is no vectors."""
    assert tail.ancestors is None, "stock attention knows no label tree"
    each = len(rows) // len(prompts)
    items = [line for forms in prompts for line in [_items(forms)] * each]
    return lay_out(rows, items, 0, [0] * len(rows), tail)


def _items(forms: Sequence[Form]) -> list[Item]:
    items = [Item(-1, 0, takes_tokens=True)]
    for number, form in enumerate(forms):
        if not isinstance(form, Embedded):
            raise Unsupported(
                "keys and values were given, but this base is run by plain concatenation, which takes vectors only.",
                "Tune with --kind token.",
            )
        if isinstance(form, ShownVectors):
            raise Unsupported("a vector was to be hidden, but this base is run by plain concatenation, which hides none.")
        items += [Item(number, form.length, takes_tokens=True), Item(-1, 0, takes_tokens=True)]
    return items


def run_concatenation(trunk: Trunk, stream: Stream, prompts: Prompts, tail: Tail) -> Float[Tensor, "B Q H"]:
    """Last states of a stream that ``concatenate`` laid out, by the base's own attention; those of padding mean nothing."""
    embedded = embed_stream(trunk.base, stream, prompts, skip_first=False)
    lengths = stream.ends + torch.tensor([len(tokens) for tokens in tail.tokens])
    turn = turning_length(trunk.base)
    beyond = lengths > (turn or lengths.max())
    if bool(beyond.all()) or not bool(beyond.any()):
        return forward_rows(trunk, embedded, lengths)
    hidden = torch.zeros_like(embedded)
    for side in (beyond, ~beyond):
        chosen, longest = side.nonzero()[:, 0], int(lengths[side].max())
        found = forward_rows(trunk, embedded[chosen.to(embedded.device), :longest], lengths[chosen])
        padded = torch.nn.functional.pad(found, (0, 0, 0, embedded.shape[1] - longest))
        hidden = hidden.index_copy(0, chosen.to(embedded.device), padded)
    return hidden


def forward_rows(trunk: Trunk, embedded: Float[Tensor, "B Q H"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B Q H"]:
    """One stock forward over rows of these lengths, padded on the right."""
    _count(trunk, embedded)
    asked = {}
    if "attention_mask" in inspect.signature(trunk.base.trunk.forward).parameters:
        asked["attention_mask"] = (torch.arange(embedded.shape[1])[None] < lengths[:, None]).long().to(embedded.device)
    hidden: Tensor = trunk.base.trunk(inputs_embeds=embedded, use_cache=False, **asked).last_hidden_state
    return hidden


def _count(trunk: Trunk, embedded: Tensor) -> None:
    """Add what ``Trunk`` counts of a pass: here every token is computed, and is a key."""
    B, Q, _ = embedded.shape
    forward = 2 * B * Q * trunk.weights + 4 * trunk.base.layers * B * Q * Q * trunk.width
    trunk.flops += forward * (2 if torch.is_grad_enabled() and embedded.requires_grad else 1)


def turning_length(base: Base) -> int | None:
    """The length in tokens beyond which rotary positions turn otherwise, for all tokens of a text; None where they never do.

    ``dynamic`` ones turn otherwise only beyond the base's context, where no row reaches.
    """
    said = getattr(base.config, "rope_parameters", None) or {}
    kinds = [said, *(value for value in said.values() if isinstance(value, dict))]
    own = getattr(base.config, "original_max_position_embeddings", None)
    lengths = [k.get("original_max_position_embeddings") or own for k in kinds if k.get("rope_type") == "longrope"]
    return min((int(length) for length in lengths if length and length < base.context), default=None)


def row_bytes(base: Base, tokens: int, seen: int | None = None) -> int:
    """What a row of so many tokens, each of which sees at most ``seen``, keeps for its backward pass, in bytes."""
    scores = base.heads * base.groups * (tokens if seen is None else seen)
    return int(base.layers * tokens * (17 * base.hidden + 2.5 * scores)) * base.dtype.itemsize


@dataclass(frozen=True)
class Chain:
    """A path down the label trie: its tokens, and the branching nodes on it by their depth."""

    tokens: tuple[int, ...]
    reads: tuple[tuple[int, int], ...]


def label_chains(trie: LabelTrie, *, apart: bool = False) -> list[Chain]:
    """Paths that together read every branching node (by its number among ``trie.branching``) once.

    ``apart``: each on a path that ends there, for bases to which the length of the whole text matters.
    """
    number = {node: i for i, node in enumerate(trie.branching)}
    chains = []
    for node in reversed(trie.branching):  # deepest first: what stands above is read on the way
        path = list(reversed(trie.ancestors(node)))
        read = [node] if apart else [n for n in path if n in number]
        reads = tuple((trie.nodes[n].depth, number.pop(n)) for n in read)
        if reads:
            chains.append(Chain(tuple(trie.nodes[n].token for n in path if n != ROOT), reads))
    return chains


def chain_scores(engine: "Engine", rows: Sequence[Encoded], forms: Sequence[AnyForm], tree: Tree) -> Float[Tensor, "B N M"]:
    """log softmax over the children of every branching node for every row, without a tree mask: rows × chains."""
    chains, device = label_chains(tree.trie, apart=turning_length(engine.base) is not None), engine.base.device
    pairs = [(number, chain) for number in range(len(rows)) for chain in chains]
    children = torch.empty(len(rows), *tree.columns.shape, device=device)
    for chosen in engine.batches([rows[number] for number, _ in pairs], max(len(chain.tokens) for chain in chains)):
        batch = [pairs[i] for i in chosen]
        done = engine.forward([rows[number] for number, _ in batch], forms, Tail([chain.tokens for _, chain in batch]))
        ends = done.stream.ends.tolist()
        places = [(b, ends[b] - 1 + depth, row, node) for b, (row, c) in enumerate(batch) for depth, node in c.reads]
        at, column, row, node = torch.tensor(places, device=device).T
        logits = engine.trunk.logits(done.at(at, column), tree.trie.tokens, tree.rows)
        children[row, node] = tree.children(logits, node)
    return children
