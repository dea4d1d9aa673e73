"""Corrections learned by heart: to each a vector of its own, at which only its own text looks.

    z_n(k)   = q_n · k − log Σ e^(all scores of text n)      how much text n's answering token looks at a key k, in one head of one layer
    k_c      = argmin mean_n (z_n(k) + FAR)²  so that  z_c(k) = NEAR         n: kept texts and corrections, with a small ridge
    where    the HEADS key heads of all layers in which max_n z_n(k_c) over the kept texts is smallest; elsewhere a key that none looks at
    v_c      += g (reach − m_c) / ‖g‖²,     g = ∂ m_c / ∂ v_c         the smallest values there that give the wanted answer

The first is least squares with one condition, in closed form; the values are found in a few steps of Gauss-Newton on the corrections
alone, each by its own vector. What no text looks at changes no answer; how many change is counted all the same, before anything
is stored. What is learned so holds for these texts and their like: it is what is left where the step (``step``) would have moved too
much else. Sources: a key and a value an edit (Huang et al. 2023, https://arxiv.org/abs/2301.09785; Hartvigsen et al. 2023, GRACE,
https://arxiv.org/abs/2211.11031). Differs: in the prompt's keys and values, of which the base already has the reader.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from epigraph.correct.margins import Margins
from epigraph.engine.inspection import Looks
from epigraph.prompts import KeyValue

NEAR, FAR = 3.0, 30.0  # nats
RIDGE = 1e-3  # of the mean square of the queries
HEADS = 8
UNSEEN = 30.0  # nats below zero, for a mean query
STEPS = 8
LONGEST = 2.0  # rms of a step, in units of the prompt's values

Keys = Float[Tensor, "L A V D"]


@dataclass(frozen=True)
class Vectors:
    """V vectors of L · A slots, each slot with a key of one correction (``owner``; −1: a key at which no text looks)."""

    keys: Keys
    owner: Int[Tensor, "L A V"]

    def behind(self, form: KeyValue, values: Keys) -> KeyValue:
        """The form with these vectors after its own."""
        keys, values = (t.to(form.keys) for t in (self.keys, values * (self.owner >= 0)[..., None]))
        return KeyValue(torch.cat([form.keys, keys], 2), torch.cat([form.values, values], 2))

    def per(self, numbers: Float[Tensor, "L A V"], corrections: int) -> Float[Tensor, "C"]:
        """The sum of a number over the slots of each correction."""
        owned = self.owner >= 0
        return torch.zeros(corrections).index_add(0, self.owner[owned], numbers[owned])

    def of(self, numbers: Float[Tensor, "C"]) -> Float[Tensor, "L A V"]:
        """Each slot's owner's number; 0 where there is none."""
        return torch.where(self.owner >= 0, numbers[self.owner.clamp(min=0)], torch.zeros(()))


def unseen_keys(kept: Looks) -> Float[Tensor, "L A D"]:
    """A key at which no text looks: against the mean query of every head."""
    mean = kept.queries.mean((1, 3))
    return -UNSEEN * mean / mean.square().sum(-1, keepdim=True)


def own_keys(wanted: Looks, kept: Looks) -> Vectors:
    """A key for each wanted text in the heads where the kept ones look least at it."""
    L, C, A, G, D = wanted.queries.shape
    keys, seen = torch.zeros(L, A, G, C, D), torch.full((L, A, G, C), float("inf"))
    for layer in range(L):
        for head in range(A):
            own, sums = wanted.queries[layer, :, head], wanted.sums[layer, :, head]
            others, theirs = kept.queries[layer, :, head], kept.sums[layer, :, head]
            found = _solve(own, sums, torch.cat([others, own]).flatten(0, 1), torch.cat([theirs, sums]).flatten())
            keys[layer, head] = found
            looks = torch.einsum("ngd,hcd->nghc", others, found) - theirs[:, :, None, None]
            seen[layer, head] = looks.amax((0, 1))
    return _placed(keys, seen, unseen_keys(kept))


def _solve(
    own: Float[Tensor, "C G D"], sums: Float[Tensor, "C G"], all_: Float[Tensor, "M D"], all_sums: Float[Tensor, "M"]
) -> Float[Tensor, "G C D"]:
    """k = k0 + H⁻¹ q (t − q · k0) / (q · H⁻¹ q): the least squares of all, put right at one query."""
    rows, targets = all_.double(), all_sums.double() - FAR
    square = rows.T @ rows / len(rows)
    inverse = torch.linalg.inv(square + RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype))
    start = inverse @ (rows.T @ targets) / len(rows)
    query, wanted = own.double(), sums.double() + NEAR
    turned = query @ inverse
    missing = (wanted - query @ start) / (turned * query).sum(-1)
    return (start + turned * missing[..., None]).transpose(0, 1).float()


def count(corrections: int, slots: int) -> int:
    """How many vectors the corrections need, each of so many slots."""
    return -(-corrections * HEADS // slots)


def _placed(keys: Float[Tensor, "L A G C D"], seen: Float[Tensor, "L A G C"], unseen: Float[Tensor, "L A D"]) -> Vectors:
    """Each key where it is seen least by others; in turn, a slot each, so that none is left with the worst."""
    L, A, _, C, D = keys.shape
    V = count(C, L * A)
    least, which = seen.min(2)
    best = keys.gather(2, which[:, :, None, :, None].expand(L, A, 1, C, D))[:, :, 0]
    found, owner = unseen[:, :, None].repeat(1, 1, V, 1), torch.full((L, A, V), -1)
    orders = [iter(least[:, :, c].flatten().argsort().tolist()) for c in range(C)]
    for _ in range(HEADS):
        for c in range(C):
            for slot in orders[c]:
                layer, head = divmod(slot, A)
                free = (owner[layer, head] < 0).nonzero()
                if len(free):
                    owner[layer, head, free[0, 0]], found[layer, head, free[0, 0]] = c, best[layer, head, c]
                    break
    return Vectors(found, owner)


def own_values(
    vectors: Vectors, form: KeyValue, margins: Margins, reach: float, told: Callable[[int, int], None]
) -> tuple[Keys, list[bool]]:
    """The values that give the most wanted answers, and which ones those are."""
    chosen, C = list(range(len(margins.rows))), len(margins.rows)
    values, best, most = torch.zeros_like(vectors.keys), torch.zeros_like(vectors.keys), [False] * C
    unit = form.values.float().square().mean().sqrt().cpu()
    for step in range(STEPS + 1):
        told(step, STEPS)
        values.requires_grad_()
        found = _margins(margins, chosen, [vectors.behind(form, values)])
        gradient, found = torch.autograd.grad(found.sum(), values)[0], found.detach().cpu()
        values = values.detach()
        right = (found > 0).tolist()
        if sum(right) > sum(most):
            best, most = values, right
        if step == STEPS or bool((found >= reach / 2).all()):
            break
        size = vectors.per(gradient.square().sum(-1), C).clamp(min=1e-12)
        by = (reach - found).clamp(min=0) / size
        slots = vectors.per(torch.ones(vectors.owner.shape), C).clamp(min=1) * values.shape[-1]
        rms = by * (size / slots).sqrt()
        by = by * (LONGEST * unit / rms.clamp(min=1e-12)).clamp(max=1)
        values = values + gradient * vectors.of(by)[..., None]
    return best, most


def _margins(margins: Margins, chosen: Sequence[int], forms: list[KeyValue]) -> Float[Tensor, "C"]:
    parts = [chosen[i : i + margins.at_once] for i in range(0, len(chosen), margins.at_once)]
    return torch.cat([margins.of(part, [forms]) for part in parts])
