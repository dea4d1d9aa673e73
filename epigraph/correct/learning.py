"""Learning corrections: one step after another, until those that are asked for are given.

What is learned of the held texts, and of all corrections at the old vectors, is found once for any number of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch

from epigraph.correct.margins import Margins
from epigraph.correct.settings import FixConfig
from epigraph.correct.step import HOLDS, Held, Place
from epigraph.correct.vectors import Jacobian, Values, Vector, Vectors
from epigraph.errors import Diverged

MOST_MOVE = 0.1  # rms of a step, in units of the vectors' rms
LESS = 0.9  # of what is missing: a step that leaves more was in vain
PATIENCE = 2  # steps in vain
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Learned:
    """Where the steps end: ``moved`` in units, the corrections that were asked for by their places, and how many steps it took."""

    moved: Vector
    chosen: tuple[int, ...]
    steps: int


@dataclass
class Learning:
    """The corrections ``wanted`` and the texts ``kept``, from which any number of corrections can be learned."""

    vectors: Vectors
    wanted: Margins
    kept: Margins
    config: FixConfig
    told: Told = field(default=lambda _done, _of: None)

    @property
    def nowhere(self) -> Vector:
        """No move."""
        return torch.zeros(self.vectors.size, device=self.vectors.old[0].device)

    @cached_property
    def began(self) -> tuple[Jacobian, Values]:
        """The corrections' gradients and margins under the old vectors. Diverged if they are not finite."""
        own, values = self.vectors.gradient(self.wanted, self.nowhere)
        _check(values)
        return own, values

    @cached_property
    def start(self) -> Place:
        """All corrections at the old vectors, and the held texts as firmly as asked or as is best. Diverged if not finite."""
        gradients, teacher = self.vectors.gradient(self.kept, self.nowhere)
        _check(teacher)
        own, values = self.began
        held = Held(gradients, teacher, self.config.hold or HOLDS[0])
        place = Place(held, own, self.config.reach - values, torch.zeros_like(teacher))
        return place if self.config.hold else place.by(place.best_hold())

    @cached_property
    def order(self) -> list[int]:
        """Corrections, the one first that is given up last: each time the dearest of those that are left goes."""
        left, gone = list(range(len(self.wanted.rows))), []
        while len(left) > 1:
            gone.append(self.start.dearest(left))
            left.remove(gone[-1])
        return [*left, *reversed(gone)]

    def expected(self, count: int) -> float:
        """The share of answers to further texts expected to change with so many corrections."""
        return self.start.expected(sorted(self.order[:count]))

    def learn(self, count: int) -> Learned:
        """The smallest move by which so many corrections are given, the cheapest ones. Diverged if it is not finite."""
        chosen = sorted(self.order[:count])
        place, values, moved = self.start, self.began[1], self.nowhere
        best, most, steps = moved, -1, 0
        least, vain = float("inf"), 0
        for step in range(self.config.steps + 1):
            self.told(step, self.config.steps)
            mastered, missing = (
                int((values[chosen] > 0).sum()),
                float((self.config.reach - values[chosen]).clamp(min=0).sum()),
            )
            if mastered > most:
                best, most, steps = moved, mastered, step
            least, vain = (missing, 0) if missing < LESS * least else (least, vain + 1)
            if step == self.config.steps or vain >= PATIENCE or (step and mastered == len(chosen)):
                break
            moved = moved + _short(place.move(chosen) - moved)
            place, values = self._at(moved)
        return Learned(best, tuple(chosen), steps)

    def _at(self, moved: Vector) -> tuple[Place, Values]:
        """All corrections after this move, and what is asked there."""
        own, values = self.vectors.gradient(self.wanted, moved)
        now, held = self.vectors.margins(self.kept, moved), self.start.held
        _check(values)
        _check(now)
        asked = self.config.reach - values + _along(own, moved)
        return Place(held, own, asked, held.teacher - now + _along(held.gradients, moved)), values


def _check(values: Values) -> None:
    if not bool(torch.isfinite(values).all()):
        raise Diverged("the correction led to values that are not finite.", "Try --dtype float32, or fewer corrections.")


def _along(gradients: Jacobian, moved: Vector) -> Values:
    return (gradients @ moved).double()


def _short(move: Vector) -> Vector:
    """A move that is no longer than the linear picture reaches."""
    size = float(move.pow(2).mean().sqrt())
    return move * min(1.0, MOST_MOVE / size) if size > 0 else move
