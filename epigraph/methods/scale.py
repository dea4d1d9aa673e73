"""The loss of labels with an order: a far mistake costs more than a near one.

    −log p(y)  +  Σ_{k < C−1} (P(rank ≤ k) − [y ≤ k])²

The second term is the ranked probability score: Epstein 1969, https://doi.org/10.1175/1520-0450(1969)008<0985:ASSFPF>2.0.CO;2.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def far_loss(scores: Float[Tensor, "B C"], labels: Sequence[int]) -> Float[Tensor, "B"]:
    """The loss of every row from the log probabilities of all labels, lowest first, and the right ones' ranks."""
    right = torch.tensor(list(labels), device=scores.device)
    below = scores.exp().cumsum(1)[:, :-1]
    at_least = (right[:, None] <= torch.arange(scores.shape[1] - 1, device=scores.device)[None]).float()
    return -scores.gather(1, right[:, None])[:, 0] + ((below - at_least) ** 2).sum(1)
