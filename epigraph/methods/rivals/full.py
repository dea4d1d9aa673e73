"""Full fine-tuning: every weight is trained.

    θ ← θ − AdamW(∇ loss)        θ in fp32; products in the base's dtype (autocast)

Source: mixed precision with fp32 weights: Micikevicius et al. 2018, section 3.1, https://arxiv.org/abs/1710.03740.
"""

from dataclasses import dataclass

import torch

from epigraph.base import Base
from epigraph.config import setting
from epigraph.methods.rivals.rival import RivalSettings, WeightRival
from epigraph.methods.rivals.trained import Trained


@dataclass(frozen=True, kw_only=True)
class FullSettings(RivalSettings):
    """Settings of full fine-tuning."""

    rate: float = setting(5e-5, "AdamW's learning rate")


class FullFineTuning(WeightRival[FullSettings]):
    """A stock model, all of it trained."""

    name = "full"
    settings_type = FullSettings

    def _prepare(self) -> Trained:
        self.base.model.requires_grad_(True)
        return Trained(self.base.model)

    def _dtype(self, base: Base) -> torch.dtype:  # noqa: ARG002
        return torch.float32

    def _backward(self, forward: int, tokens: int) -> int:  # noqa: ARG002
        """To the activations and to the weights."""
        return 2 * forward

    @property
    def kept_bytes(self) -> int:
        """A whole model in the base's dtype."""
        return self.trained_parameters * self.base.dtype.itemsize
