"""LoRA: a trained product of rank r beside every linear layer, the base frozen.

    h = W x + (α / r) · B A x        A: [r, in], B: [out, r], B = 0 at the start; r = 8, α = 16

Source: Hu et al. 2021, section 4.1, https://arxiv.org/abs/2106.09685; PEFT's ``LoraConfig``. Differs: all linear layers
instead of the paper's query and value (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314), no dropout.
"""

from dataclasses import dataclass

from epigraph.config import setting
from epigraph.methods.rivals.rival import RivalSettings, WeightRival
from epigraph.methods.rivals.trained import Trained
from epigraph.methods.rivals.wrapping import peft_library, wrap


@dataclass(frozen=True, kw_only=True)
class LoraSettings(RivalSettings):
    """Settings of LoRA."""

    rate: float = setting(1e-3, "AdamW's learning rate")
    rank: int = setting(8, "r, the rank of a layer's change")
    alpha: int = setting(16, "α: the change is scaled by α / r")


class Lora(WeightRival[LoraSettings]):
    """PEFT's LoRA over a stock model."""

    name = "lora"
    settings_type = LoraSettings

    def _prepare(self) -> Trained:
        config = peft_library().LoraConfig(
            task_type="CAUSAL_LM",
            r=self.settings.rank,
            lora_alpha=self.settings.alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in self.base.model.modules()),  # GPT-2's linear layers
        )
        model = wrap(self.base.model, config)
        for module in model.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = False  # autocast does it: PEFT would go to fp32 and back at every layer
        return Trained(model)

    def _backward(self, forward: int, tokens: int) -> int:
        """Through the frozen weights, and to A and B."""
        return forward + 2 * tokens * self.trained_parameters
