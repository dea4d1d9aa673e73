"""Prefix tuning: P trained keys and values at every attention layer, the base frozen.

    attention_l(q) = softmax(q · [K_text ; K_p,l ; K_own]ᵀ) [V_text ; V_p,l ; V_own]      K_p,l = u · r_l    u: [A, P, D]

Source: Li & Liang 2021, section 4, https://arxiv.org/abs/2101.00190.
Differs: no MLP in training (Liu et al. 2021, https://arxiv.org/abs/2110.07602, found it needless); the start is the keys
and values of a real text; each layer's keys and values are trained in units of that start's rms r_l, since layers
differ by an order of magnitude.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from epigraph.prompts.form import Form, KeyValue
from epigraph.prompts.soft import SoftPrompt


class KvPrompt(SoftPrompt):
    """Hold keys and values of every layer in units of their start's rms."""

    kind = "kv"
    start_form = KeyValue
    default_rate: ClassVar[float] = 0.1

    def __init__(self, start: Sequence[KeyValue]) -> None:
        super().__init__()
        stacked = [torch.stack([form.keys, form.values]).detach().float() for form in start]  # [2, L, A, P, D]
        for number, block in enumerate(stacked):
            self.register_buffer(f"unit{number}", layer_rms(block))
        self.blocks = nn.ParameterList(block / layer_rms(block) for block in stacked)

    def form(self, query: object = None) -> list[Form]:  # noqa: ARG002 (the contract of every kind)
        """The keys and values of each block."""
        scaled = [block * self.get_buffer(f"unit{number}") for number, block in enumerate(self.blocks)]
        return [KeyValue(block[0], block[1]) for block in scaled]


def layer_rms(block: Float[Tensor, "2 L A P D"]) -> Float[Tensor, "2 L 1 1 1"]:
    """Root mean square of each layer's keys and of its values; 1 where a layer is all zero."""
    rms = block.pow(2).mean(dim=(2, 3, 4), keepdim=True).sqrt()
    return torch.where(rms > 0, rms, 1.0)
