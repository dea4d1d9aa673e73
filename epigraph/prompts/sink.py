"""Prefix tuning whose first vector is frozen: the keys and values on which attention rests when it seeks nothing.

    [K_l ; V_l] = [first_l ; r_l · u_l]        first: as the start left it, u: [2, A, P−1, D]

Source: Eyuboglu et al. 2025 (Cartridges), section 3.2, https://arxiv.org/abs/2506.06266: training that moves the first
position, the attention sink, is unstable; in PEFT ``num_frozen_tokens=1``.
Differs: the rest is in units of its own rms r_l, without the sink, whose keys and values are of another size. Rate: that of
``kv``.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from epigraph.errors import ConfigError
from epigraph.prompts.form import Form, KeyValue
from epigraph.prompts.kv import KvPrompt, layer_rms
from epigraph.prompts.soft import SoftPrompt


class SinkPrompt(SoftPrompt):
    """Hold each block's first vector as it is, and the others in units of their start's rms."""

    kind = "sink"
    start_form = KeyValue
    default_rate: ClassVar[float] = KvPrompt.default_rate

    def __init__(self, start: Sequence[KeyValue]) -> None:
        super().__init__()
        if min(form.length for form in start) < 2:
            raise ConfigError("a sink prompt of 1 vector has nothing to train: its first is frozen.", "Ask for --length 2.")
        self.blocks = nn.ParameterList()
        for number, form in enumerate(start):
            block = torch.stack([form.keys, form.values]).detach().float()  # [2, L, A, P, D]
            rest = block[:, :, :, 1:]
            self.register_buffer(f"first{number}", block[:, :, :, :1].clone())
            self.register_buffer(f"unit{number}", layer_rms(rest))
            self.blocks.append(nn.Parameter(rest / layer_rms(rest)))

    def form(self, query: object = None) -> list[Form]:  # noqa: ARG002 (the contract of every kind)
        """The frozen vector and the trained ones of each block."""
        joined = [
            torch.cat([self.get_buffer(f"first{i}"), block * self.get_buffer(f"unit{i}")], 3)
            for i, block in enumerate(self.blocks)
        ]
        return [KeyValue(block[0], block[1]) for block in joined]
