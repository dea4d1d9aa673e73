"""Backing off: between the old vectors and the new ones, as far as the rest allows.

    θ(t) = θ_old + t · (θ_new − θ_old)        t* = the largest t ≤ t_mastered whose answers elsewhere change no more than tolerated

t_mastered is the smallest step at which as many corrections are mastered as at t = 1 (found by halving). Both are counted, not
estimated: what is stored is what was tried.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from epigraph.prompts import Embedded, Form, KeyValue

HALVINGS = 4
BACK = 0.85  # of the step, tried next
LEAST = 0.05


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


def back_off(
    mastered: Callable[[float], int], changed: Callable[[float], int], *, most: int, before: int
) -> tuple[Tried | None, list[Tried]]:
    """The step to take, and all that were tried. None where no step masters more than ``before`` and changes at most ``most``.

    ``mastered`` and ``changed`` count the corrections and the other answers at a step.
    """
    whole = mastered(1.0)
    low, step = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + step) / 2
        low, step = (low, middle) if mastered(middle) >= whole else (middle, step)
    tried: list[Tried] = []
    while step >= LEAST:
        here = Tried(step, mastered(step), changed(step))
        tried.append(here)
        if here.mastered <= before:
            break
        if here.changed <= most:
            return here, tried
        step *= BACK
    return None, tried
