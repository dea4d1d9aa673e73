"""∫₀¹ of a slope along a path, taken finer where the function turns.

    c = Σ over stretches of  (b − a)/6 · (s(a) + 4 s(m) + s(b))        s = ∂F/∂t part by part, m the middle of [a, b]

Since F itself is known at a and b, so is what each stretch misses, |F(b) − F(a) − Σ c|: no estimate, and the stretches that miss most are
halved, every slope taken before used again. (Simpson's rule; steps that adapt: any textbook, such as Davis & Rabinowitz 1984, section 6.2.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

EVEN = 8  # stretches of equal length to begin with: a turn between two places that agree is not seen
TOGETHER = 4  # stretches that are halved in one pass
MOST = 257  # places where the slope is taken
MISSED = 0.1  # of F(1) − F(0), all stretches' added up without their signs, where no stretch is halved any more

Path = Callable[[Sequence[float]], tuple[Float[Tensor, "T"], Float[Tensor, "T N"]]]


@dataclass(frozen=True)
class Integral:
    """What each part adds along a path, by how much F grew in all, and at how many places the slope was taken."""

    parts: Float[Tensor, "N"]
    total: float
    places: int

    @property
    def gap(self) -> float:
        """What the sum of the parts misses, as a share of the total; of one nat where the total is less."""
        return abs(float(self.parts.sum()) - self.total) / max(1.0, abs(self.total))


@dataclass(frozen=True)
class _Place:
    t: float
    value: float
    slope: Float[Tensor, "N"]


@dataclass(frozen=True)
class _Stretch:
    a: _Place
    m: _Place
    b: _Place

    @property
    def parts(self) -> Float[Tensor, "N"]:
        return (self.b.t - self.a.t) / 6 * (self.a.slope + 4 * self.m.slope + self.b.slope)

    @property
    def missed(self) -> float:
        return abs(self.b.value - self.a.value - float(self.parts.sum()))


def integrate(path: Path, *, most: int = MOST) -> Integral:
    """What each part adds from t = 0 to t = 1; ``path`` gives F and ∂F/∂t part by part at places, ``most`` is how many at most."""
    first, middle, last = _look(path, [0.0, 0.5, 1.0])
    stretches, places = [_Stretch(first, middle, last)], 3
    total = last.value - first.value
    while places + 2 <= most:
        even = len(stretches) < EVEN
        stretches.sort(key=lambda stretch: stretch.missed)
        if not even and sum(stretch.missed for stretch in stretches) <= MISSED * max(1.0, abs(total)):
            break
        halved = stretches if even else stretches[-min(TOGETHER, (most - places) // 2) :]
        stretches = ([] if even else stretches[: -len(halved)]) + _halve(path, halved)
        places += 2 * len(halved)
    return Integral(torch.stack([stretch.parts for stretch in stretches]).sum(0), total, places)


def _halve(path: Path, stretches: Sequence[_Stretch]) -> list[_Stretch]:
    """Two stretches for each, with new middles."""
    ends = [(s.a, s.m) for s in stretches] + [(s.m, s.b) for s in stretches]
    middles = _look(path, [(a.t + b.t) / 2 for a, b in ends])
    return [_Stretch(a, m, b) for (a, b), m in zip(ends, middles, strict=True)]


def _look(path: Path, at: Sequence[float]) -> list[_Place]:
    values, slopes = path(at)
    return [_Place(t, float(value), slope) for t, value, slope in zip(at, values, slopes, strict=True)]
