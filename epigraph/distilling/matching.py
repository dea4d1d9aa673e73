"""First values that every head reads as it reads the whole text: a text's keys and values compressed to P by what is found in them.

    text    out_n(K, V) = (Σ_t e^(q_n · k_t) v_t + e^(u_n) o_n) / (Σ_t e^(q_n · k_t) + e^(u_n))
            q_n: what token n of a row looks for,  o_n, u_n: what it finds among the row's own tokens, and the logarithm of their sum
    start   the P − 1 keys at which the rows look most, moved by log(all / theirs) along the mean query, and the first key
    K, V    = argmin Σ_n ‖out_n(K, V) − out_n(text)‖² / Σ_n ‖out_n(text)‖²           each layer by itself, its heads together

The first key and value stay those of the text, on which attention rests. Where all out_n are equal the rows are read alike to the
last digit, so no answer is needed, and no pass of the base with gradient: P vectors are found in seconds. What is left is learned
from answers after that.

Source: Zweiger et al. 2026 (attention matching), https://arxiv.org/abs/2602.16284. Differs: keys are free instead of a choice of the
text's, found together with the values by gradient, since a prompt has no place for the bias by which they restore the sum that
is lost; queries are those of the texts that the prompt shall serve; heads and layers have P vectors each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.engine import Engine
from epigraph.engine.inspection import OwnReads, own_reads
from epigraph.engine.turning import turn_of
from epigraph.prompts import KeyValue
from epigraph.tasks.encode import Encoded

MOST_ROWS, TOKENS_A_ROW = 256, 8
STEPS, BATCH, RATE, BETAS = 300, 512, 0.1, (0.9, 0.98)  # Adam's; queries a step; in units of the start's rms
UNEXPLAINED = 0.05  # nats: where sums differ by more, the attention is not of that form (a window, a cap)

Heads = Float[Tensor, "A P D"]
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Matched:
    """The form, and the share of the squared length of what the heads find that it misses, in the mean over layers."""

    form: KeyValue
    missed: float


@dataclass(frozen=True)
class Problem:
    """One layer: queries of N tokens for each key head (all query heads of it), what is found among own tokens, and what shall be found."""

    queries: Float[Tensor, "A N D"]
    own_sums: Float[Tensor, "A N"]
    own_values: Float[Tensor, "A N D"]
    found: Float[Tensor, "A N D"]

    def read(self, keys: Heads, values: Heads) -> Float[Tensor, "A N D"]:
        """What these keys and values and the own tokens give together."""
        scores = torch.cat([self.queries @ keys.transpose(-1, -2), self.own_sums[..., None]], -1)
        weights = torch.softmax(scores, -1)
        return weights[..., :-1] @ values + weights[..., -1:] * self.own_values

    def missed(self, keys: Heads, values: Heads) -> Tensor:
        """The share of the squared length of what shall be found that these do not give."""
        return (self.read(keys, values) - self.found).pow(2).sum() / self.found.pow(2).sum().clamp(min=1e-12)

    def some(self, numbers: Tensor) -> "Problem":
        """The same for some of the tokens."""
        parts = (self.queries, self.own_sums, self.own_values, self.found)
        return Problem(*(part[:, numbers] for part in parts))


def match(
    engine: Engine, text: KeyValue, rows: Sequence[Encoded], length: int, seed: int, told: Told = lambda _done, _of: None
) -> Matched | None:
    """``length`` keys and values that these rows read, behind them, as they read ``text``; None where attention has a window or a cap.

    ``rows`` are whole rows of a template in which the prompt stands first. At least two vectors, and no more than the text has.
    """
    generator = torch.Generator().manual_seed(seed)
    whole, reads = _as_behind(
        length, engine, text, own_reads(engine, rows, text, [_tokens(r.length, generator) for r in rows])
    )
    forms: list[tuple[Heads, Heads]] = []
    missed, L = 0.0, len(whole.keys)
    for layer in range(L):
        told(layer, L)
        problem, looked, sums = _problem(whole, reads, layer)
        if float((sums - _by_head(reads.sums[layer][..., None])[..., 0]).abs().mean()) > UNEXPLAINED:
            return None
        start = _start(whole.keys[layer], whole.values[layer], problem, looked, length)
        forms.append(_fit(problem, *start, generator))
        missed += float(problem.missed(*forms[-1])) / L
    told(L, L)
    return Matched(KeyValue(torch.stack([k for k, _ in forms]), torch.stack([v for _, v in forms])), missed)


def _tokens(length: int, generator: torch.Generator) -> list[int]:
    """The last token, from which the answer is read, and some others."""
    others = torch.randperm(length - 1, generator=generator)[: TOKENS_A_ROW - 1].tolist()
    return [*others, length - 1]


def _as_behind(length: int, engine: Engine, text: KeyValue, reads: OwnReads) -> tuple[KeyValue, OwnReads]:
    """Text and reads turned to where they are if rows stand behind so many positions instead of behind the text."""
    whole = KeyValue(text.keys.float().cpu(), text.values.float().cpu())
    turn = turn_of(engine, length - text.length)
    if turn is None:
        return whole, reads
    turn = turn.cpu()
    return KeyValue(whole.keys @ turn[:, None], whole.values), replace(reads, queries=reads.queries @ turn[:, None, None])


def _problem(whole: KeyValue, reads: OwnReads, layer: int) -> tuple[Problem, Float[Tensor, "A T"], Float[Tensor, "A N"]]:
    """One layer's problem; how much all tokens together look at each key of the text; and the logarithm of all sums."""
    keys, values = whole.keys[layer], whole.values[layer]
    queries, own_values = _by_head(reads.queries[layer]), _by_head(reads.own_values[layer])
    own_sums = _by_head(reads.own_sums[layer][..., None])[..., 0]
    found, looked, sums = (
        torch.stack(part)
        for part in zip(
            *(_read_whole(*one) for one in zip(queries, keys, values, own_sums, own_values, strict=True)), strict=True
        )
    )
    return Problem(queries, own_sums, own_values, found), looked, sums


