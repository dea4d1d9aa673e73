"""Corrections learned by heart: in slots of the prompt at which no text looks, so that nothing else is touched.

    z_n(k)   = q_n · k − log Σ_j e^(q_n · k_j)     how much a token of text n looks at a key k, in one head of one layer, in nats
    free     the prompt's slots (layer, key head, vector) with max_n z_n < UNSEEN over the kept texts n
    k_c      = argmin_k mean_n (z_n(k) + FAR)²  so that  z_c(k) = NEAR,     n: kept texts and corrections, a small ridge
    where    SLOTS free slots each, in the heads in which the kept texts look least at k_c
    v_c      += g (reach − m_c) / ‖g‖²,     g = ∂ m_c / ∂ v_c              until correction c has its margin m_c

The keys are least squares with one condition, in closed form; the values are found in a few steps of Gauss-Newton on the corrections
alone, each by its own slots. The prompt keeps its size. What is learned so holds for these very texts, hardly for others: it is what
is left where the step (``step``) masters a correction only by moving other answers.

Sources: a key and a value an edit (Huang et al. 2023, section 3, https://arxiv.org/abs/2301.09785; Hartvigsen et al. 2023, section 2,
https://arxiv.org/abs/2211.11031). Differs: in the unused keys and values of a prompt, of which the base already has the reader.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from epigraph.correct.margins import Margins, margins_of_all
from epigraph.engine.inspection import Looks
from epigraph.prompts import KeyValue

UNSEEN = -5.0  # nats
NEAR, FAR = 3.0, 30.0  # nats
RIDGE = 1e-3  # of the mean square of the queries
SLOTS = 2
HEADS = 1 / 3  # of all heads: those in which a key is looked at least
REACH = 0.5  # nats
STEPS = 8
LONGEST = 2.0  # rms of a step, in units of the prompt's values

Keys = Float[Tensor, "L A V D"]


@dataclass(frozen=True)
class Slots:
    """Which correction each slot of a prompt has learned (−1: none, the prompt's own), and the keys there."""

    keys: Keys
    owner: Int[Tensor, "L A V"]

    def in_place(self, form: KeyValue, values: Keys) -> KeyValue:
        """The form with these keys and values in its slots."""
        owned = (self.owner >= 0)[..., None]
        keys, values = (t.to(form.keys) for t in (self.keys, values))
        owned = owned.to(form.keys.device)
        return KeyValue(torch.where(owned, keys, form.keys), torch.where(owned, values, form.values))

    def sums(self, numbers: Float[Tensor, "L A V"], corrections: int) -> Float[Tensor, "C"]:
        """The sum of a number over the slots of each correction."""
        owned = self.owner >= 0
        return torch.zeros(corrections).index_add(0, self.owner[owned], numbers[owned])

    def spread(self, numbers: Float[Tensor, "C"]) -> Float[Tensor, "L A V"]:
        """Each slot's owner's number; 0 where there is none."""
        return torch.where(self.owner >= 0, numbers[self.owner.clamp(min=0)], torch.zeros(()))

    def only(self, corrections: Bool[Tensor, "C"]) -> "Slots":
        """The slots of these corrections; those of the others are given back."""
        keeps = (self.owner >= 0) & corrections[self.owner.clamp(min=0)]
        return replace(self, owner=torch.where(keeps, self.owner, -1))


def learn_by_heart(
    form: KeyValue, margins: Margins, wanted: Looks, kept: Looks, told: Callable[[int, int], None] = lambda _done, _of: None
) -> KeyValue:
    """The form with those corrections in its free slots that are mastered there; ``wanted`` are their looks, in the margins' order."""
    slots = free_slots(form, wanted, kept)
    values, right = _values(slots, form, margins, told)
    return slots.only(right).in_place(form, values)


def free_slots(form: KeyValue, wanted: Looks, kept: Looks) -> Slots:
    """Slots at which no kept text looks, with a key for each wanted text; fewer, or none, where too few are free."""
    keys, seen = _own_keys(wanted, kept)
    C, (L, A, V, _) = seen.shape[2], form.keys.shape
    looked = _most(kept, form.keys.float().cpu())
    found, owner = form.keys.float().cpu().clone(), torch.full((L, A, V), -1)
    best = seen.flatten(0, 1).argsort(0)[: max(1, int(L * A * HEADS))].T.tolist()
    for _ in range(SLOTS):
        for c in range(C):
            layer, head = min((divmod(i, A) for i in best[c]), key=lambda place: float(looked[place].min()))
            slot = int(looked[layer, head].argmin())
            if max(float(looked[layer, head, slot]), float(seen[layer, head, c])) < UNSEEN:
                owner[layer, head, slot], found[layer, head, slot] = c, keys[layer, head, c]
                looked[layer, head, slot] = torch.inf
    return Slots(found, owner)


def _most(looks: Looks, keys: Float[Tensor, "L A V D"]) -> Float[Tensor, "L A V"]:
    """How much the text that looks most at each key does so."""
    each = [
        torch.einsum("nagd,avd->nagv", q, k) - s[..., None] for q, s, k in zip(looks.queries, looks.sums, keys, strict=True)
    ]
    return torch.stack([z.amax((0, 2)) for z in each])


def _own_keys(wanted: Looks, kept: Looks) -> tuple[Float[Tensor, "L A C D"], Float[Tensor, "L A C"]]:
    """A key for each wanted text in every head, of the query head for which the kept texts look least at it, and how much they do."""
    L, C, A, _, D = wanted.queries.shape
    keys, seen = torch.zeros(L, A, C, D), torch.zeros(L, A, C)
    for layer in range(L):
        for head in range(A):
            own, sums = wanted.queries[layer, :, head], wanted.sums[layer, :, head]
            others, theirs = kept.queries[layer, :, head], kept.sums[layer, :, head]
            found = _solved(own, sums, torch.cat([others, own]).flatten(0, 1), torch.cat([theirs, sums]).flatten())
            looked = (torch.einsum("ngd,hcd->nghc", others, found) - theirs[:, :, None, None]).amax((0, 1))
            seen[layer, head], which = looked.min(0)
            keys[layer, head] = found[which, torch.arange(C)]
    return keys, seen


def _solved(
    own: Float[Tensor, "C G D"], sums: Float[Tensor, "C G"], queries: Float[Tensor, "M D"], all_sums: Float[Tensor, "M"]
) -> Float[Tensor, "G C D"]:
    """k = k₀ + H⁻¹ q (t − q · k₀) / (q · H⁻¹ q): the least squares of all texts, put right at one query."""
    rows, targets = queries.double(), all_sums.double() - FAR
    square = rows.T @ rows / len(rows)
    inverse = torch.linalg.inv(square + RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype))
    start = inverse @ (rows.T @ targets) / len(rows)
    query, wanted = own.double(), sums.double() + NEAR
    turned = query @ inverse
    missing = (wanted - query @ start) / (turned * query).sum(-1)
    keys: Tensor = start + turned * missing[..., None]
    return keys.transpose(0, 1).float()


