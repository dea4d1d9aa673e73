"""A pass that is looked into: states between layers, attention weights, gradients of any input, states put in by hand.

    [segment 0 | block 1 | segment 1 | … | tail]     every token is computed, nothing is frozen or shared with other rows

The same modules and the same attention as ``Engine.forward``, so that what is seen is what happens when the prompt answers;
only slower, since the text is read again. ``label_scores`` is the fast path with gradients, for searches over prompts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from epigraph.base import Base
from epigraph.engine.assembly import Prompts, embed_stream, hide, shared_blocks, unseen_tokens
from epigraph.engine.attention import MASKED, Blocks
from epigraph.engine.engine import Engine
from epigraph.engine.stream import Item, Stream, Tail, lay_out
from epigraph.engine.tree import Tree
from epigraph.errors import Unsupported
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.tasks.encode import Encoded

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What to look at, and what to change on the way.

    ``hidden`` [B, Q]: own tokens that only themselves read. ``patches``: layer → what to make of the states that enter it.
    ``embedded`` replaces the vectors of the own tokens. ``capture`` keeps keys and values, so that generation can go on.
    """

    states: bool = False
    capture: bool = False
    weights: bool = False
    hidden: Bool[Tensor, "B Q"] | None = None
    patches: Mapping[int, Change] = field(default_factory=dict)
    embedded: Float[Tensor, "B Q H"] | None = None


@dataclass(frozen=True)
class Seen:
    """What a pass showed. ``states`` are those that enter each layer and, last, those that leave the last one, before the
    final norm; ``weights`` [B, A·G, Q, shared | own] a layer."""

    hidden: Float[Tensor, "B Q H"]
    stream: Stream
    embedded: Float[Tensor, "B Q H"]
    states: list[Tensor]
    blocks: Blocks

    @property
    def weights(self) -> dict[int, Tensor]:
        """The attention weights by layer."""
        return self.blocks.weights or {}

    def prompt_columns(self, forms: Sequence[Form]) -> Bool[Tensor, "B K"]:
        """Which columns of ``weights`` belong to the prompt."""
        B, Q = self.stream.ids.shape
        rows, columns = self.stream.slots
        own = torch.zeros(B, Q, dtype=torch.bool)
        own[rows, columns] = True
        width = sum(form.length for form in forms if isinstance(form, KeyValue))
        return torch.cat([torch.ones(B, width, dtype=torch.bool), own], 1)


def inspect(engine: Engine, rows: Sequence[Encoded], forms: Sequence[Form], tail: Tail, look: Look | None = None) -> Seen:
    """Compute these rows whole. Unsupported on a base that is run by plain concatenation."""
    look = look or Look()
    if engine.plain:
        raise Unsupported(f"{engine.base.name} is run by plain concatenation, which is not looked into: {engine.plain}.")
    base, device = engine.base, engine.base.device
    stream = lay_out(rows, [_items(forms)] * len(rows), 0, [0] * len(rows), tail)
    hidden = unseen_tokens(stream, [forms], base, skip_first=False)
    if look.hidden is not None:
        hidden = look.hidden.to(device) if hidden is None else hidden | look.hidden.to(device)
    blocks = Blocks(stream.positions.to(device), hide(stream.own.to(device), hidden))
    blocks.shared = shared_blocks(base, [forms], stream, [None], skip_first=False)
    blocks.weights = {} if look.weights else None
    blocks.captured = {} if look.capture else None
    blocks.unseen = hidden
    embedded = embed_stream(base, stream, [forms], skip_first=False) if look.embedded is None else look.embedded
    states: list[Tensor] = []
    with _watched(base, look, states):
        found = engine.trunk.run(embedded, blocks)
    return Seen(found, stream, embedded, states, blocks)


def _items(forms: Sequence[Form]) -> list[Item]:
    items = [Item(-1, 0, True)]
    for number, form in enumerate(forms):
        items += [Item(number, form.length, isinstance(form, Embedded)), Item(-1, 0, True)]
    return items


def layers_of(base: Base) -> list[nn.Module]:
    """The layers of the base, first to last. Unsupported where they are not one list."""
    found = [m for m in base.trunk.modules() if isinstance(m, nn.ModuleList) and len(m) == base.layers]
    if not found:
        raise Unsupported(f"the layers of {base.name} are not a list, so its states between layers are not looked into.")
    return list(found[0])


