"""Backing off: as many corrections, and as far along their step, as the other answers allow.

    θ(t)      = θ_old + t · (θ_new − θ_old)       t = the smallest at which as many corrections are mastered as at 1, by halving
    count*    the most corrections, the dearest given up first, whose step changes no more other answers than tolerated, by halving

A shorter step towards the same corrections would master hardly one of them: each is moved just over its boundary, all at the end of
the way. So corrections are given up and not length. The first count to be tried is all; then nine in ten or what the expected
changes allow, if that is more. Both mastered and changed are counted, not estimated: what is stored is what was tried.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from epigraph.prompts import Embedded, Form, KeyValue

HALVINGS = 4
MOST_TRIES = 6
NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Tried:
    """A step: how many corrections it was ``asked`` for, its length t, those mastered there, and the answers changed elsewhere."""

    asked: int
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


def shortened(mastered: Callable[[float], int]) -> float:
    """The smallest step at which as many corrections are mastered as at 1."""
    whole, low, step = mastered(1.0), 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + step) / 2
        low, step = (low, middle) if mastered(middle) >= whole else (middle, step)
    return step


def back_off(
    look: Callable[[int], Tried], expected: Callable[[int], float], *, asked: int, most: int, before: int
) -> tuple[Tried | None, list[Tried]]:
    """The step to take, and all that were tried. None where none was found that masters more than ``before`` and changes at most
    ``most``.

    ``look`` takes the step for so many corrections and counts; ``expected`` is proportional to what it will change.
    """
    tried = [look(asked)]
    low, high = 0, asked
    while tried[0].changed > most and high - low > 1 and len(tried) < MOST_TRIES:
        count = _next(low, high, expected, most / tried[-1].changed if tried[-1].changed else 1.0, tried[-1].asked)
        if len(tried) == 1:
            count = max(count, min(high - 1, math.ceil(NEARLY_ALL * asked)))
        tried.append(look(count))
        low, high = (count, high) if tried[-1].changed <= most else (low, count)
    fits = [one for one in tried if one.changed <= most and one.mastered > before]
    return max(fits, key=lambda one: (one.mastered, -one.changed), default=None), tried


def _next(low: int, high: int, expected: Callable[[int], float], ratio: float, last: int) -> int:
    """The most corrections strictly between whose expected changes are so many times those of the last, or halfway."""
    bound = ratio * expected(last)
    fits = [count for count in range(low + 1, high) if expected(count) <= bound]
    return fits[-1] if fits else (low + high) // 2
