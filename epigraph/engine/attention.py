"""Attention over three blocks under one softmax, registered with ``transformers`` so that any base's own modules use it.

    a = softmax([q Kᵀ_past ; q Kᵀ_shared ; q Kᵀ_own] + bias)        out = a_past V_past + a_shared V_shared + a_own V_own

past     frozen keys and values of each example, [B, A, T, D] a layer, never with gradient
shared   keys and values that examples have in common: a common beginning, the prompt; [S, A, P, D] a layer for S prompts
         side by side, each answering an equal share of the batch
own      the tokens that are computed now, Q of them

The G query heads of a key/value head lie side by side as rows of one product, so nothing is repeated; a shared block is
multiplied once for all examples that share it. Sliding windows and soft caps are applied here, since no mask reaches us. Source of
the blockwise form: this is plain attention over the concatenation (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762)
with its keys written as three stretches. Passes without a gradient go through a fused kernel where keys are many: ``fused``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from epigraph.engine import fused

NAME = "epigraph"
MASKED = -1e9  # finite: a padded query may see nothing at all, and must not become NaN


@dataclass
class Past:
    """Frozen keys and values of each example, with where they stand; every way to hold them answers the two products."""

    positions: Int[Tensor, "B T"]
    valid: Bool[Tensor, "B T"]

    def scores(self, rows: Float[Tensor, "B A R D"], layer: int) -> Float[Tensor, "B A R T"]:
        """q Kᵀ"""
        raise NotImplementedError

    def read(self, weights: Float[Tensor, "B A R T"], layer: int) -> Float[Tensor, "B A R D"]:
        """a V"""
        raise NotImplementedError


@dataclass
class PaddedPast(Past):
    """Gathered and padded to T: two products for the whole batch. Best for short texts, and on a GPU."""

    keys: Float[Tensor, "L B A T D"]
    values: Float[Tensor, "L B A T D"]

    def scores(self, rows: Float[Tensor, "B A R D"], layer: int) -> Float[Tensor, "B A R T"]:
        """q Kᵀ"""
        return rows @ self.keys[layer].transpose(-1, -2)

    def read(self, weights: Float[Tensor, "B A R T"], layer: int) -> Float[Tensor, "B A R D"]:
        """a V"""
        return weights @ self.values[layer]


@dataclass
class ApartPast(Past):
    """Left where they lie in the store: one product a text and nothing copied. Best for long texts on a CPU."""

    records: Sequence[Tensor]  # [L, 2, A, n, D], n differs

    def scores(self, rows: Float[Tensor, "B A R D"], layer: int) -> Float[Tensor, "B A R T"]:
        """q Kᵀ"""
        found: Tensor = _Apart.apply(  # type: ignore[no-untyped-call]
            rows, [r[layer, 0] for r in self.records], self.valid.shape[1], True
        )
        return found

    def read(self, weights: Float[Tensor, "B A R T"], layer: int) -> Float[Tensor, "B A R D"]:
        """a V"""
        found: Tensor = _Apart.apply(  # type: ignore[no-untyped-call]
            weights, [r[layer, 1] for r in self.records], self.valid.shape[1], False
        )
        return found


class _Apart(torch.autograd.Function):
    """Row b of the batch times its own frozen matrix M_b [A, n_b, D]: x M_bᵀ, padded to T, or x[…, :n_b] M_b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrices: Sequence[Tensor], width: int, transposed: bool) -> Tensor:
        ctx.matrices, ctx.width, ctx.transposed = matrices, width, transposed
        return _apart(x, matrices, width, transposed=transposed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _apart(gradient, ctx.matrices, ctx.width, transposed=not ctx.transposed), None, None, None


def _apart(x: Tensor, matrices: Sequence[Tensor], width: int, *, transposed: bool) -> Tensor:
    B, A, R, _ = x.shape
    if not transposed:
        return torch.stack([x[b, :, :, : m.shape[1]] @ m for b, m in enumerate(matrices)])
    found = x.new_zeros(B, A, R, width)
    for b, m in enumerate(matrices):
        found[b, :, :, : m.shape[1]] = x[b] @ m.transpose(-1, -2)
    return found


@dataclass
class Shared:
    """Keys and values that examples have in common: group s of S equal groups of the batch reads block s.

    ``positions`` are per example, since a prompt after the input starts where that input ends. ``visible`` says which own
    token may see which of them; None where all see all. ``shown`` says at which layers a position is seen at all.
    """

    keys: Float[Tensor, "L S A P D"]
    values: Float[Tensor, "L S A P D"]
    positions: Int[Tensor, "B P"]
    visible: Bool[Tensor, "B Q P"] | None = None
    shown: Bool[Tensor, "L S P"] | None = None


@dataclass
class Blocks:
    """What the attention of every layer reads besides the tokens' own keys and values.

    ``captured`` takes the own keys and values of every layer, ``weights`` its attention weights [B, A·G, Q, past | shared |
    own], where they are asked for (an empty dict). ``queries`` takes what each own token looks for keys with: the scaled queries and the
    logarithm of the sum that their softmax divides by. ``unseen`` are own tokens that only themselves read.
    """

    positions: Int[Tensor, "B Q"]
    own: Bool[Tensor, "#B Q Q"]
    past: Past | None = None
    shared: Shared | None = None
    shared_layers: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    captured: dict[int, tuple[Tensor, Tensor]] | None = None
    weights: dict[int, Tensor] | None = None
    queries: dict[int, tuple[Tensor, Tensor]] | None = None
    unseen: Bool[Tensor, "B Q"] | None = None
    biases: dict[int | None, list[Tensor | None]] = field(default_factory=dict)
    own_rows: dict[int | None, Tensor] = field(default_factory=dict)

    def shared_at(self, layer: int) -> tuple[Tensor, Tensor]:
        """The shared keys and values of a layer; taken apart once, so that the backward pass puts them together once."""
        if not self.shared_layers and self.shared is not None:
            self.shared_layers = list(zip(self.shared.keys.unbind(0), self.shared.values.unbind(0), strict=True))
        return self.shared_layers[layer]

    def bias(self, window: int | None) -> list[Tensor | None]:
        """Additive masks of past, shared and own, each [B|1, 1, 1, Q|1, keys] or None where all is seen."""
        if window not in self.biases:
            self.biases[window] = [self._past(window), self._shared(window), self._mask(self.own, self.positions, window)]
        return self.biases[window]

    def shown_at(self, layer: int) -> Tensor | None:
        """The additive mask [B, 1, 1, 1, P] of shared positions that this layer does not see; None where it sees all."""
        if self.shared is None or self.shared.shown is None:
            return None
        shown = self.shared.shown[layer]
        each = shown.repeat_interleave(len(self.shared.positions) // len(shown), 0)
        return torch.zeros(each.shape, device=each.device).masked_fill(~each, MASKED)[:, None, None, None]

    def _own_rows(self, window: int | None, groups: int) -> Float[Tensor, "#B 1 R Q"]:
        """The mask of the own tokens for all G query heads of a key head, one below another."""
        if window not in self.own_rows:
            own = self.bias(window)[2]
            assert own is not None
            self.own_rows[window] = own.expand(-1, -1, groups, -1, -1).flatten(2, 3)
        return self.own_rows[window]

    def _past(self, window: int | None) -> Tensor | None:
        if self.past is None:
            return None
        valid = self.past.valid[:, None, :]
        return None if window is None and bool(valid.all()) else self._mask(valid, self.past.positions, window)

    def _shared(self, window: int | None) -> Tensor | None:
        if self.shared is None or (window is None and self.shared.visible is None):
            return None
        visible = self.shared.visible
        seen = torch.ones_like(self.shared.positions, dtype=torch.bool)[:, None, :] if visible is None else visible
        return self._mask(seen, self.shared.positions, window)

    def _mask(self, seen: Bool[Tensor, "#B #Q K"], keys: Int[Tensor, "B K"], window: int | None) -> Tensor:
        if window is not None:
            distance = self.positions[:, :, None] - keys[:, None, :]
            seen = seen & (distance < window)
        return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, MASKED)[:, None, None]

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "B AG Q D"],
        key: Float[Tensor, "B A Q D"],
        value: Float[Tensor, "B A Q D"],
        *,
        window: int | None,
        softcap: float | None,
    ) -> Float[Tensor, "B Q AG D"]:
        """One layer: the scores of the three blocks under one softmax. ``query`` is scaled."""
        if self.captured is not None:
            self.captured[layer] = (key, value)
        B, AG, Q, D = query.shape
        A = key.shape[1]
        G = AG // A
        rows = query.reshape(B, A, G * Q, D)
        past, shared = self.past, self.shared_at(layer) if self.shared else None
        biases, shown = self.bias(window), self.shown_at(layer)
        plain = softcap is None and self.weights is None and self.queries is None
        if plain and past is None and biases[1] is None and shown is None and fused.serves(query, key, value, shared):
            out = fused.attend(rows, (key, value), self._own_rows(window, G), shared)
            return out.reshape(B, AG, Q, D).transpose(1, 2).contiguous()
        products = [
            past.scores(rows, layer) if past else None,
            _times_shared(rows, shared[0].transpose(-1, -2)) if shared else None,
            rows @ key.transpose(-1, -2),
        ]
        if shown is not None:
            biases = [biases[0], shown if biases[1] is None else biases[1] + shown, biases[2]]
        scores = [
            finish(product.view(B, A, G, Q, -1), bias, softcap)
            for product, bias in zip(products, biases, strict=True)
            if product is not None
        ]
        together = torch.cat(scores, -1) if len(scores) > 1 else scores[0]
        weights = torch.softmax(together, -1).to(value.dtype).view(B, A, G * Q, -1)
        if self.weights is not None:
            self.weights[layer] = weights.view(B, AG, Q, -1)
        if self.queries is not None:
            self.queries[layer] = (query.view(B, A, G, Q, D), torch.logsumexp(together, -1))
        parts = list(torch.split(weights, [s.shape[-1] for s in scores], -1))
        out = parts.pop() @ value
        if shared:
            out = out + _times_shared(parts.pop(), shared[1])
        if past:
            out = out + past.read(parts.pop(), layer)
        return out.view(B, AG, Q, D).transpose(1, 2).contiguous()