@contextmanager
def _watched(base: Base, look: Look, states: list[Tensor]) -> Iterator[None]:
    """Collect the states that enter every layer, and change those that shall be changed."""
    if not look.states and not look.patches:
        yield
        return
    layers = layers_of(base)
    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            handle = layer.register_forward_pre_hook(_entering(look, number, states), with_kwargs=True)
            stack.callback(handle.remove)
        if look.states:
            handle = layers[-1].register_forward_hook(
                lambda _m, _a, out: states.append(out[0] if isinstance(out, tuple) else out)
            )
            stack.callback(handle.remove)
        yield


def _entering(look: Look, number: int, states: list[Tensor]) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named = not args
        entering = kwargs["hidden_states"] if named else args[0]
        if number in look.patches:
            entering = look.patches[number](entering)
        if look.states:
            states.append(entering)
        if named:
            return args, {**kwargs, "hidden_states": entering}
        return (entering, *args[1:]), kwargs

    return hook


def final_norm(base: Base) -> Callable[[Tensor], Tensor]:
    """What the base does to the last layer's states before the head: the module of its trunk that comes last."""
    candidates: dict[int, nn.Module] = {}
    inside = {id(m) for layer in layers_of(base) for m in layer.modules()}
    order: list[int] = []
    with ExitStack() as stack, torch.no_grad():
        for module in base.trunk.modules():
            if module is not base.trunk and id(module) not in inside and not isinstance(module, nn.ModuleList):
                candidates[id(module)] = module
                handle = module.register_forward_hook(lambda m, _a, _o: order.append(id(m)))
                stack.callback(handle.remove)
        blocks = Blocks(
            torch.zeros(1, 1, dtype=torch.long, device=base.device),
            torch.ones(1, 1, 1, dtype=torch.bool, device=base.device),
        )
        after: list[int] = []
        handle = layers_of(base)[-1].register_forward_hook(lambda *_: after.append(len(order)))
        stack.callback(handle.remove)
        vectors = base.embed(torch.zeros(1, 1, dtype=torch.long))
        base.trunk(inputs_embeds=vectors, position_ids=blocks.positions, use_cache=False, blocks=blocks)
    last = order[after[-1] :]

    def apply(states: Tensor) -> Tensor:
        for key in last:
            states = candidates[key](states)
        return states

    return apply


def label_scores(engine: Engine, rows: Sequence[Encoded], prompts: Prompts, tree: Tree) -> Float[Tensor, "N C"]:
    """Log probabilities of every label, with gradient to the prompts: S equal groups of rows, group s under prompt s."""
    if engine.plain:
        raise Unsupported(f"{engine.base.name} is run by plain concatenation, which is not searched over: {engine.plain}.")
    done = engine.forward_side_by_side(rows, prompts, label_tail(tree, len(rows)))
    return tree_scores(engine, done.hidden, done.stream.ends, tree)


def tree_scores(engine: Engine, hidden: Float[Tensor, "B Q H"], ends: Int[Tensor, "B"], tree: Tree) -> Float[Tensor, "B C"]:
    """Log probabilities of every label from the states of a pass whose tail was the label tree."""
    device, B = engine.base.device, len(hidden)
    columns = (ends[:, None] + torch.tensor(tree.reads)[None]).to(device)
    row = torch.arange(B, device=device)[:, None].expand_as(columns)
    logits = engine.trunk.logits(hidden[row.reshape(-1), columns.reshape(-1)], tree.trie.tokens, tree.rows)
    node = torch.arange(len(tree.reads), device=device)[None].expand(B, -1)
    return tree.labels(tree.children(logits.view(B, len(tree.reads), -1), node))


@dataclass(frozen=True)
class Looks:
    """What tokens look for keys with, by layer, token, key head and the query heads that share it: scaled queries, and the logarithm
    of the sum over all keys that their softmax divides by."""

    queries: Float[Tensor, "L N A G D"]
    sums: Float[Tensor, "L N A G"]


