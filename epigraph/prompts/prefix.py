"""Prefix tuning with its network: keys and values of every layer come out of a network that is gone after training.

    [K_l ; V_l] = r_l · (s_l + MLP(e)_l − MLP₀(e₀)_l)        e: [P, W], MLP: W → W → 2·L·A·D

MLP is Linear–tanh–Linear; s_l is the start in units of its rms r_l. Source: Li & Liang 2021, section 4.3,
https://arxiv.org/abs/2101.00190; in PEFT ``prefix_projection=True``.
Differs: 128 wide instead of 512 to 800, since the network is saved at every stop; its output is shifted by what it said
before the first step, so that the prompt begins at the keys and values of a real text. Rate: e and weights are in units of
their own rms; one step moves all layers at once, hence a tenth of the rate of ``token``.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from epigraph.prompts.form import Form, KeyValue
from epigraph.prompts.kv import layer_rms
from epigraph.prompts.network import Network
from epigraph.prompts.soft import SoftPrompt, Supply
from epigraph.prompts.token import rms

WIDTH = 128


class PrefixPrompt(SoftPrompt):
    """Hold a small embedding a position, and one network for all blocks."""

    kind = "prefix"
    start_form = KeyValue
    default_rate: ClassVar[float] = 0.01

    def __init__(self, start: Sequence[KeyValue], seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        L, A, _, D = start[0].keys.shape
        self.shape = (2, L, A, D)
        self.network = Network([WIDTH, WIDTH, 2 * L * A * D], torch.tanh, generator)
        self.embeddings = nn.ParameterList()
        for number, form in enumerate(start):
            drawn = torch.randn(form.length, WIDTH, generator=generator)
            self.embeddings.append(nn.Parameter(drawn / rms(drawn)))
            block = torch.stack([form.keys, form.values]).detach().float()  # [2, L, A, P, D]
            with torch.no_grad():
                said = self._said(self.embeddings[number])
            self.register_buffer(f"unit{number}", layer_rms(block))
            self.register_buffer(f"shift{number}", block / layer_rms(block) - said)

    @classmethod
    def begin(cls, start: Sequence[Form], supply: Supply) -> SoftPrompt:
        """With a network drawn at the seed."""
        return cls(start, supply.seed)  # type: ignore[arg-type]

    def _said(self, embedding: Float[Tensor, "P W"]) -> Float[Tensor, "2 L A P D"]:
        """The network's output as keys and values."""
        said: Tensor = self.network(embedding)
        return said.view(len(embedding), *self.shape).permute(1, 2, 3, 0, 4)

    def form(self, query: object = None) -> list[Form]:  # noqa: ARG002 (the contract of every kind)
        """What the network says, shifted and scaled, block by block."""
        blocks = [
            (self._said(e) + self.get_buffer(f"shift{i}")) * self.get_buffer(f"unit{i}")
            for i, e in enumerate(self.embeddings)
        ]
        return [KeyValue(block[0], block[1]) for block in blocks]
