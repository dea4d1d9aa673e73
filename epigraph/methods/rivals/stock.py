"""A base's own copy of the stock model, to be trained as its library would: stock attention, dropout off.

    frozen weights   in the base's dtype        trained   fp32, under autocast where the base is in half precision

The base that prompts stand on is never trained: a rival works on a model of its own.
"""

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch

from epigraph.base import Base, load_base
from epigraph.base.load import freeze

ATTENTION = "sdpa"


def stock_base(base: Base, dtype: torch.dtype) -> Base:
    """The same base around another copy of its model with weights in ``dtype``, all frozen.

    Loaded anew from its folder, so that fp32 weights are those on disk and not rounded ones; copied where it has none.
    """
    if base.path is None:
        model = copy.deepcopy(base.model).to(dtype)
    else:
        name = str(dtype).removeprefix("torch.")
        model = load_base(base.path, dtype=name, device=str(base.device)).model
    freeze(model)
    model.set_attn_implementation(ATTENTION)
    return replace(base, model=model)


def autocast(base: Base) -> AbstractContextManager[object]:
    """Products in the base's dtype, whatever the dtype of the weights; nothing at all in fp32."""
    if base.dtype == torch.float32:
        return nullcontext()
    return torch.autocast(base.device.type, base.dtype)