@torch.no_grad()
def answer_looks(engine: Engine, rows: Sequence[Encoded], forms: Sequence[Form], tree: Tree, tokens: int = 1) -> Looks:
    """The looks of the last ``tokens`` tokens of each row before its label tree, row by row.

    Unsupported where the base is run by plain concatenation.
    """
    if engine.plain:
        raise Unsupported(f"{engine.base.name} is run by plain concatenation, which is not looked into: {engine.plain}.")
    found: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * len(rows)
    for chosen in engine.batches(rows, len(tree.fed_tokens)):
        tail = label_tail(tree, len(chosen))
        done = engine.forward_side_by_side([rows[i] for i in chosen], [forms], tail, queries=True)
        row, last = torch.arange(len(chosen))[:, None], done.stream.ends[:, None].cpu() - tokens + torch.arange(tokens)
        taken = [one for _, one in sorted((done.blocks.queries or {}).items())]
        queries = torch.stack([q[row, :, :, last] for q, _ in taken]).float().cpu()
        sums = torch.stack([s[row, :, :, last] for _, s in taken]).float().cpu()
        for place, i in enumerate(chosen):
            found[i] = (queries[:, place], sums[:, place])
    return Looks(torch.cat([q for q, _ in found], 1), torch.cat([s for _, s in found], 1))


@dataclass(frozen=True)
class OwnReads:
    """What tokens behind a block of keys and values look for, and what they find among the row's own tokens, by layer: scaled queries as
    if read at the positions they have there; the logarithm of the sum over the own keys alone, and the values these give; the logarithm
    of the sum over all keys. ``A``: key heads, ``G``: query heads of each."""

    queries: Float[Tensor, "L N A G D"]
    own_sums: Float[Tensor, "L N A G"]
    own_values: Float[Tensor, "L N A G D"]
    sums: Float[Tensor, "L N A G"]


@torch.no_grad()
def own_reads(engine: Engine, rows: Sequence[Encoded], form: KeyValue, chosen: Sequence[Sequence[int]]) -> OwnReads:
    """The reads of the tokens ``chosen`` of each row (numbers within it), where the whole row stands behind ``form``."""
    found: list[list[Tensor]] = [[] for _ in rows]
    for batch in engine.batches(rows):
        tail = Tail([()] * len(batch))
        done = engine.forward_side_by_side([rows[i] for i in batch], [[form]], tail, capture=True, queries=True)
        blocks = done.blocks
        assert blocks.queries is not None
        assert blocks.captured is not None
        mask = torch.zeros(blocks.own.shape, device=blocks.own.device).masked_fill(~blocks.own, MASKED)
        layers = [_own(*blocks.queries[layer], *blocks.captured[layer], mask) for layer in sorted(blocks.queries)]
        for place, i in enumerate(batch):
            taken = torch.tensor(list(chosen[i]))
            found[i] = [torch.stack([one[place][:, :, taken] for one in part]) for part in zip(*layers, strict=True)]
    parts = [torch.cat(part, 3).movedim(3, 1) for part in zip(*found, strict=True)]
    return OwnReads(*parts)


def _own(
    query: Float[Tensor, "B A G Q D"],
    sums: Float[Tensor, "B A G Q"],
    key: Float[Tensor, "B A Q D"],
    value: Float[Tensor, "B A Q D"],
    mask: Float[Tensor, "#B Q Q"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, own sums, own values and all sums of one layer, in fp32."""
    scores = (query @ key[:, :, None].transpose(-1, -2)).float() + mask[:, None, None]
    values = torch.softmax(scores, -1).to(value.dtype) @ value[:, :, None]
    return query.float().cpu(), torch.logsumexp(scores, -1).cpu(), values.float().cpu(), sums.float().cpu()


def label_tail(tree: Tree, rows: int) -> Tail:
    """The label tree behind every row."""
    return Tail([tree.fed_tokens] * rows, tree.fed_depths, tree.ancestors)


def first_values(base: Base, ids: Sequence[int], position: int = 0) -> Float[Tensor, "N W"]:
    """The values [A·D] that the first layer gives to each token alone at this position."""
    vectors = base.embed(torch.tensor(list(ids), dtype=torch.long))[:, None]
    places = torch.full((len(vectors), 1), position, device=base.device)
    blocks = Blocks(places, torch.ones(1, 1, 1, dtype=torch.bool, device=base.device), captured={})

    class Enough(Exception):
        pass

    def stop(*_: object) -> None:
        raise Enough

    handle = layers_of(base)[1].register_forward_pre_hook(stop) if base.layers > 1 else None
    try:
        base.trunk(inputs_embeds=vectors, position_ids=places, use_cache=False, blocks=blocks)
    except Enough:
        pass
    finally:
        if handle is not None:
            handle.remove()
    assert blocks.captured is not None
    return blocks.captured[0][1].flatten(1)
