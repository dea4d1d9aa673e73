"""Backing off: between the old vectors and the new ones, as far as the rest allows.

    θ(t) = θ_old + t · (θ_new − θ_old)
    t_mastered    the smallest step at which as many corrections are mastered as at t = 1, found by halving
    share(t)      mean over k of Φ(−m_k(θ_old) / (t · rms of m_k(θ_new) − m_k(θ_old)))      of texts k that the step never saw
    t*            the largest t ≤ t_mastered whose answers elsewhere change no more than tolerated, found by halving

Both are counted, not estimated: what is stored is what was tried. Few texts count coarsely (of 60, one is 1.7%), so the halving
begins where ``share``, which uses how far every text moves and not only whether it crosses, is within the tolerance too, unless no
correction is mastered there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.prompts import Embedded, Form, KeyValue

HALVINGS = 4
LEAST = 0.05
GRID = 200  # steps at which the share is looked at


@dataclass(frozen=True)
class Tried:
    """A step: its length t, the corrections mastered there, and the answers that change elsewhere."""

    step: float
    mastered: int
    changed: int


def mixed(old: Sequence[Form], new: Sequence[Form], t: float) -> list[Form]:
    """The forms at t between the old ones (0) and the new ones (1)."""
    return [_mixed(a, b, t) for a, b in zip(old, new, strict=True)]


def _mixed(old: Form, new: Form, t: float) -> Form:
    if isinstance(old, Embedded) and isinstance(new, Embedded):
        return Embedded(old.vectors + t * (new.vectors - old.vectors))
    assert isinstance(old, KeyValue)
    assert isinstance(new, KeyValue)
    return KeyValue(old.keys + t * (new.keys - old.keys), old.values + t * (new.values - old.values))


def expected_step(
    teacher: Float[Tensor, "K"], moved: Float[Tensor, "K"], at: float, *, tolerance: float, least: float = LEAST
) -> float:
    """The largest step up to ``at`` by which a share of at most ``tolerance`` is expected to change, ``least`` where there is none.

    ``teacher`` are margins under the old prompt and ``moved`` by how much they are others at step ``at``, of texts that the step
    never saw.
    """
    rms = float(moved.double().pow(2).mean().sqrt()) / at
    for i in range(GRID, 0, -1):
        t = at * (i / GRID)
        if t <= least or rms == 0 or float(torch.special.ndtr(-teacher.double() / (t * rms)).mean()) <= tolerance:
            return t
    return least


def back_off(
    mastered: Callable[[float], int],
    changed: Callable[[float], int],
    *,
    most: int,
    before: int,
    expected: Callable[[float], float] = lambda step: step,
) -> tuple[Tried | None, list[Tried]]:
    """The step to take, and all that were tried. None where no step masters more than ``before`` and changes at most ``most``.

    ``mastered`` and ``changed`` count the corrections and the other answers at a step; ``expected`` shortens a step to where few
    are expected to change.
    """
    whole = mastered(1.0)
    low, step = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + step) / 2
        low, step = (low, middle) if mastered(middle) >= whole else (middle, step)
    tried: list[Tried] = []

    def look(t: float) -> Tried:
        tried.append(Tried(t, mastered(t), changed(t)))
        return tried[-1]

    taken: Tried | None = None
    top = look(step)
    if (nearer := expected(step)) < step and mastered(nearer) > before:
        top = look(nearer)
    if top.mastered <= before:
        return None, tried
    if top.changed <= most:
        return top, tried
    low, high = 0.0, top.step
    for _ in range(HALVINGS):
        here = look((low + high) / 2)
        if here.changed > most:
            high = here.step
        else:
            low = here.step
            taken = here if here.mastered > before else taken
        if high - low < LEAST:
            break
    return taken, tried
