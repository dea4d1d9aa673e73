"""``peft`` prefix tuning: trained keys and values of P positions before the text at every layer, the base frozen.

    a = softmax(q [K_p ; K]ᵀ) [V_p ; V]        K_p, V_p: [L, A, P, D], started from N(0, 1)

Source: Li & Liang 2021, section 4, https://arxiv.org/abs/2101.00190; PEFT's ``PrefixTuningConfig`` with its default start
and without the paper's reparameterisation, as PEFT has it by default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from epigraph.config import setting
from epigraph.methods.rivals.rival import PromptRival, RivalSettings
from epigraph.methods.rivals.trained import Trained
from epigraph.methods.rivals.wrapping import peft_library, wrap
from epigraph.prompts import Form, KeyValue


@dataclass(frozen=True, kw_only=True)
class PrefixTuningSettings(RivalSettings):
    """Settings of prefix tuning."""

    rate: float = setting(1e-2, "AdamW's learning rate")
    virtual_tokens: int = setting(8, "P, positions before the text")


class PeftPrefixTuning(PromptRival[PrefixTuningSettings]):
    """PEFT's prefix over a stock model."""

    name = "peft-prefix"
    settings_type = PrefixTuningSettings
    model: Any

    def _prepare(self) -> Trained:
        config = peft_library().PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=self.settings.virtual_tokens)
        self.model = wrap(self.base.model, config)
        return Trained(self.model, self._forms)

    def _forms(self) -> Sequence[Form]:
        rows: Tensor = self.model.prompt_encoder["default"].embedding.weight  # [P, L*2*A*D]
        both = rows.view(len(rows), self.base.layers, 2, self.base.heads, self.base.head_size)
        keys, values = both.permute(2, 1, 3, 0, 4)  # [L, A, P, D] each
        return [KeyValue(keys, values)]

    def _states(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T H"]:
        past = self.model.get_prompt(batch_size=len(ids))
        found: Tensor = self.base.trunk(input_ids=ids, use_cache=False, **self.base.past(past)).last_hidden_state
        return found

    @property
    def _virtual(self) -> int:
        return self.settings.virtual_tokens
