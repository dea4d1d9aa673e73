"""Multitask prompt tuning: one prompt that all tasks share, times a rank-one change for each task.

    P_k = P* ∘ (u_k ⊗ v_k)        P*: [P, H] or [2, L, A, P, D]     u_k: [P]     v_k: all axes of P* but P;  u = v = 1 at the start

Source: Wang et al. 2023, section 3, https://arxiv.org/abs/2303.02861. Differs: u and v start at one, so that every task starts
at the shared prompt (PEFT draws them near zero, which makes the product vanish); besides vectors it takes keys and values of
every layer, where v has one number for each layer, head and dimension; P* is trained in units of the start's rms.

Tuned alone it is a prompt like any other. Several tasks share P* through ``for_another_task``.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from epigraph.prompts.form import Form, KeyValue
from epigraph.prompts.packed import pack, unit_of, unpack
from epigraph.prompts.soft import SoftPrompt


class MultitaskPrompt(SoftPrompt):
    """Hold the shared prompt in units of its start's rms, and the factors of one task."""

    kind = "multitask"
    start_form = KeyValue
    default_rate: ClassVar[float] = 0.04

    def __init__(self, start: Sequence[Form]) -> None:
        super().__init__()
        packed = [pack(form) for form in start]
        for number, block in enumerate(packed):
            self.register_buffer(f"unit{number}", unit_of(block))
        self.shared = nn.ParameterList(block / unit_of(block) for block in packed)
        self._begin_factors()

    def _begin_factors(self) -> None:
        self.rows = nn.ParameterList(torch.ones(block.shape[-2]) for block in self.shared)
        self.columns = nn.ParameterList(torch.ones(*block.shape[:-2], 1, block.shape[-1]) for block in self.shared)

    def for_another_task(self) -> "MultitaskPrompt":
        """A prompt with the same shared part, the parameter itself, and factors of its own."""
        other = MultitaskPrompt.__new__(MultitaskPrompt)
        nn.Module.__init__(other)
        for name, unit in self.named_buffers():
            other.register_buffer(name, unit)
        other.shared = self.shared
        other._begin_factors()
        return other

    @property
    def factors(self) -> list[nn.Parameter]:
        """u and v of every block: what belongs to the task alone."""
        return [*self.rows, *self.columns]

    def form(self, query: object = None) -> list[Form]:  # noqa: ARG002 (the contract of every kind)
        """The product of each block."""
        return [self._form(number, *pair) for number, pair in enumerate(zip(self.rows, self.columns, strict=True))]

    def _form(self, number: int, rows: Tensor, columns: Tensor) -> Form:
        return unpack(self.shared[number] * rows[:, None] * columns * self.get_buffer(f"unit{number}"))


def universal(prompts: Sequence[MultitaskPrompt]) -> list[Form]:
    """Where a new task starts: the shared prompt times the mean factors of the tasks (ibid., section 3.3)."""
    first = prompts[0]
    with torch.no_grad():
        pairs = [
            (
                torch.stack([p.rows[n] for p in prompts]).mean(0),
                torch.stack([p.columns[n] for p in prompts]).mean(0),
            )
            for n in range(len(first.shared))
        ]
        return [first._form(number, *pair) for number, pair in enumerate(pairs)]
