"""What a batch has in common at its beginning, computed once at batch one: ``[lead] [first block]`` as keys and values.

A lead (the same instruction before every row) is frozen and comes from the store; vectors that stand there are run through
the base behind it, with gradient, once a step for the whole batch. Exact, since neither depends on any row.
"""

from collections.abc import Sequence

import torch

from epigraph.engine.attention import Blocks, Shared
from epigraph.engine.building import build
from epigraph.engine.frozen import FrozenStore, Text
from epigraph.engine.trunk import Trunk, stack_captured
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.prompts.shown import ShownKeys, ShownVectors, shown_of


def beginning(trunk: Trunk, store: FrozenStore, lead: Text, form: Form | None) -> KeyValue | None:
    """Keys and values of the lead and the block; None where both are empty."""
    before = lead_states(trunk, store, lead) if lead.ids else None
    if form is None or form.length == 0:
        return before
    if isinstance(form, Embedded):
        block = run_block(trunk, form, before)
    else:
        block = KeyValue(
            form.keys.to(trunk.base.device, trunk.base.dtype), form.values.to(trunk.base.device, trunk.base.dtype)
        )
    shown = shown_of(form, trunk.base.layers)
    if shown is not None:
        block = ShownKeys(block.keys, block.values, shown.to(block.keys.device))
    return block if before is None else join([before, block])


def lead_states(trunk: Trunk, store: FrozenStore, lead: Text) -> KeyValue:
    """The frozen keys and values of a text, from the store."""
    build(trunk, store, [lead])
    states = store.whole(lead).to(trunk.base.device)
    return KeyValue(states[:, 0], states[:, 1])


def run_block(trunk: Trunk, form: Embedded, before: KeyValue | None) -> KeyValue:
    """Vectors run through the base behind ``before``."""
    device, count = trunk.base.device, form.length
    start = before.length if before else 0
    positions = torch.arange(start, start + count, device=device)[None]
    causal = torch.ones(1, count, count, dtype=torch.bool, device=device).tril()
    if isinstance(form, ShownVectors):
        causal = causal & (form.shown.to(device)[None, None] | torch.eye(count, dtype=torch.bool, device=device)[None])
    shared = None
    if before is not None:
        shared = Shared(before.keys[:, None], before.values[:, None], torch.arange(start, device=device)[None])
    blocks = Blocks(positions, causal, shared=shared, captured={})
    trunk.run(form.vectors[None].to(device, trunk.base.dtype), blocks)
    keys, values = stack_captured(blocks)
    return KeyValue(keys[:, 0], values[:, 0])


def join(parts: Sequence[KeyValue]) -> KeyValue:
    """Blocks one after another."""
    keys, values = torch.cat([p.keys for p in parts], 2), torch.cat([p.values for p in parts], 2)
    layers = len(keys)
    shown = [shown_of(p, layers) for p in parts]
    if all(s is None for s in shown):
        return KeyValue(keys, values)
    everywhere = [
        torch.ones(layers, p.length, dtype=torch.bool) if s is None else s.cpu() for p, s in zip(parts, shown, strict=True)
    ]
    return ShownKeys(keys, values, torch.cat(everywhere, 1).to(keys.device))
