"""One pass of the base's own modules over the own tokens, with the operations counted.

    FLOPs = 2 · tokens · weights  +  4 · layers · tokens · keys · query width      (twice that again for the backward pass)

Counted are the products of the layers' weights, of attention and of the head. A backward pass through a frozen base costs
as much as the forward pass, since only gradients of activations are computed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from epigraph.base import Base
from epigraph.engine.attention import Blocks


class Trunk:
    """The base without its head, and the floating-point operations it was asked for."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.flops = 0
        embedding = sum(
            p.numel() for name, p in base.trunk.named_parameters() if "embed" in name or "wte" in name or "wpe" in name
        )
        self.weights = sum(p.numel() for p in base.trunk.parameters() if p.ndim > 1) - embedding
        self.width = base.heads * base.groups * base.head_size

    def run(self, embedded: Tensor, blocks: Blocks) -> Tensor:
        """Last states [B, Q, H] of the own tokens."""
        self._count(embedded, blocks)
        base = self.base
        found = base.trunk(inputs_embeds=embedded, position_ids=blocks.positions, use_cache=False, blocks=blocks)
        hidden: Tensor = found.last_hidden_state
        return hidden

    def logits(self, hidden: Tensor, tokens: Sequence[int] | None = None, rows: Tensor | None = None) -> Tensor:
        """The base's logits at N positions, counted."""
        found = self.base.logits(hidden, tokens, rows)
        self.flops += 2 * found.numel() * hidden.shape[-1] * (2 if hidden.requires_grad else 1)
        return found

    def _count(self, embedded: Tensor, blocks: Blocks) -> None:
        tokens = embedded.shape[0] * embedded.shape[1]
        past = blocks.past.valid.shape[1] if blocks.past else 0
        shared = blocks.shared.keys.shape[3] if blocks.shared else 0
        keys = embedded.shape[1] + past + shared
        forward = 2 * tokens * self.weights + 4 * self.base.layers * tokens * keys * self.width
        needs_gradient = torch.is_grad_enabled() and (
            embedded.requires_grad or (blocks.shared is not None and blocks.shared.keys.requires_grad)
        )
        self.flops += forward * (2 if needs_gradient else 1)


def stack_captured(blocks: Blocks) -> tuple[Tensor, Tensor]:
    """The keys and values that a pass left at every layer, [L, B, A, Q, D] each."""
    captured = blocks.captured or {}
    pairs = [captured[layer] for layer in sorted(captured)]
    return torch.stack([k for k, _ in pairs]), torch.stack([v for _, v in pairs])
