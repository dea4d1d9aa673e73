"""Choose the next token of every sequence, and say how likely tokens were.

    p = softmax(logits / temperature) over the top_k likeliest, of those the fewest that hold top_p of the probability
    token = the first whose cumulated p exceeds u,  u uniform from the sequence's own generator

One uniform number a token, the same however often a token is chosen anew, so a seed gives the same text whatever else is in the
batch and whatever fails there. Nucleus sampling: Holtzman et al. 2020,
section 3.1, https://arxiv.org/abs/1904.09751. Log probabilities are of the base's own distribution, before temperature.
"""

import secrets
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.serve.work import Sampling, Top

LIKELIEST = 512  # tried before all of V is sorted
ROWS = 64  # positions whose logits over all of V are held at once


class Sampler:
    """How one choice draws: its settings and its own generator."""

    def __init__(self, sampling: Sampling, choice: int) -> None:
        self.sampling = sampling
        self.generator: torch.Generator | None = None
        self._number: float | None = None
        if sampling.temperature > 0:
            seed = (
                secrets.randbits(62) if sampling.seed is None else (sampling.seed + choice * 0x9E3779B97F4A7C15) % (1 << 63)
            )
            self.generator = torch.Generator().manual_seed(seed)

    def draw(self, logits: Float[Tensor, "V"]) -> int:
        """A token from these logits, by the same number until ``advance``; not for temperature 0."""
        assert self.generator is not None
        if self._number is None:
            self._number = float(torch.rand((), generator=self.generator, dtype=torch.float64))
        u = self._number
        scaled = (logits - logits.max()).double() / self.sampling.temperature
        weights, tokens = self._likeliest(scaled.exp())
        cumulated = weights.cumsum(0)
        index = int(torch.searchsorted(cumulated, u * cumulated[-1], right=True).clamp(max=len(weights) - 1))
        return index if tokens is None else int(tokens[index])

    def advance(self) -> None:
        """The token was taken: the next one has a number of its own."""
        self._number = None

    def _likeliest(self, weights: Float[Tensor, "V"]) -> tuple[Tensor, Tensor | None]:
        """The weights to draw among, and which tokens they are of; None for all."""
        top_k, top_p = self.sampling.top_k, self.sampling.top_p
        if top_k <= 0 and top_p >= 1:
            return weights, None
        most = min(top_k, len(weights)) if top_k > 0 else len(weights)
        total = weights.sum() if top_k <= 0 else None
        for size in (min(LIKELIEST, most), most):
            found, tokens = weights.topk(size)
            wanted = top_p * (total if total is not None else weights.topk(most).values.sum())
            before = found.cumsum(0) - found
            kept = int((before < wanted).sum()) if top_p < 1 else size
            if kept < size or size == most:
                return found[: max(1, kept)], tokens[: max(1, kept)]
        raise AssertionError("the last size holds all")


def choose(logits: Float[Tensor, "S V"], samplers: Sequence[Sampler]) -> list[int]:
    """The next token of every sequence."""
    tokens: list[int] = logits.argmax(-1).tolist()
    return [t if s.generator is None else s.draw(row) for t, s, row in zip(tokens, samplers, logits, strict=True)]


def describe(
    logits: Float[Tensor, "S V"], tokens: Sequence[int | None], alternatives: Sequence[int]
) -> list[tuple[float | None, Top]]:
    """The log probability of each token, and as many likeliest ones as asked for with theirs; None for no token."""
    found = []
    logs = torch.log_softmax(logits.float(), -1)
    for row, token, count in zip(logs, tokens, alternatives, strict=True):
        values, likeliest = row.topk(min(count, len(row)))
        top = tuple(zip(likeliest.tolist(), values.tolist(), strict=True))
        found.append((None if token is None else float(row[token]), top))
    return found
