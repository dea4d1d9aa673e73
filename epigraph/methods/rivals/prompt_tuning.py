"""``peft`` prompt tuning: P trained vectors before the embedded text, the base frozen.

    [p ; embed(text)]        p: [P, H], started from the embedded words of the labels and the instruction

Source: Lester et al. 2021, section 2, https://arxiv.org/abs/2104.08691; PEFT's ``PromptTuningConfig`` with text start.
Differs: label-restricted loss, padding on the right (PEFT counts padding between prompt and text as positions), and the
start is copied in, so that bases without a tokenizer folder have it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from epigraph.config import setting
from epigraph.methods.rivals.rival import PromptRival, RivalSettings
from epigraph.methods.rivals.trained import Trained
from epigraph.methods.rivals.wrapping import peft_library, wrap
from epigraph.prompts import Embedded, Form
from epigraph.prompts.init import repeat_to
from epigraph.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class PromptTuningSettings(RivalSettings):
    """Settings of prompt tuning."""

    rate: float = setting(1e-2, "AdamW's learning rate")
    virtual_tokens: int = setting(20, "P, vectors before the text")


class PeftPromptTuning(PromptRival[PromptTuningSettings]):
    """PEFT's prompt over a stock model."""

    name = "peft-prompt"
    settings_type = PromptTuningSettings
    model: Any

    def _prepare(self) -> Trained:
        peft = peft_library()
        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=self.settings.virtual_tokens)
        self.model = wrap(self.base.model, config)
        with torch.no_grad():
            self._vectors.copy_(self.base.embed(torch.tensor(self._start())))
        return Trained(self.model, self._forms)

    def _start(self) -> list[int]:
        ids = self.base.tokenize(start_text(self.task)) or [self.base.end]
        return repeat_to(ids, self.settings.virtual_tokens)

    @property
    def _vectors(self) -> Float[Tensor, "P H"]:
        found: Tensor = self.model.prompt_encoder["default"].embedding.weight
        return found

    def _forms(self) -> Sequence[Form]:
        return [Embedded(self._vectors)]

    def _states(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T H"]:
        embedded = self.base.embed(ids)
        vectors = torch.cat([self.model.get_prompt(batch_size=len(ids)).to(embedded.dtype), embedded], 1)
        found: Tensor = self.base.trunk(inputs_embeds=vectors, use_cache=False).last_hidden_state
        return found[:, self.settings.virtual_tokens :]

    def _count(self, rows: int, length: int, logits: int) -> None:
        super()._count(rows, length + self.settings.virtual_tokens, logits)


def start_text(task: Task) -> str:
    """The labels' words first, since a short prompt may hold no more, then the instruction."""
    words = ", ".join(task.labels.values())
    return f"{words}. {task.instruction}" if words else task.instruction
