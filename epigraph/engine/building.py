"""Build frozen states: one forward pass over every different text, in length-sorted batches by token budget.

The batches depend on the set of texts asked for alone, never on what the store already holds; so a resumed tuning builds
bit for bit what the first one built.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from epigraph.engine.attention import Blocks
from epigraph.engine.frozen import FrozenStore, text_key
from epigraph.engine.trunk import Trunk, stack_captured

Text = tuple[int, ...]
Progress = Callable[[int, int], None]

TOKENS_A_BATCH = 2048


def build(trunk: Trunk, store: FrozenStore, texts: Sequence[Text], progress: Progress | None = None) -> None:
    """Put the states of every text into the store that it does not hold yet."""
    batches = list(plan(texts))
    missing = [batch for batch in batches if any(text_key(t) not in store for t in batch)]
    total, done = sum(map(len, (t for batch in missing for t in batch))), 0
    for batch in missing:
        _build_batch(trunk, store, batch)
        done += sum(map(len, batch))
        if progress:
            progress(done, total)


def plan(texts: Sequence[Text]) -> Iterator[list[Text]]:
    """Different texts in batches of about 2,048 tokens, long ones first (so that memory runs out at once if at all)."""
    batch: list[Text] = []
    for text in sorted({t for t in texts if t}, key=lambda t: (-len(t), t)):
        if batch and (len(batch) + 1) * len(batch[0]) > TOKENS_A_BATCH:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


@torch.no_grad()
def _build_batch(trunk: Trunk, store: FrozenStore, batch: Sequence[Text]) -> None:
    lengths = [len(t) for t in batch]
    keys, values, hidden = forward_texts(trunk, batch)
    states = torch.stack([keys, values], 1)  # [L, 2, B, A, T, D]
    flat = torch.cat([states[:, :, b, :, :n].reshape(-1) for b, n in enumerate(lengths)])
    means = [hidden[b, :n].float().mean(0) for b, n in enumerate(lengths)]
    summaries = torch.stack([torch.stack([hidden[b, n - 1].float(), means[b]]) for b, n in enumerate(lengths)])
    store.add([text_key(t) for t in batch], flat.cpu(), lengths, summaries.cpu())


def forward_texts(trunk: Trunk, batch: Sequence[Text]) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values [L, B, A, T, D] and last states [B, T, H] of texts padded on the right."""
    width = max(map(len, batch))
    ids = torch.tensor([list(t) + [0] * (width - len(t)) for t in batch], device=trunk.base.device)
    positions = torch.arange(width, device=trunk.base.device)[None].expand(len(batch), -1)
    causal = torch.ones(width, width, dtype=torch.bool, device=trunk.base.device).tril()[None]
    blocks = Blocks(positions, causal, captured={})
    hidden = trunk.run(trunk.base.embed(ids), blocks)
    return *stack_captured(blocks), hidden
