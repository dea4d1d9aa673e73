"""Build frozen states: one forward pass over every different text, in length-sorted batches by token budget.

A text that goes on from a lead is read behind the lead's states, which are computed once.

The batches depend on the texts that are missing. A tuning notes which those were (``planned``), so that it builds bit for
bit the same when it is resumed, whatever was written before it was killed.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.engine.attention import Blocks, Shared
from epigraph.engine.frozen import FrozenStore, Record, Text
from epigraph.engine.trunk import Trunk, stack_captured

Progress = Callable[[int, int], None]

TOKENS_A_BATCH = 2048


def missing(store: FrozenStore, texts: Sequence[Text]) -> list[Text]:
    """The different texts that the store does not hold, leads included."""
    absent = [text for text in _with_leads(texts) if text not in store]
    if absent:
        store.refresh()
    return [text for text in absent if text not in store]


def _with_leads(texts: Sequence[Text]) -> list[Text]:
    return list(dict.fromkeys(t for text in texts for t in (text.before, text)))


def build(
    trunk: Trunk,
    store: FrozenStore,
    texts: Sequence[Text],
    progress: Progress | None = None,
    planned: Collection[str] = (),
) -> None:
    """Put the states of every text into the store that it does not hold yet; ``planned`` are keys batched as if missing."""
    absent = missing(store, texts)
    if not absent:
        return
    known = set(planned)
    first = [t for t in _with_leads(texts) if t.key.hex() in known]
    later = [t for t in absent if t.key.hex() not in known]
    batches = [batch for part in (first, later) for batch in plan(part)]
    batches = [batch for batch in batches if any(t not in store for t in batch)]
    total, done = sum(len(t.rest) for batch in batches for t in batch), 0
    for batch in batches:
        store.refresh()  # another process may have built it meanwhile
        if any(t not in store for t in batch):
            _build_batch(trunk, store, batch)
        done += sum(len(t.rest) for t in batch)
        if progress:
            progress(done, total)


def plan(texts: Sequence[Text]) -> Iterator[list[Text]]:
    """Different texts in batches of about 2,048 tokens behind one lead, leads first, then long texts first (so that memory
    runs out at once if at all)."""
    batch: list[Text] = []
    different = {t for t in texts if t.ids}
    for text in sorted(different, key=lambda t: (t.lead > 0, t.before.ids, -len(t.ids), t.ids)):
        other = batch and text.before != batch[0].before
        if other or (batch and (len(batch) + 1) * len(batch[0].rest) > TOKENS_A_BATCH):
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


@torch.no_grad()
def _build_batch(trunk: Trunk, store: FrozenStore, batch: Sequence[Text]) -> None:
    lengths = [len(t.rest) for t in batch]
    before = store[batch[0].before]
    keys, values, hidden = forward_texts(trunk, [t.rest for t in batch], before.states)
    store.add(batch, _flat(store, keys, values, lengths), _summaries(hidden, lengths, before))


def _flat(store: FrozenStore, keys: Tensor, values: Tensor, lengths: Sequence[int]) -> Tensor:
    """The records one after another, padding left out."""
    flat = torch.empty(sum(map(store.shape.numbers, lengths)), dtype=store.dtype)
    rest = flat
    for b, n in enumerate(lengths):
        record = rest[: store.shape.numbers(n)].view(len(keys), 2, keys.shape[2], n, -1)
        record[:, 0], record[:, 1] = keys[:, b, :, :n], values[:, b, :, :n]
        rest = rest[record.numel() :]
    return flat


def _summaries(hidden: Tensor, lengths: Sequence[int], before: Record) -> Tensor:
    """The last state of every text and the mean over all its tokens, those of its lead included."""
    led = before.tokens
    means = [(n * hidden[b, :n].float().mean(0).cpu() + led * before.summary[1]) / (n + led) for b, n in enumerate(lengths)]
    return torch.stack([torch.stack([hidden[b, n - 1].float().cpu(), means[b]]) for b, n in enumerate(lengths)])


def forward_texts(
    trunk: Trunk, batch: Sequence[Sequence[int]], before: Float[Tensor, "L 2 A n D"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values [L, B, A, T, D] and last states [B, T, H] of texts padded on the right, all behind ``before``."""
    device, width, start = trunk.base.device, max(map(len, batch)), before.shape[3]
    ids = torch.tensor([[*t, *[0] * (width - len(t))] for t in batch], device=device)
    positions = torch.arange(start, start + width, device=device)[None].expand(len(batch), -1)
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()[None]
    shared = None
    if start:
        states = before.to(device)
        places = torch.arange(start, device=device)[None].expand(len(batch), -1)
        shared = Shared(states[:, None, 0], states[:, None, 1], places)
    blocks = Blocks(positions, causal, shared=shared, captured={})
    hidden = trunk.run(trunk.base.embed(ids), blocks)
    return *stack_captured(blocks), hidden
