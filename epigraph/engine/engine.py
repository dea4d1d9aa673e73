"""Where a prompt meets a base: the one place that computes logits, losses and answers of a prompted base.

    hidden = base([frozen] [own stream] | shared)      frozen and shared beginnings are computed once, see ``stream``

Exact for every position of ``{prompt}``: in a causal model what stands before the first block never depends on it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from epigraph.assets import home
from epigraph.base import Base
from epigraph.engine import attention
from epigraph.engine.attention import Blocks, Past, Shared
from epigraph.engine.building import Progress, build
from epigraph.engine.frozen import FrozenStore, Shape, text_key
from epigraph.engine.selftest import check_base
from epigraph.engine.stream import Item, Stream, Tail, lay_out
from epigraph.engine.tree import Tree
from epigraph.engine.trunk import Trunk, stack_captured
from epigraph.errors import TaskError, Unsupported
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.tasks.encode import Encoded

TOKENS_A_BATCH = 2048
ROWS_A_BATCH = 128


@dataclass(frozen=True)
class Pass:
    """What one forward pass leaves: last states of the own tokens, and where each row's tail begins."""

    hidden: Float[Tensor, "B Q H"]
    stream: Stream
    blocks: Blocks

    def at(self, rows: Int[Tensor, "N"], columns: Int[Tensor, "N"]) -> Float[Tensor, "N H"]:
        """The states at N places."""
        return self.hidden[rows, columns]


