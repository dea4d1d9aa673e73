"""Context-aware prompt tuning: a few-shot context of real examples, every token moved a little and never far.

    p_i = x_i + r · d_i,   ‖d_i‖ ≤ ε √H        x: the context's tokens, r: their rms; d_i = 0 for an answer's tokens

After every step d_i is taken back to the ball. Source: Blau et al. 2024, sections 3.2 and 3.3,
https://arxiv.org/abs/2410.17222: instruction, format and inputs of the examples move, their answers stay what they are.
Differs: one radius for inputs and format, in units of the tokens' rms (PEFT's 0.1 √(H/2048) is about that for tables of
Llama's size); the loss is that of the rows alone, not of the context's own answers as well. Rate: a tenth of the radius, so
that a token reaches the edge in ten steps one way and not in one.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from epigraph.prompts.form import Embedded, Form
from epigraph.prompts.soft import SoftPrompt, Supply
from epigraph.prompts.token import rms

RADIUS = 0.2


class ContextPrompt(SoftPrompt):
    """Hold the context as it is and the offsets in units of its rms."""

    kind = "context"
    start_form = Embedded
    default_rate: ClassVar[float] = RADIUS / 10
    default_start: ClassVar[str] = "examples"
    default_length: ClassVar[int | None] = 128
    default_place: ClassVar[str] = "first"

    def __init__(self, start: Sequence[Embedded], answers: Sequence[Bool[Tensor, "P"]] = ()) -> None:
        super().__init__()
        self.offsets = nn.ParameterList(nn.Parameter(torch.zeros(form.vectors.shape)) for form in start)
        for number, form in enumerate(start):
            moves = ~answers[number] if number < len(answers) else torch.ones(form.length, dtype=torch.bool)
            self.register_buffer(f"context{number}", form.vectors.detach().float().clone())
            self.register_buffer(f"reach{number}", moves[:, None] * rms(form.vectors))

    @classmethod
    def begin(cls, start: Sequence[Form], supply: Supply) -> SoftPrompt:
        """With the answers of its examples, which do not move."""
        return cls(start, supply.answers)  # type: ignore[arg-type]

    def form(self, query: object = None) -> list[Form]:  # noqa: ARG002 (the contract of every kind)
        """The context with its offsets."""
        return [
            Embedded(self.get_buffer(f"context{i}") + offsets * self.get_buffer(f"reach{i}"))
            for i, offsets in enumerate(self.offsets)
        ]

    @torch.no_grad()
    def after_step(self) -> None:
        """Take every offset back to its ball."""
        for offsets in self.offsets:
            size = offsets.pow(2).mean(-1, keepdim=True).sqrt()
            offsets.mul_(RADIUS / size.clamp(min=RADIUS))
