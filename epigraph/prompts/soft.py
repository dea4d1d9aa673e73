"""What every kind of prompt is: a module whose parameters are trained and whose ``form`` the engine reads.

A kind is one file: its class, its paper, one line in ``KINDS``. It says

    start_form     from what it starts: vectors, or keys and values
    needs_query    whether its forms depend on the input: then it is stored whole, as its state, and rebuilt from it
    default_…      the rate, and where it has its own: the start, the length, the place
    begin          how it is made of its start, where it needs more than that (see ``Supply``)
    after_step     what happens after every step of the optimiser, where anything does
    alone          whether it can be tuned by itself, without the prompts of other tasks
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from epigraph.prompts.form import AnyForm, Dependent, Embedded, Form, KeyValue


@dataclass(frozen=True, kw_only=True)
class Supply:
    """What a kind may take besides its start; what it does not take is not computed.

    ``vocabulary`` gives so many different rows of the embedding table, drawn from the frequent tokens. ``answers`` has one
    mask a block: which of its first vectors are the answers of examples, where the start is examples. ``hidden`` is the size
    of a frozen query.
    """

    seed: int = 0
    hidden: int = 1
    vocabulary: Callable[[int], Float[Tensor, "S H"]] | None = None
    answers: Sequence[Bool[Tensor, "P"]] = ()

    @property
    def generator(self) -> torch.Generator:
        """A new generator at the seed."""
        return torch.Generator().manual_seed(self.seed)


class SoftPrompt(nn.Module):
    """A prompt in training: one form a ``{prompt}`` block."""

    kind: ClassVar[str]
    start_form: ClassVar[type[Embedded] | type[KeyValue]]
    needs_query: ClassVar[bool] = False
    default_rate: ClassVar[float]
    default_start: ClassVar[str] = "text"
    default_length: ClassVar[int | None] = None
    default_place: ClassVar[str] = "template"
    alone: ClassVar[bool] = True

    @classmethod
    def begin(cls, start: Sequence[Form], supply: Supply) -> "SoftPrompt":  # noqa: ARG003 (for the kinds that take from it)
        """The prompt with its first values, one form a block."""
        return cls(start)

    def form(self, query: Float[Tensor, "B H"] | None = None) -> Sequence[Form]:
        """One form a block, with gradient; ``query`` is the frozen query where the kind needs one."""
        raise NotImplementedError

    def offer(self) -> list[AnyForm]:
        """What the engine is given, with gradient: the forms, or blocks that it asks with the frozen query of its rows."""
        if not self.needs_query:
            return list(self.form())
        return [Dependent(self, number, length) for number, length in enumerate(self.lengths)]

    @property
    def lengths(self) -> list[int]:
        """P of every block."""
        return [form.length for form in self.form()]

    def prepare(self, queries: Float[Tensor, "N H"], neutral: Float[Tensor, "M H"]) -> None:
        """Take from the frozen queries of the training rows, and of neutral texts, what the start depends on."""

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "SoftPrompt":
        """The prompt with this state; for kinds that are stored whole. ValueError, KeyError or RuntimeError if it is none."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after every step of the optimiser: what must hold of the parameters is made to hold."""

    @torch.no_grad()
    def fold(self) -> list[AnyForm]:
        """What to keep: fp32, on the CPU, without gradient; plain forms wherever they do not depend on the input."""
        if self.needs_query:
            return copy.deepcopy(self).float().cpu().requires_grad_(False).offer()
        return [_detached(form) for form in self.form()]

    @property
    def trained_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def _detached(form: Form) -> Form:
    if isinstance(form, Embedded):
        return Embedded(form.vectors.detach().float().cpu().contiguous())
    return KeyValue(form.keys.detach().float().cpu().contiguous(), form.values.detach().float().cpu().contiguous())
