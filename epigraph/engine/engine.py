"""Where a prompt meets a base: the one place that computes logits, losses and answers of a prompted base.

    hidden = base([frozen] [own stream] | shared)      frozen and shared beginnings are computed once, see ``stream``

Exact for every position of ``{prompt}``: in a causal model what stands before the first block never depends on it. A base
that our attention cannot serve is run by plain concatenation instead, see ``concatenation``.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from epigraph.assets import home
from epigraph.base import Base
from epigraph.engine import attention
from epigraph.engine.allocator import keep_freed_memory
from epigraph.engine.assembly import Asked, Prompts, embed_stream, hide, settle, shared_blocks, unseen_tokens
from epigraph.engine.attention import ApartPast, Blocks, PaddedPast, Past
from epigraph.engine.beginning import beginning
from epigraph.engine.building import Progress, build, missing
from epigraph.engine.concatenation import chain_scores, concatenate, row_bytes, run_concatenation
from epigraph.engine.frozen import FrozenStore, Shape, Text
from epigraph.engine.neutral import TEXTS
from epigraph.engine.selftest import check_base
from epigraph.engine.stream import Item, Stream, Tail, lay_out
from epigraph.engine.tree import Tree
from epigraph.engine.trunk import Trunk
from epigraph.errors import TaskError, Unsupported
from epigraph.prompts import AnyForm, Embedded, Form, KeyValue
from epigraph.tasks.encode import Encoded

TOKENS_A_BATCH = 2048
ROWS_A_BATCH = 128
LEAST_TOGETHER = 32  # texts of which fewer would be copied together are left apart
UNBOUNDED = 1 << 30
LEAST_GATHERED, MOST_GATHERED = 64 << 20, 1 << 30  # bytes
LEAST_KEPT, MOST_KEPT = 256 << 20, 2 << 30  # bytes of one pass for its backward pass


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
    """One base with its store of frozen states.

    ``keep`` writes them to disk for later runs and other processes; ``budget`` bounds, in bytes, what stays in memory.
    ``folder`` is where they are kept, by default in $EPIGRAPH_HOME. ``plain`` says why the base is run by plain
    concatenation, where it is: then nothing is frozen and prompts are vectors. Unsupported if that would be wrong as well.
    """

    def __init__(self, base: Base, *, budget: int | None = None, keep: bool = True, folder: Path | None = None) -> None:
        keep_freed_memory()
        attention.register()
        self.base = base
        self.plain = ""
        self._stock = base.model.config._attn_implementation
        shape = _shape(base)
        own = f"{base.fingerprint[:16]}-{base.precision.name}-{base.device.type}"
        folder = (folder or home() / "frozen") / own
        self.store = FrozenStore(shape, dtype=base.dtype, folder=folder, budget=budget, keep=keep)
        self.trunk = Trunk(base)
        check_base(self)

    def use(self, plain: str = "") -> None:
        """Run the base with our attention or, for the reason given, with its own over the plain concatenation."""
        self.plain = plain
        stock = "eager" if self._stock == attention.NAME else self._stock
        wanted = stock if plain else attention.NAME
        if self.base.model.config._attn_implementation != wanted:
            self.base.model.set_attn_implementation(wanted)

    @property
    def warning(self) -> str:
        """What to tell who uses a base that is run by plain concatenation; empty where it is not."""
        slow = "every text is read again at every step, which is slower, and prompts are vectors (kind token)"
        return f"base {self.base.name} is run by plain concatenation: {slow}; {self.plain}" if self.plain else ""

    @property
    def flops(self) -> int:
        """Floating-point operations counted so far: forward and backward."""
        return self.trunk.flops

    def freeze(self, rows: Sequence[Encoded], progress: Progress | None = None, *, planned: Collection[str] = ()) -> None:
        """Compute the frozen states of these rows' beginnings, those not known yet.

        ``planned`` are the keys that ``missing`` named when the work was begun: they are batched as they were then.
        """
        if self.plain:
            return
        texts = [_text(row) for row in rows]
        build(self.trunk, self.store, texts, progress, planned)
        self.store.touch(texts)

    def missing(self, rows: Sequence[Encoded]) -> list[str]:
        """The keys of the texts among these rows' beginnings whose frozen states are not there yet."""
        if self.plain:
            return []
        return [text.key.hex() for text in missing(self.store, [_text(row) for row in rows])]

    # ---- queries -----------------------------------------------------------------------------------------------------

    def query(self, rows: Sequence[Encoded]) -> Float[Tensor, "B H"]:
        """The frozen query of every row: the mean of the last layer's states over what stands before the first block."""
        return self._mean_states([_text(row) for row in rows])

    def neutral_queries(self) -> Float[Tensor, "M H"]:
        """The queries of texts of all sorts: what queries have in common whatever the task."""
        return self._mean_states([Text(tuple(self.base.tokenize(text))) for text in TEXTS])

    def _mean_states(self, texts: Sequence[Text]) -> Float[Tensor, "B H"]:
        if self.plain:
            raise Unsupported(
                f"a frozen query was asked (by a router, or a prompt that depends on the input), but {self.base.name} freezes no "
                f"states: {self.plain}.",
                "Tune with --kind token.",
            )
        build(self.trunk, self.store, texts)
        return self.store.summaries(texts, self.base.device)[:, 1]

    # ---- forms -------------------------------------------------------------------------------------------------------

    def key_values(self, form: Form) -> KeyValue:
        """A form as keys and values; vectors are run through the base at positions 0…P−1 (exact where the prompt is first)."""
        if self.plain:
            raise Unsupported(f"{self.base.name} takes no keys and values: {self.plain}.", "Tune with --kind token.")
        if isinstance(form, KeyValue) or form.length == 0:
            return form if isinstance(form, KeyValue) else self._nothing()
        found = beginning(self.trunk, self.store, Text(()), form)
        assert found is not None
        return found

    def embedded_text(self, ids: Sequence[int]) -> Embedded:
        """The vectors of a text's tokens: how a hard prompt is a form like any other."""
        return Embedded(self.base.embed(torch.tensor(list(ids), dtype=torch.long)))

    def _nothing(self) -> KeyValue:
        empty = torch.zeros(self.base.layers, self.base.heads, 0, self.base.head_size, device=self.base.device)
        return KeyValue(empty, empty)

    # ---- one pass ----------------------------------------------------------------------------------------------------

    def forward(self, rows: Sequence[Encoded], forms: Sequence[AnyForm], tail: Tail, *, capture: bool = False) -> Pass:
        """The own tokens of these rows, prompt and tail included. ``forms`` holds one form a block."""
        return self.forward_side_by_side(rows, [forms], tail, capture=capture)

    def forward_side_by_side(
        self, rows: Sequence[Encoded], asked: Asked, tail: Tail, *, capture: bool = False, queries: bool = False
    ) -> Pass:
        """The same for S prompts at once: ``rows`` are S equal groups, group s answered with prompt s."""
        assert len(rows) % len(asked) == 0, "prompts side by side answer equally many rows each"
        prompts = settle(asked, len(rows), lambda some: self.query(rows[some]))
        if self.plain:
            return self._concatenate(rows, prompts, tail)
        texts = [_text(row) for row in rows]
        common = len(set(texts)) == 1 and not any(_depends_on_input(f[0]) for f in prompts if f)
        lead = texts[0] if common else _lead(texts)
        beginnings = [beginning(self.trunk, self.store, lead, f[0] if f and common else None) for f in prompts]
        stream = self._lay_out(rows, prompts, beginnings, tail, common=common)
        unseen = unseen_tokens(stream, prompts, self.base, skip_first=common)
        own = hide(stream.own.to(self.base.device), unseen)
        blocks = Blocks(stream.positions.to(self.base.device), own, unseen=unseen)
        if not common and any(text.ids for text in texts):
            blocks.past = self._past(texts, len(lead.ids), apart=not capture and self._reads_apart(texts))
        blocks.shared = shared_blocks(self.base, prompts, stream, beginnings, skip_first=common)
        blocks.captured = {} if capture else None
        blocks.queries = {} if queries else None
        hidden = self.trunk.run(embed_stream(self.base, stream, prompts, skip_first=common), blocks)
        return Pass(hidden, stream, blocks)

    def _concatenate(self, rows: Sequence[Encoded], prompts: Prompts, tail: Tail) -> Pass:
        stream = _not_empty(concatenate(rows, prompts, tail))
        hidden = run_concatenation(self.trunk, stream, prompts, tail)
        return Pass(hidden, stream, Blocks(stream.positions.to(self.base.device), stream.own.to(self.base.device)))

    def _lay_out(
        self,
        rows: Sequence[Encoded],
        prompts: Prompts,
        beginnings: Sequence[KeyValue | None],
        tail: Tail,
        *,
        common: bool,
    ) -> Stream:
        each = len(rows) // len(prompts)
        items = [items for forms in prompts for items in [_items(forms, skip_first=common)] * each]
        lengths = [begin.length if begin else 0 for begin in beginnings for _ in range(each)]
        offsets = lengths if common else [len(row.segments[0]) for row in rows]
        return _not_empty(lay_out(rows, items, 1, offsets, tail))

    def _past(self, texts: Sequence[Text], start: int, *, apart: bool) -> Past:
        """The frozen states of these texts from position ``start`` on, where a lead that all share does not come before."""
        build(self.trunk, self.store, texts)
        device = self.base.device
        lengths = torch.tensor([len(text.ids) - start for text in texts], device=device)
        places = torch.arange(int(lengths.max()), device=device)[None].expand(len(texts), -1)
        seen = start + places, places < lengths[:, None]
        if apart and all(text.lead == start for text in texts):
            return ApartPast(*seen, [self.store[text].states for text in texts])
        states = self.store.gather(texts, device, whole=not start)
        return PaddedPast(*seen, states[:, 0], states[:, 1])

    # ---- classification ----------------------------------------------------------------------------------------------

    def label_loss(self, rows: Sequence[Encoded], labels: Sequence[int], prompts: Asked, tree: Tree) -> Float[Tensor, "B"]:
        """−log p(label) of every row in nats: one pass, the cross-entropies at the branching nodes of its path."""
        trie, device = tree.trie, self.base.device
        tail = Tail([trie.spoken(label) for label in labels])
        done = self.forward_side_by_side(rows, prompts, tail)
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
    def classify(self, rows: Sequence[Encoded], forms: Sequence[AnyForm], tree: Tree) -> Float[Tensor, "N C"]:
        """Log probabilities of every label for every row, all branching nodes scored in one tree-masked pass."""
        return tree.labels(self.decide(rows, forms, tree).to(tree.decisions.device)).cpu()

    @torch.no_grad()
    def decide(self, rows: Sequence[Encoded], forms: Sequence[AnyForm], tree: Tree) -> Float[Tensor, "N X M"]:
        """``node_scores`` of any number of rows, batch by batch, without gradient."""
        if self.plain:
            return chain_scores(self, rows, forms, tree).cpu()
        found = torch.empty(len(rows), *tree.columns.shape)
        for chosen in self.batches(rows, len(tree.fed_tokens)):
            found[chosen] = self.node_scores([rows[i] for i in chosen], [forms], tree).cpu()
        return found

    def node_scores(self, rows: Sequence[Encoded], prompts: Asked, tree: Tree) -> Float[Tensor, "B X M"]:
        """log softmax over the children of every branching node for every row, in one tree-masked pass, with gradient."""
        if self.plain:
            each = len(rows) // len(prompts)
            parts = [chain_scores(self, rows[s * each : (s + 1) * each], f, tree) for s, f in enumerate(prompts)]
            return torch.cat(parts)
        return self.scores_of(self.node_states(rows, prompts, tree), tree)

    def node_states(self, rows: Sequence[Encoded], prompts: Asked, tree: Tree) -> Float[Tensor, "B X H"]:
        """The last states from which every branching node is read, for every row, in one tree-masked pass, with gradient."""
        tail = Tail([tree.fed_tokens] * len(rows), tree.fed_depths, tree.ancestors)
        done = self.forward_side_by_side(rows, prompts, tail)
        device, B = self.base.device, len(rows)
        columns = done.stream.ends[:, None] + torch.tensor(tree.reads)[None]
        row = torch.arange(B)[:, None].expand_as(columns)
        return done.at(row.reshape(-1).to(device), columns.reshape(-1).to(device)).view(B, len(tree.reads), -1)

    def scores_of(self, states: Float[Tensor, "B X H"], tree: Tree) -> Float[Tensor, "B X M"]:
        """log softmax over the children of every branching node from the states that it is read from."""
        B, X, _ = states.shape
        logits = self.trunk.logits(states.flatten(0, 1), tree.trie.tokens, tree.rows).view(B, X, -1)
        node = torch.arange(X, device=states.device)[None].expand(B, -1)
        return tree.children(logits, node)

    # ---- generation --------------------------------------------------------------------------------------------------

    def answer_loss(self, rows: Sequence[Encoded], prompts: Asked) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """The sum of −log p over the answer tokens of every row in nats, and how many there are."""
        done = self.forward_side_by_side(rows, prompts, Tail([row.answer[:-1] for row in rows]))
        ends = done.stream.ends
        places = [(b, int(ends[b]) - 1 + i, token) for b, r in enumerate(rows) for i, token in enumerate(r.answer)]
        row, column, token = torch.tensor(places, device=self.base.device).T
        logits = self.trunk.logits(done.at(row, column))
        losses = torch.nn.functional.cross_entropy(logits, token, reduction="none")
        sums = torch.zeros(len(rows), device=logits.device).index_add(0, row, losses)
        return sums, torch.tensor([float(len(r.answer)) for r in rows], device=logits.device)

    # ---- batches -----------------------------------------------------------------------------------------------------

    def batches(self, rows: Sequence[Encoded], extra: int = 0) -> Iterator[list[int]]:
        """Row numbers in length-sorted batches by token and memory budget; ``extra`` is what every row computes besides."""
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i].segments[0]), rows[i].length, rows[i].segments[0]))
        batch: list[int] = []
        longest = 0
        for i in order:
            longest = max(longest, self._computed(rows[i]) + extra)
            most = min(TOKENS_A_BATCH // longest, ROWS_A_BATCH, self.rows_at_once([rows[i]], 1, extra))
            if batch and len(batch) >= most:
                yield batch
                batch, longest = [], self._computed(rows[i]) + extra
            batch.append(i)
        if batch:
            yield batch

    def _reads_apart(self, texts: Sequence[Text]) -> bool:
        """Whether one of these texts is so long that copying them together costs more than one product each."""
        most = self._most_gathered // self._bytes(max(len(text.rest) for text in texts))
        return self.base.device.type == "cpu" and most < LEAST_TOGETHER

    @property
    def _most_gathered(self) -> int:
        """Bytes of frozen states that one pass may copy together."""
        return max(LEAST_GATHERED, min(MOST_GATHERED, self.store.budget // 4))

    def _bytes(self, tokens: int) -> int:
        """What the frozen states of so many tokens take, and at least 1."""
        return max(1, self.store.shape.numbers(tokens) * self.base.dtype.itemsize)

    def _computed(self, row: Encoded) -> int:
        return row.length if self.plain else own_tokens(row)

    def rows_at_once(self, rows: Sequence[Encoded], prompts: int, extra: int = 0) -> int:
        """How many of such rows of each of ``prompts`` prompts one pass may take, so that their frozen states, gathered,
        (by plain concatenation: what the backward pass needs) stay within a quarter of the memory budget."""
        most = self._most_gathered
        if self.plain:
            return max(1, most // (row_bytes(self.base, max(row.length for row in rows) + extra) * prompts))
        if not extra and self._reads_apart([_text(row) for row in rows]):
            return UNBOUNDED
        longest = max(len(row.segments[0]) - row.lead for row in rows) + extra
        return max(1, most // (self._bytes(longest) * prompts))

    def rows_a_step(self, rows: Sequence[Encoded], prompts: int, extra: int = 0) -> int:
        """The same for a pass with gradient, so that what its backward pass needs of the tokens computed and of their
        answers' logits stays within half of the memory budget too."""
        most = max(LEAST_KEPT, min(MOST_KEPT, self.store.budget // 2))
        own, answer = max(map(own_tokens, rows)) + extra, max(len(row.answer) for row in rows)
        seen = max(row.length for row in rows) + extra
        logits = 2 * 4 * answer * len(self.base.tokenizer)  # and their gradient, in fp32
        kept = (row_bytes(self.base, own, seen) + logits) * prompts
        return max(1, min(self.rows_at_once(rows, prompts, extra), most // max(1, kept)))


def _shape(base: Base) -> Shape:
    try:
        return Shape(base.layers, base.heads, base.head_size, base.hidden)
    except AttributeError:
        raise Unsupported(
            f"base {base.name} (architecture {base.config.model_type}) cannot be served: it has no attention heads.",
            "Choose a causal transformer, such as Llama, Qwen, Mistral, Gemma or GPT-2.",
        ) from None


def _not_empty(stream: Stream) -> Stream:
    if stream.ids.shape[1] == 0 or int(stream.ends.min()) == 0:
        raise TaskError(
            "nothing stands after the prompt, so the base has no token to answer from.",
            'End the template with a cue, for example "{text}{prompt}\\nLabel:".',
        )
    return stream


def own_tokens(row: Encoded) -> int:
    """Tokens a row computes at every step: all but its frozen beginning."""
    return sum(map(len, (*row.segments[1:], *row.choices))) + len(row.answer)


def _text(row: Encoded) -> Text:
    return Text(row.segments[0], row.lead)


def _lead(texts: Sequence[Text]) -> Text:
    """What all these texts go on from; nothing where they differ in it."""
    first = texts[0].before
    return first if all(text.before == first for text in texts) else Text(())


def _depends_on_input(form: Form) -> bool:
    return isinstance(form, Embedded) and form.vectors.ndim == 3


def _items(forms: Sequence[Form], *, skip_first: bool) -> list[Item]:
    items: list[Item] = []
    for number, form in enumerate(forms):
        if not (skip_first and number == 0):
            items.append(Item(number, form.length, isinstance(form, Embedded)))
        items.append(Item(-1, 0, True))
    return items
