"""What parts add is what calculus says; what is missed is known; turns are looked at closely."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from epigraph.explaining.integral import EVEN, MOST, integrate


def test_a_polynomial_of_third_degree_is_exact() -> None:
    """F = x y² along x = t, y = 2 t: ∫ y² dx = 4/3, ∫ 2 x y dy = 8/3."""

    def path(at: Sequence[float]) -> tuple[Tensor, Tensor]:
        t = torch.tensor(at, dtype=torch.float64)
        x, y = t, 2 * t
        return x * y**2, torch.stack([y**2, 2 * x * y * 2], 1)

    found = integrate(path)
    assert found.parts.tolist() == pytest.approx([4 / 3, 8 / 3])
    assert found.total == 4
    assert found.gap < 1e-12
    assert found.places == 2 * EVEN + 1


def test_places_are_spent_where_the_function_turns() -> None:
    """A step a thousandth wide: even steps of the same number miss most of it."""
    seen: list[float] = []

    def path(at: Sequence[float]) -> tuple[Tensor, Tensor]:
        seen.extend(at)
        t = torch.tensor(at, dtype=torch.float64)
        raised = torch.sigmoid((t - 0.3) / 0.001)
        return 5 * raised, (5 * raised * (1 - raised) / 0.001)[:, None]

    found = integrate(path)
    assert found.gap < 0.1
    assert found.places == len(seen) < MOST
    assert sum(abs(t - 0.3) < 0.05 for t in seen) > len(seen) / 2
    even = torch.linspace(0, 1, found.places, dtype=torch.float64)
    assert abs(float(path(even.tolist())[1].mean()) - 5) > 0.5


@pytest.mark.parametrize("most", [17, 20, 40])
def test_no_more_places_than_allowed_and_what_is_missed_is_told(most: int) -> None:
    def path(at: Sequence[float]) -> tuple[Tensor, Tensor]:
        t = torch.tensor(at)
        return (t > 0.3).float(), torch.zeros(len(at), 2)

    found = integrate(path, most=most)
    assert found.places in (most, most - 1)
    assert found.gap == pytest.approx(1)