def _read_whole(
    queries: Float[Tensor, "N D"],
    keys: Float[Tensor, "T D"],
    values: Float[Tensor, "T D"],
    own_sums: Float[Tensor, "N"],
    own_values: Float[Tensor, "N D"],
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "T"], Float[Tensor, "N"]]:
    """What one head finds in the text and the own tokens, how much it looks at each key of the text, and the logarithm of its sums."""
    scores = queries @ keys.T
    sums = torch.logaddexp(torch.logsumexp(scores, 1), own_sums)
    weights = (scores - sums[:, None]).exp_()
    return weights @ values + (own_sums - sums).exp()[:, None] * own_values, weights.mean(0), sums


def _by_head(reads: Float[Tensor, "N A G X"]) -> Float[Tensor, "A NG X"]:
    return reads.transpose(0, 1).flatten(1, 2)


def _start(
    keys: Float[Tensor, "A T D"], values: Float[Tensor, "A T D"], problem: Problem, looked: Float[Tensor, "A T"], length: int
) -> tuple[Heads, Heads]:
    """The first key of the text and those at which the rows look most, moved so that together they are looked at as all are."""
    heads = torch.arange(len(keys))[:, None]
    rest = looked[:, 1:]
    best = rest.topk(length - 1).indices.sort(-1).values
    mean = problem.queries.mean(1)  # [A, D]
    lost = torch.log(rest.sum(1) / rest.gather(1, best).sum(1).clamp(min=1e-12))
    lift = mean * (lost / mean.pow(2).sum(-1).clamp(min=1e-6))[:, None]
    chosen = keys[heads, best + 1] + lift[:, None]
    return torch.cat([keys[:, :1], chosen], 1), torch.cat([values[:, :1], values[heads, best + 1]], 1)


def _fit(problem: Problem, keys: Heads, values: Heads, generator: torch.Generator) -> tuple[Heads, Heads]:
    """The keys and values behind the first that miss least; those given where no step is a gain."""
    units = [t[:, 1:].pow(2).mean().sqrt().clamp(min=1e-6) for t in (keys, values)]
    moved = [(t[:, 1:] / unit).requires_grad_() for t, unit in zip((keys, values), units, strict=True)]
    optimiser = torch.optim.Adam(moved, lr=RATE, betas=BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    N = problem.queries.shape[1]

    def whole() -> tuple[Heads, Heads]:
        rest = [m * unit for m, unit in zip(moved, units, strict=True)]
        return torch.cat([keys[:, :1], rest[0]], 1), torch.cat([values[:, :1], rest[1]], 1)

    for _ in range(STEPS):
        part = problem.some(torch.randint(N, (min(N, BATCH),), generator=generator))
        optimiser.zero_grad()
        with torch.enable_grad():
            part.missed(*whole()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        better = whole()
        gained = float(problem.missed(*better)) < float(problem.missed(keys, values))
    return (better[0].detach(), better[1].detach()) if gained else (keys, values)
