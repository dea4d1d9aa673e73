"""Progressive prompts: every task's prompt stands behind those of the tasks before it, which are frozen.

    [x ; P_1 ; … ; P_k]        only P_k is trained on task k

Source: Razdaibiedina et al. 2023, section 3, https://arxiv.org/abs/2301.12314. Differs: oldest first (their code puts the newest
first), so that in a causal model the older prompts' keys and values do not depend on the newer; as keys and values they are
stored and nothing is ever computed for them again. The prompt folds into a plain one of k · P vectors.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from epigraph.prompts import Embedded, Form, KeyValue, SoftPrompt


class ProgressivePrompt(SoftPrompt):
    """``own`` is trained; ``older`` are the forms of all earlier tasks, one a block, frozen."""

    kind = "progressive"
    start_form = KeyValue
    default_rate: ClassVar[float] = 0.04

    def __init__(self, own: SoftPrompt, older: Sequence[Form]) -> None:
        super().__init__()
        assert not own.needs_query, "progressive prompts are plain ones"
        self.own = own
        for number, form in enumerate(older):
            tensor = form.vectors if isinstance(form, Embedded) else torch.stack([form.keys, form.values])
            self.register_buffer(f"older{number}", tensor.detach().float())

    def form(self, query: object = None) -> list[Form]:  # noqa: ARG002 (the contract of every kind)
        """Older vectors, then its own, block by block."""
        return [self._joined(self.get_buffer(f"older{number}"), form) for number, form in enumerate(self.own.form())]

    def _joined(self, older: Tensor, own: Form) -> Form:
        if isinstance(own, Embedded):
            return Embedded(torch.cat([older, own.vectors]))
        return KeyValue(torch.cat([older[0], own.keys], -2), torch.cat([older[1], own.values], -2))
