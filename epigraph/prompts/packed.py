"""A form as one tensor and back, and the unit in which it is trained: for kinds that take vectors or keys and values alike.

packed = [P, H] | [2, L, A, P, D]        with an axis B in front where it depends on the input
"""

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.prompts.form import Embedded, Form, KeyValue
from epigraph.prompts.kv import layer_rms
from epigraph.prompts.token import rms

VECTORS, KEYS_AND_VALUES = 2, 5  # axes of a packed form that does not depend on the input


def pack(form: Form) -> Float[Tensor, "*X P D"]:
    """The form as one fp32 tensor without gradient."""
    tensor = form.vectors if isinstance(form, Embedded) else torch.stack([form.keys, form.values])
    return tensor.detach().float()


def unpack(packed: Float[Tensor, "*X P D"]) -> Form:
    """The form of a packed tensor, of one for each input where it has an axis more."""
    if packed.ndim in (VECTORS, VECTORS + 1):
        return Embedded(packed)
    if packed.ndim == KEYS_AND_VALUES:
        return KeyValue(packed[0], packed[1])
    return KeyValue(packed[:, 0], packed[:, 1])


def unit_of(packed: Float[Tensor, "*X P D"]) -> Tensor:
    """The root mean square that its numbers are trained in units of: of the table, or of each layer's keys and values."""
    return rms(packed) if packed.ndim == VECTORS else layer_rms(packed)


def is_packed(tensor: Tensor, axes: int = 0) -> bool:
    """Whether a tensor can be a packed form, behind so many axes of other meaning."""
    return tensor.ndim - axes in (VECTORS, KEYS_AND_VALUES)