def _values(
    slots: Slots, form: KeyValue, margins: Margins, told: Callable[[int, int], None]
) -> tuple[Keys, Bool[Tensor, "C"]]:
    """The values that give the most wanted answers, and which ones those are."""
    C, values = len(margins.rows), torch.zeros_like(slots.keys)
    best, most = values, torch.zeros(C, dtype=torch.bool)
    unit = form.values.float().square().mean().sqrt().cpu()
    for step in range(STEPS + 1):
        told(step, STEPS)
        values.requires_grad_()
        found = margins_of_all(margins, [slots.in_place(form, values)])
        gradient, found = torch.autograd.grad(found.sum(), values)[0], found.detach().float().cpu()
        values = values.detach()
        if int((found > 0).sum()) > int(most.sum()):
            best, most = values, found > 0
        if step == STEPS or bool((found >= REACH / 2).all()):
            break
        size = slots.sums(gradient.square().sum(-1), C).clamp(min=1e-12)
        by = (REACH - found).clamp(min=0) / size
        numbers = slots.sums(torch.ones(slots.owner.shape), C).clamp(min=1) * values.shape[-1]
        by = by * (LONGEST * unit / (by * (size / numbers).sqrt()).clamp(min=1e-12)).clamp(max=1)
        values = values + gradient * slots.spread(by)[..., None]
    return best, most
