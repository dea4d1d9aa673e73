"""What every kind of prompt is: a module whose parameters are trained and whose ``form`` the engine reads.

A kind is one file: its class, its paper, one line in ``KINDS``. A kind says in ``start_form`` from what it starts
(vectors or keys and values), and in ``needs_query`` whether its forms depend on the input.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from epigraph.prompts.form import Embedded, Form, KeyValue


class SoftPrompt(nn.Module):
    """A prompt in training: one form a ``{prompt}`` block."""

    kind: ClassVar[str]
    start_form: ClassVar[type[Embedded] | type[KeyValue]]
    needs_query: ClassVar[bool] = False
    default_rate: ClassVar[float]

    def form(self, query: Float[Tensor, "B H"] | None = None) -> Sequence[Form]:
        """One form a block, with gradient; ``query`` is the frozen query where the kind needs one."""
        raise NotImplementedError

    @torch.no_grad()
    def fold(self) -> list[Form]:
        """The plain forms to keep: fp32, on the CPU, without gradient or anything that served training only."""
        return [_detached(form) for form in self.form()]

    @property
    def trained_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def _detached(form: Form) -> Form:
    if isinstance(form, Embedded):
        return Embedded(form.vectors.detach().float().cpu().contiguous())
    return KeyValue(form.keys.detach().float().cpu().contiguous(), form.values.detach().float().cpu().contiguous())
