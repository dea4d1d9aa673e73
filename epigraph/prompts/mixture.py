"""Attention over the prompts of other tasks, chosen anew for every input.

    P(x) = Σ_j a_j(x) P_j        a(x) = softmax_j(h(q) · k_j / √r)        h(q) = LN(W_up silu(W_down q))      j: sources, target

Source: Asai et al. 2022 (ATTEMPT), section 3, https://arxiv.org/abs/2205.11961; in the code the temperature is d·e. Differs: q is the
frozen query (the base's own mean state of the input, which is there anyway) instead of pooled embeddings; the keys k_j are
trained, since keys and values have no vector to pool; the target's prompt is one of the summands instead of being added on
top, so that the sum stays as large as one prompt.

The sources are frozen. What is trained is the target's prompt P_0, the keys, and h.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from epigraph.prompts.form import Form, KeyValue
from epigraph.prompts.packed import is_packed, pack, unit_of, unpack
from epigraph.prompts.soft import SoftPrompt

NARROW, WIDE = 32, 64
KEY_SIZE = 0.1  # of the keys' first values: attention starts near uniform, but not at a point without gradient


class MixturePrompt(SoftPrompt):
    """Hold the target's prompt in units of its start's rms, the frozen sources, and the attention."""

    kind = "mixture"
    start_form = KeyValue
    needs_query = True
    alone = False
    default_rate: ClassVar[float] = 0.04
    center: Tensor
    scale: Tensor

    def __init__(self, start: Sequence[Form], sources: Sequence[Sequence[Form]] = (), *, hidden: int = 1) -> None:
        super().__init__()
        packed = [pack(form) for form in start]
        for number, block in enumerate(packed):
            self.register_buffer(f"unit{number}", unit_of(block))
            others = [pack(forms[number % len(forms)]) for forms in sources]
            self.register_buffer(f"sources{number}", torch.stack(others) if others else block.new_zeros(0, *block.shape))
        self.own = nn.ParameterList(block / unit_of(block) for block in packed)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("center", torch.zeros(hidden))
        self.register_buffer("scale", torch.ones(hidden))
        self.down = nn.Parameter(torch.randn(NARROW, hidden, generator=generator) / hidden**0.5)
        self.up = nn.Parameter(torch.randn(WIDE, NARROW, generator=generator) / NARROW**0.5)
        self.keys = nn.Parameter(KEY_SIZE * torch.randn(1 + len(sources), WIDE, generator=generator))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "MixturePrompt":
        """The prompt with this state."""
        blocks = [state[f"own.{n}"] for n in range(sum(name.startswith("own.") for name in state))]
        if not blocks or not all(is_packed(block) for block in blocks):
            raise ValueError("it holds no prompt of its own")
        count = len(state["sources0"])
        sources = [[unpack(torch.zeros_like(block)) for block in blocks] for _ in range(count)]
        made = cls([unpack(block) for block in blocks], sources, hidden=len(state["center"]))
        made.load_state_dict(dict(state))
        return made

    @property
    def lengths(self) -> list[int]:
        """P of every block."""
        return [block.shape[-2] for block in self.own]

    def prepare(self, queries: Float[Tensor, "N H"], neutral: Float[Tensor, "M H"]) -> None:  # noqa: ARG002
        """Queries are centred and scaled by those of neutral texts."""
        self.center, self.scale = neutral.mean(0), neutral.std(0).clamp(min=1e-6)

    def weights(self, query: Float[Tensor, "B H"]) -> Float[Tensor, "B J"]:
        """a(x): the target's weight, then every source's."""
        inner = torch.nn.functional.silu((query - self.center) / self.scale @ self.down.T)
        h = torch.nn.functional.layer_norm(inner @ self.up.T, (WIDE,))
        return torch.softmax(h @ self.keys.T / WIDE**0.5, -1)

    def form(self, query: Float[Tensor, "B H"] | None = None) -> list[Form]:
        """The weighted sum of each block, for every input."""
        assert query is not None, "a mixture is asked with the frozen query"
        weights = self.weights(query.float())
        return [unpack(self._mixed(number, weights)) for number in range(len(self.own))]

    def _mixed(self, number: int, weights: Float[Tensor, "B J"]) -> Tensor:
        own = self.own[number] * self.get_buffer(f"unit{number}")
        return torch.einsum("bj,j...->b...", weights, torch.cat([own[None], self.get_buffer(f"sources{number}")]))
