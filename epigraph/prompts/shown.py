"""A form of which only some vectors are shown: the others are left out of every softmax, and keep their positions.

    attention_l(q) = softmax(q · K_shown,lᵀ) V_shown,l      what follows the prompt stays where it was

The clean intervention of an ablation: nothing moves, nothing is replaced by another vector. A prompt that is shortened for
good is another thing: what follows it closes up (``without``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from epigraph.prompts.form import Embedded, Form, KeyValue


@dataclass(frozen=True)
class ShownVectors(Embedded):
    """Vectors of which those not ``shown`` are read by nobody but themselves."""

    shown: Bool[Tensor, "P"]


@dataclass(frozen=True)
class ShownKeys(KeyValue):
    """Keys and values of which those not ``shown`` at a layer are left out of its softmax."""

    shown: Bool[Tensor, "L P"]


def show(form: Form, shown: Bool[Tensor, "P"] | Bool[Tensor, "L P"]) -> Form:
    """The form with only these of its vectors: [P], or [L, P] for keys and values."""
    if isinstance(form, Embedded):
        assert shown.ndim == 1, "vectors are shown at every layer or at none"
        return ShownVectors(form.vectors, shown)
    layers = form.keys.shape[0]
    return ShownKeys(form.keys, form.values, shown if shown.ndim == 2 else shown[None].expand(layers, -1))


def without(form: Form, kept: Sequence[int]) -> Form:
    """A shorter form of only the vectors ``kept``; what follows closes up."""
    index = torch.tensor(list(kept), dtype=torch.long)
    if isinstance(form, Embedded):
        return Embedded(form.vectors[..., index, :])
    return KeyValue(form.keys[:, :, index], form.values[:, :, index])


def shown_of(form: Form, layers: int) -> Bool[Tensor, "L P"] | None:
    """Which positions are shown at which layer; None where all are."""
    if isinstance(form, ShownKeys):
        return form.shown
    if isinstance(form, ShownVectors):
        return form.shown[None].expand(layers, -1)
    return None
