"""One pass of the base's own modules over the own tokens, with the operations counted.

    FLOPs = 2 · tokens · weights  +  4 · layers · tokens · keys · query width      (twice that again for the backward pass)

Counted are the products of the layers' weights, of attention and of the head. A backward pass through a frozen base costs
as much as the forward pass, since only gradients of activations are computed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from epigraph.base import Base
from epigraph.engine.attention import ApartPast, Blocks


class Trunk:
    """The base without its head, and the floating-point operations it was asked for."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.flops = 0
        self.compiled: Callable[..., Any] | None = None
        embedding = sum(
            p.numel() for name, p in base.trunk.named_parameters() if "embed" in name or "wte" in name or "wpe" in name
        )
        self.weights = sum(p.numel() for p in base.trunk.parameters() if p.ndim > 1) - embedding
        self.width = base.heads * base.groups * base.head_size

    def run(self, embedded: Tensor, blocks: Blocks) -> Tensor:
        """Last states [B, Q, H] of the own tokens."""
        trains = self._trains(embedded, blocks)
        self._count(embedded, blocks, trains=trains)
        forward: Callable[..., Any] = self.base.trunk
        if self.compiled is not None and trains and not isinstance(blocks.past, ApartPast):
            forward = self.compiled
            for window in {None, getattr(self.base.config, "sliding_window", None)}:
                blocks.bias(window)  # what a mask is depends on numbers, which would break the graph at every layer
        found = forward(inputs_embeds=embedded, position_ids=blocks.positions, use_cache=False, blocks=blocks)
        hidden: Tensor = found.last_hidden_state
        return hidden

    def compile_steps(self, *, dynamic: bool = True, backend: str = "inductor") -> None:
        """Compile the layers at the next pass that needs a gradient, once for batches of any width (``dynamic``) or for each."""
        self.compiled = torch.compile(self.base.trunk, dynamic=dynamic, backend=backend)

    def leave_plain(self) -> None:
        """Run all passes as they are again."""
        self.compiled = None

    def logits(self, hidden: Tensor, tokens: Sequence[int] | None = None, rows: Tensor | None = None) -> Tensor:
        """The base's logits at N positions, counted."""
        found = self.base.logits(hidden, tokens, rows)
        self.flops += 2 * found.numel() * hidden.shape[-1] * (2 if hidden.requires_grad else 1)
        return found

    @staticmethod
    def _trains(embedded: Tensor, blocks: Blocks) -> bool:
        """Whether the pass is part of a step: something in it wants a gradient."""
        wanted = embedded.requires_grad or (blocks.shared is not None and blocks.shared.keys.requires_grad)
        return torch.is_grad_enabled() and wanted

    def _count(self, embedded: Tensor, blocks: Blocks, *, trains: bool) -> None:
        tokens = embedded.shape[0] * embedded.shape[1]
        past = blocks.past.valid.shape[1] if blocks.past else 0
        shared = blocks.shared.keys.shape[3] if blocks.shared else 0
        keys = embedded.shape[1] + past + shared
        forward = 2 * tokens * self.weights + 4 * self.base.layers * tokens * keys * self.width
        self.flops += forward * (2 if trains else 1)


def stack_captured(blocks: Blocks) -> tuple[Tensor, Tensor]:
    """The keys and values that a pass left at every layer, [L, B, A, Q, D] each."""
    captured = blocks.captured or {}
    pairs = [captured[layer] for layer in sorted(captured)]
    return torch.stack([k for k, _ in pairs]), torch.stack([v for _, v in pairs])
