"""Residual prompt tuning: P trained vectors with a network beside them that is gone after training.

    p = r · (u + Φ(u) − Φ₀(u₀))        Φ(u) = W_up ReLU(W_down u + b) + c        u: [P, H], W_down: [b, H]

Source: Razdaibiedina et al. 2023, section 3, https://arxiv.org/abs/2305.03937.
Differs: one network for all vectors, 128 wide (the paper tries up to 800), without its optional layer norm; its output is
shifted by what it said before the first step, so that the prompt begins at its start. Rate: the vectors move as those of
``token`` do, while the network moves all of them together: half of that kind's 0.1.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from epigraph.prompts.form import Embedded, Form
from epigraph.prompts.network import Network
from epigraph.prompts.soft import SoftPrompt, Supply
from epigraph.prompts.token import rms

WIDTH = 128


class ResidualPrompt(SoftPrompt):
    """Hold the vectors in units of their start's rms, and one network for all blocks."""

    kind = "residual"
    start_form = Embedded
    default_rate: ClassVar[float] = 0.05

    def __init__(self, start: Sequence[Embedded], seed: int = 0) -> None:
        super().__init__()
        hidden = start[0].vectors.shape[-1]
        self.network = Network([hidden, WIDTH, hidden], torch.relu, torch.Generator().manual_seed(seed))
        self.vectors = nn.ParameterList(form.vectors.detach().float() / rms(form.vectors) for form in start)
        for number, form in enumerate(start):
            with torch.no_grad():
                said = self.network(self.vectors[number])
            self.register_buffer(f"unit{number}", rms(form.vectors))
            self.register_buffer(f"said{number}", said)

    @classmethod
    def begin(cls, start: Sequence[Form], supply: Supply) -> SoftPrompt:
        """With a network drawn at the seed."""
        return cls(start, supply.seed)  # type: ignore[arg-type]

    def form(self, query: object = None) -> list[Form]:  # noqa: ARG002 (the contract of every kind)
        """The vectors and what the network adds to them, block by block."""
        return [
            Embedded((u + self.network(u) - self.get_buffer(f"said{i}")) * self.get_buffer(f"unit{i}"))
            for i, u in enumerate(self.vectors)
        ]
