"""Prompt tuning: P trained vectors at the embedding layer, the base frozen.

    [embed(before) ; p ; embed(after)]        p = u · r        p: [P, H], r = rms(start)

Source: Lester et al. 2021, section 2, https://arxiv.org/abs/2104.08691.
Differs: AdamW on u, that is in units of the start's rms, instead of Adafactor at 0.3, since Llama-type tables are ten
times smaller than T5's.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from epigraph.prompts.form import Embedded, Form
from epigraph.prompts.soft import SoftPrompt


class TokenPrompt(SoftPrompt):
    """Hold the vectors in units of their start's rms, without further reparameterisation."""

    kind = "token"
    start_form = Embedded
    default_rate: ClassVar[float] = 0.1

    def __init__(self, start: Sequence[Embedded]) -> None:
        super().__init__()
        self.units = [float(form.vectors.float().pow(2).mean().sqrt()) or 1.0 for form in start]
        self.vectors = nn.ParameterList(
            form.vectors.detach().float() / unit for form, unit in zip(start, self.units, strict=True)
        )

    def form(self, query: object = None) -> list[Form]:  # noqa: ARG002 (the contract of every kind)
        """The vectors of each block."""
        return [Embedded(vectors * unit) for vectors, unit in zip(self.vectors, self.units, strict=True)]