@runtime_checkable
class Reads(Protocol):
    """What answers for the attention of every layer of a pass: ``Blocks``, or rows on shelves (``ragged``)."""

    @property
    def positions(self) -> Int[Tensor, "B Q"]: ...

    def attend(
        self,
        layer: int,
        query: Float[Tensor, "B AG Q D"],
        key: Float[Tensor, "B A Q D"],
        value: Float[Tensor, "B A Q D"],
        *,
        window: int | None,
        softcap: float | None,
    ) -> Float[Tensor, "B Q AG D"]: ...


def attend(
    module: Any,
    query: Float[Tensor, "B AG Q D"],
    key: Float[Tensor, "B A Q D"],
    value: Float[Tensor, "B A Q D"],
    attention_mask: object,  # noqa: ARG001 (ours comes with the blocks)
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    blocks: Reads | None = None,
    **_: object,
) -> tuple[Float[Tensor, "B Q AG D"], None]:
    """The attention function that ``transformers`` calls at every layer."""
    assert blocks is not None, "the engine's attention was called outside the engine"
    scaled = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    return blocks.attend(module.layer_idx, scaled, key, value, window=sliding_window, softcap=softcap), None


def finish(scores: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """Scores in fp32, capped and masked."""
    scores = scores.float()
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    return scores if bias is None else scores + bias


def _times_shared(rows: Float[Tensor, "B A R X"], shared: Float[Tensor, "S A X Y"]) -> Float[Tensor, "B A R Y"]:
    """Multiply every group of examples by its shared block: S·A products of [B/S·R, X] by [X, Y]."""
    found = fused.grouped(rows, len(shared)) @ shared
    return fused.apart(found, len(rows))


def register() -> None:
    """Make the attention known to ``transformers``; no mask is built, since ours comes with the blocks."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_args: object, **_kwargs: object) -> None:
    return None
