"""Prompt tuning: P trained vectors at the embedding layer, the base frozen.

    [embed(before) ; p ; embed(after)]        p = u · r        p: [P, H], r = rms(start)

Source: Lester et al. 2021, section 2, https://arxiv.org/abs/2104.08691.
Differs: AdamW on u, that is in units of the start's rms, instead of Adafactor at 0.3, since Llama-type tables are ten
times smaller than T5's.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from epigraph.prompts.form import Embedded, Form
from epigraph.prompts.soft import SoftPrompt


class TokenPrompt(SoftPrompt):
    """Hold the vectors in units of their start's rms, without further reparameterisation."""

    kind = "token"
    start_form = Embedded
    default_rate: ClassVar[float] = 0.1

    def __init__(self, start: Sequence[Embedded]) -> None:
        super().__init__()
        for number, form in enumerate(start):
            self.register_buffer(f"unit{number}", rms(form.vectors))
        self.vectors = nn.ParameterList(form.vectors.detach().float() / rms(form.vectors) for form in start)

    def form(self, query: object = None) -> list[Form]:  # noqa: ARG002 (the contract of every kind)
        """The vectors of each block."""
        return [Embedded(vectors * self.get_buffer(f"unit{number}")) for number, vectors in enumerate(self.vectors)]


def rms(vectors: Float[Tensor, "P H"]) -> Float[Tensor, ""]:
    """Root mean square of all entries; 1 where all are zero or there are none."""
    found = vectors.detach().float().pow(2).sum() / max(1, vectors.numel())
    return torch.where(found > 0, found.sqrt(), 1.0)
