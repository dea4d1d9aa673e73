"""What the engine receives from any kind: one form a ``{prompt}`` block.

    Embedded   vectors at the embedding layer               [P, H]      (Lester et al. 2021, https://arxiv.org/abs/2104.08691)
    KeyValue   keys and values at every attention layer     [L, A, P, D] (Li & Liang 2021, https://arxiv.org/abs/2101.00190)

Nobody asks a prompt for its kind; everybody asks it for its forms. Stored keys are already rotated, as if at positions
0…P−1 (the convention of PEFT's prefix tuning).
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Embedded:
    """P vectors that stand in the sequence like embedded tokens; [B, P, H] for kinds that depend on the input."""

    vectors: Float[Tensor, "*B P H"]

    @property
    def length(self) -> int:
        """P, the positions the block takes."""
        return self.vectors.shape[-2]


@dataclass(frozen=True)
class KeyValue:
    """Keys and values of P positions at every layer, as the attention reads them."""

    keys: Float[Tensor, "L A P D"]
    values: Float[Tensor, "L A P D"]

    @property
    def length(self) -> int:
        """P, the positions the block takes."""
        return self.keys.shape[2]


Form = Embedded | KeyValue
