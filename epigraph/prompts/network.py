"""The small network that some prompts are trained through and that is gone after training.

    y = W_n a(… a(W_1 x + b_1) …) + b_n        W = u · r, r: the rms of W's first values

Every weight is held in units of its own first rms, like everything that is trained here, so that one learning rate means
the same for vectors and for weights. First values are uniform in ±1/√(inputs), as ``torch.nn.Linear`` draws them.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Network(nn.Module):
    """Linear layers of these widths with an activation between them."""

    def __init__(self, widths: Sequence[int], activation: Callable[[Tensor], Tensor], generator: torch.Generator) -> None:
        super().__init__()
        self.activation = activation
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for number, (inputs, outputs) in enumerate(pairwise(widths)):
            for kept, name, shape in ((self.weights, "weight", (outputs, inputs)), (self.biases, "bias", (outputs,))):
                drawn = (2 * torch.rand(shape, generator=generator) - 1) * inputs**-0.5
                unit = drawn.pow(2).mean().sqrt()
                kept.append(nn.Parameter(drawn / unit))
                self.register_buffer(f"{name}_unit{number}", unit)

    def forward(self, x: Float[Tensor, "P I"]) -> Float[Tensor, "P O"]:
        """The network's output for each row."""
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = self.activation(x) if number else x
            scaled = weight * self.get_buffer(f"weight_unit{number}"), bias * self.get_buffer(f"bias_unit{number}")
            x = nn.functional.linear(x, *scaled)
        return x