class Engine:
    """One base with its store of frozen states."""

    def __init__(self, base: Base, *, budget: int | None = None) -> None:
        attention.register()
        base.model.set_attn_implementation(attention.NAME)
        self.base = base
        shape = _shape(base)
        folder = home() / "frozen" / f"{base.fingerprint[:16]}-{base.precision.name}"
        self.store = FrozenStore(shape, dtype=base.dtype, folder=folder, budget=budget)
        self.trunk = Trunk(base)
        check_base(self)

    @property
    def flops(self) -> int:
        """Floating-point operations counted so far: forward and backward."""
        return self.trunk.flops

    def freeze(self, rows: Sequence[Encoded], progress: Progress | None = None) -> None:
        """Compute the frozen states of these rows' beginnings, those not known yet."""
        build(self.trunk, self.store, [row.segments[0] for row in rows], progress)

    # ---- forms -------------------------------------------------------------------------------------------------------

    def key_values(self, form: Form) -> KeyValue:
        """A form as keys and values; vectors are run through the base at positions 0…P−1 (exact where the prompt is first)."""
        if isinstance(form, KeyValue) or form.length == 0:
            return form if isinstance(form, KeyValue) else self._nothing()
        shared = self._common_beginning((), [form])
        assert shared is not None
        return KeyValue(shared.keys, shared.values)

    def embedded_text(self, ids: Sequence[int]) -> Embedded:
        """The vectors of a text's tokens: how a hard prompt is a form like any other."""
        return Embedded(self.base.embed(torch.tensor(list(ids), dtype=torch.long)))

    def _nothing(self) -> KeyValue:
        empty = torch.zeros(self.base.layers, self.base.heads, 0, self.base.head_size, device=self.base.device)
        return KeyValue(empty, empty)

    def _common_beginning(self, lead: tuple[int, ...], forms: Sequence[Form]) -> KeyValue | None:
        """Keys and values of ``[lead] [block]`` computed at batch one; None where both are empty."""
        parts = [self._lead(lead)] if lead else []
        for form in forms:
            if form.length == 0:
                continue
            if isinstance(form, KeyValue):
                parts.append(
                    KeyValue(
                        form.keys.to(self.base.device, self.base.dtype), form.values.to(self.base.device, self.base.dtype)
                    )
                )
            else:
                parts.append(self._run_block(form, parts[0] if parts else None))
        if not parts:
            return None
        return KeyValue(torch.cat([p.keys for p in parts], 2), torch.cat([p.values for p in parts], 2))

    def _lead(self, lead: tuple[int, ...]) -> KeyValue:
        build(self.trunk, self.store, [lead])
        states = self.store[text_key(lead)].states.to(self.base.device)
        return KeyValue(states[:, 0], states[:, 1])

    def _run_block(self, form: Embedded, before: KeyValue | None) -> KeyValue:
        start, count, device = (before.length if before else 0), form.length, self.base.device
        positions = torch.arange(start, start + count, device=device)[None]
        shared = Shared(before.keys, before.values, torch.arange(start, device=device)[None]) if before else None
        causal = torch.ones(1, count, count, dtype=torch.bool, device=device).tril()
        blocks = Blocks(positions, causal, shared=shared, captured={})
        self.trunk.run(form.vectors[None].to(device, self.base.dtype), blocks)
        keys, values = stack_captured(blocks)
        return KeyValue(keys[:, 0], values[:, 0])

    # ---- one pass ----------------------------------------------------------------------------------------------------

    def forward(self, rows: Sequence[Encoded], forms: Sequence[Form], tail: Tail, *, capture: bool = False) -> Pass:
        """The own tokens of these rows, prompt and tail included. ``forms`` holds one form a block."""
        lead = rows[0].segments[0]
        common = all(row.segments[0] == lead for row in rows) and not _depends_on_input(forms[0])
        first = forms[:1] if common else ()
        beginning = self._common_beginning(lead, first) if common else None
        n = [beginning.length if beginning else 0] * len(rows) if common else [len(row.segments[0]) for row in rows]
        stream = lay_out(rows, _items(forms, skip_first=common), 1, n, tail)
        self._check_something_follows(stream)
        blocks = self._blocks(rows, forms, stream, beginning, common)
        blocks.captured = {} if capture else None
        hidden = self.trunk.run(self._embed(stream, forms), blocks)
        return Pass(hidden, stream, blocks)

    def _blocks(
        self, rows: Sequence[Encoded], forms: Sequence[Form], stream: Stream, beginning: KeyValue | None, common: bool
    ) -> Blocks:
        device = self.base.device
        blocks = Blocks(stream.positions.to(device), stream.own.to(device))
        if not common and any(row.segments[0] for row in rows):
            blocks.past = self._past(rows)
        blocks.shared = self._shared(forms, stream, beginning, skip_first=common)
        return blocks

    def _past(self, rows: Sequence[Encoded]) -> Past:
        self.freeze(rows)
        keys = [text_key(row.segments[0]) for row in rows]
        states, lengths = self.store.gather(keys, self.base.device)
        places = torch.arange(states.shape[4], device=self.base.device)[None].expand(len(rows), -1)
        return Past(states[:, 0], states[:, 1], places, places < lengths[:, None])

    def _shared(
        self, forms: Sequence[Form], stream: Stream, beginning: KeyValue | None, *, skip_first: bool
    ) -> Shared | None:
        """The common beginning and every ``KeyValue`` block, with who sees what where not all see all."""
        B, device = len(stream.ends), self.base.device
        parts, places, columns = [], [], []
        if beginning is not None:
            parts.append(beginning)
            places.append(torch.arange(beginning.length)[None].expand(B, -1))
            columns.append(torch.zeros(B, beginning.length, dtype=torch.long))
        for number, form in enumerate(forms):
            if isinstance(form, KeyValue) and form.length and not (skip_first and number == 0):
                parts.append(form)
                places.append(stream.starts[number][:, None] + torch.arange(form.length)[None])
                columns.append(stream.columns[number][:, None].expand(-1, form.length))
        if not parts:
            return None
        keys = torch.cat([p.keys.to(device, self.base.dtype) for p in parts], 2)
        values = torch.cat([p.values.to(device, self.base.dtype) for p in parts], 2)
        since = torch.cat(columns, 1)
        visible = None
        if bool((since > 0).any()):
            visible = (torch.arange(stream.ids.shape[1])[None, :, None] >= since[:, None, :]).to(device)
        return Shared(keys, values, torch.cat(places, 1).to(device), visible)

    def _embed(self, stream: Stream, forms: Sequence[Form]) -> Tensor:
        embedded = self.base.embed(stream.ids.clamp(min=0))
        for number, (rows, columns) in stream.slots.items():
            form = forms[number]
            assert isinstance(form, Embedded)
            vectors = form.vectors.to(self.base.device, embedded.dtype).expand(len(rows), -1, -1)
            embedded = embedded.index_put((rows.to(self.base.device), columns.to(self.base.device)), vectors)
        return embedded

    def _check_something_follows(self, stream: Stream) -> None:
        if stream.ids.shape[1] == 0 or int(stream.ends.min()) == 0:
            raise TaskError(
                "nothing stands after the prompt, so the base has no token to answer from.",
                'End the template with a cue, for example "{text}{prompt}\\nLabel:".',
            )

    # ---- classification ----------------------------------------------------------------------------------------------

    def label_loss(
        self, rows: Sequence[Encoded], labels: Sequence[int], forms: Sequence[Form], tree: Tree
    ) -> Float[Tensor, "B"]:
        """−log p(label) of every row in nats: one pass, the cross-entropies at the branching nodes of its path."""
        trie, device = tree.trie, self.base.device
        tail = Tail([trie.spoken(label) for label in labels])
        done = self.forward(rows, forms, tail)
        number = {node: i for i, node in enumerate(trie.branching)}
        decisions = [
            (
                b,
                int(done.stream.ends[b]) - 1 + trie.nodes[node].depth,
                number[node],
                list(trie.nodes[node].children).index(token),
            )
            for b, label in enumerate(labels)
            for node, token in trie.decisions(label)
        ]
        row, column, node, child = torch.tensor(decisions, device=device).T
        logits = self.trunk.logits(done.at(row, column), trie.tokens, tree.rows)
        taken = tree.children(logits, node).gather(1, child[:, None])[:, 0]
        return -torch.zeros(len(rows), device=device).index_add(0, row, taken)

    @torch.no_grad()
    def classify(self, rows: Sequence[Encoded], forms: Sequence[Form], tree: Tree) -> Float[Tensor, "N C"]:
        """Log probabilities of every label for every row, all branching nodes scored in one tree-masked pass."""
        found = torch.empty(len(rows), len(tree.trie.labels))
        for chosen in self.batches(rows, len(tree.fed_tokens)):
            found[chosen] = self._classify_batch([rows[i] for i in chosen], forms, tree).cpu()
        return found

    def _classify_batch(self, rows: Sequence[Encoded], forms: Sequence[Form], tree: Tree) -> Tensor:
        tail = Tail([tree.fed_tokens] * len(rows), tree.fed_depths, tree.ancestors)
        done = self.forward(rows, forms, tail)
        device, B = self.base.device, len(rows)
        columns = done.stream.ends[:, None] + torch.tensor(tree.reads)[None]
        row = torch.arange(B)[:, None].expand_as(columns)
        states = done.at(row.reshape(-1).to(device), columns.reshape(-1).to(device))
        logits = self.trunk.logits(states, tree.trie.tokens, tree.rows).view(B, len(tree.reads), -1)
        node = torch.arange(len(tree.reads), device=device)[None].expand(B, -1)
        return tree.labels(tree.children(logits, node))

    # ---- generation --------------------------------------------------------------------------------------------------

    def answer_loss(self, rows: Sequence[Encoded], forms: Sequence[Form]) -> tuple[Float[Tensor, ""], int]:
        """The sum of −log p over all answer tokens in nats, and how many there are."""
        done = self.forward(rows, forms, Tail([row.answer[:-1] for row in rows]))
        places = [
            (b, int(done.stream.ends[b]) - 1 + i, token) for b, row in enumerate(rows) for i, token in enumerate(row.answer)
        ]
        row, column, token = torch.tensor(places, device=self.base.device).T
        logits = self.trunk.logits(done.at(row, column))
        return torch.nn.functional.cross_entropy(logits, token, reduction="sum"), len(places)

    # ---- batches -----------------------------------------------------------------------------------------------------

    def batches(self, rows: Sequence[Encoded], extra: int = 0) -> Iterator[list[int]]:
        """Row numbers in length-sorted batches by token budget; ``extra`` is what every row computes besides."""
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i].segments[0]), rows[i].length, rows[i].segments[0]))
        batch: list[int] = []
        for i in order:
            longest = max([own_tokens(rows[j]) for j in [*batch, i]]) + extra
            if batch and ((len(batch) + 1) * longest > TOKENS_A_BATCH or len(batch) >= ROWS_A_BATCH):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch


def _shape(base: Base) -> Shape:
    try:
        return Shape(base.layers, base.heads, base.head_size, base.hidden)
    except AttributeError:
        raise Unsupported(
            f"base {base.name} (architecture {base.config.model_type}) cannot be served: it has no attention heads.",
            "Choose a causal transformer, such as Llama, Qwen, Mistral, Gemma or GPT-2.",
        ) from None


def own_tokens(row: Encoded) -> int:
    """Tokens a row computes at every step: all but its frozen beginning."""
    return sum(map(len, row.segments[1:])) + len(row.answer)


def _depends_on_input(form: Form) -> bool:
    return isinstance(form, Embedded) and form.vectors.ndim == 3


def _items(forms: Sequence[Form], *, skip_first: bool) -> list[Item]:
    items: list[Item] = []
    for number, form in enumerate(forms):
        if not (skip_first and number == 0):
            items.append(Item(number, form.length, isinstance(form, Embedded)))
        items.append(Item(-1, 0, True))
    return items
