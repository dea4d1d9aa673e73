"""The numbers of a stored prompt that a correction moves, and how the margins of rows change with them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.correct.margins import Margins
from epigraph.prompts import Form
from epigraph.prompts.packed import pack, unit_of, unpack

Vector = Float[Tensor, "X"]
Values = Float[Tensor, "N"]
Jacobian = Float[Tensor, "N X"]


class Vectors:
    """Stored forms as one vector of numbers in units of each table's, or layer's, rms; ``shared`` blocks are one."""

    def __init__(self, forms: Sequence[Form], device: torch.device, *, shared: bool = False) -> None:
        self.copies = len(forms) if shared else 1
        own = forms[:1] if shared else forms
        self.old = [pack(form).to(device) for form in own]
        self.units = [unit_of(packed) for packed in self.old]

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return sum(packed.numel() for packed in self.old)

    def at(self, moved: Vector) -> list[Tensor]:
        """The packed blocks after this move."""
        parts = torch.split(moved, [packed.numel() for packed in self.old])
        return [old + part.view_as(old) * unit for old, part, unit in zip(self.old, parts, self.units, strict=True)]

    def forms(self, moved: Vector) -> list[Form]:
        """The forms after this move, one a block."""
        return [unpack(packed) for packed in self.at(moved)] * self.copies

    def gradient(self, margins: Margins, moved: Vector) -> tuple[Jacobian, Values]:
        """Every row's margin after this move, and its gradient: each row reads a copy of the prompt of its own."""
        rows, values = [torch.zeros(0, self.size).to(moved)], [torch.zeros(0).to(moved).double()]
        for start in range(0, len(margins.rows), margins.at_once):
            chosen = list(range(start, min(start + margins.at_once, len(margins.rows))))
            leaves = [packed.repeat(len(chosen), *[1] * packed.ndim).requires_grad_() for packed in self.at(moved)]
            prompts = [[unpack(leaf[i]) for leaf in leaves] * self.copies for i in range(len(chosen))]
            found = margins.of(chosen, prompts)
            grads = torch.autograd.grad(found.sum(), leaves)
            rows.append(torch.cat([(g * u).flatten(1) for g, u in zip(grads, self.units, strict=True)], 1))
            values.append(found.detach().double())
        return torch.cat(rows), torch.cat(values)

    @torch.no_grad()
    def margins(self, margins: Margins, moved: Vector) -> Values:
        """Every row's margin after this move."""
        found = [
            margins.of(list(range(start, min(start + margins.at_once, len(margins.rows)))), [self.forms(moved)])
            for start in range(0, len(margins.rows), margins.at_once)
        ]
        return torch.cat([torch.zeros(0).to(moved), *found]).double()
