from collections.abc import Sequence
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.correct.settings import FixConfig
from epigraph.correct.step import System, Vectors, learn
from epigraph.engine.assembly import Asked
from epigraph.errors import Diverged
from epigraph.prompts import Embedded, KeyValue


def drawn(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


class Linear:
    """Margins that are linear (or, with ``bend``, not) in the vectors of one block."""

    def __init__(self, weights: Tensor, offsets: Tensor, bend: float = 0.0) -> None:
        self.weights, self.offsets, self.bend = weights, offsets, bend
        self.rows: Any = [None] * len(weights)
        self.at_once = 3

    def of(self, chosen: Sequence[int], prompts: Asked) -> Float[Tensor, "B"]:
        flat = torch.stack([forms[0].vectors.flatten() for forms in prompts])  # type: ignore[union-attr]
        found = (flat * self.weights[list(chosen)]).sum(1) + self.offsets[list(chosen)]
        return found + self.bend * found.pow(2)


@pytest.fixture
def block() -> Embedded:
    return Embedded(drawn(4, 8, seed=3))


def test_gradients_are_those_of_each_row_alone(block: Embedded) -> None:
    margins, vectors = Linear(drawn(7, 32), drawn(7), bend=0.1), Vectors([block], torch.device("cpu"))
    moved = 0.1 * drawn(32, seed=5)
    rows, values = vectors.gradient(margins, moved)
    for i in range(7):
        at = moved.clone().requires_grad_()
        (one,) = margins.of([i], [vectors.forms(at)])
        one.backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(rows[i], at.grad)
        assert float(values[i]) == pytest.approx(float(one.detach()), abs=1e-5)
    torch.testing.assert_close(vectors.margins(margins, moved), values)


def test_nothing_moved_is_the_old_prompt_whatever_its_form(block: Embedded) -> None:
    pair = KeyValue(drawn(2, 1, 3, 4), drawn(2, 1, 3, 4, seed=1))
    vectors = Vectors([block, pair], torch.device("cpu"))
    first, second = vectors.forms(torch.zeros(vectors.size))
    assert isinstance(first, Embedded)
    assert isinstance(second, KeyValue)
    assert torch.equal(first.vectors, block.vectors)
    assert torch.equal(second.keys, pair.keys)
    assert torch.equal(second.values, pair.values)


def test_the_move_is_the_minimum_of_what_the_docstring_says() -> None:
    gradients, residual = drawn(9, 20).double(), drawn(9, seed=2).double()
    system = System(gradients, drawn(6, seed=4).double(), hold=100.0)
    move = system.move(residual, range(3)).requires_grad_()
    loss = move.pow(2).sum() + ((gradients @ move - residual).pow(2) / system.noise).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(move.grad.abs().max()) < 1e-6 * float(loss.detach())  # type: ignore[union-attr]


def test_leaving_one_out_is_what_the_formula_says() -> None:
    """The published equation against the slow way: solve again without each kept row, and see where it goes."""
    gradients, residual = drawn(9, 20).double(), torch.cat([drawn(3, seed=2).double(), torch.zeros(6).double()])
    teacher = drawn(6, seed=4).double().abs()
    system = System(gradients, teacher, hold=100.0)
    _, solved, inverse = system._solved(residual, range(3))
    told = -(solved / inverse)[3:]
    for k in range(6):
        rest = [i for i in range(9) if i != 3 + k]
        products = gradients[rest] @ gradients[rest].T + torch.diag(system.noise[rest])
        move = gradients[rest].T @ torch.linalg.solve(products, residual[rest])
        assert float(gradients[3 + k] @ move) == pytest.approx(float(told[k]), abs=1e-9)


@pytest.mark.parametrize("bend", [0.0, 0.05])
def test_corrections_are_reached_and_the_kept_stay(bend: float, block: Embedded) -> None:
    vectors = Vectors([block], torch.device("cpu"))
    wanted = Linear(drawn(3, 32), torch.full((3,), -1.0) - drawn(3, 32) @ block.vectors.flatten(), bend)
    kept = Linear(drawn(12, 32, seed=7), torch.full((12,), 4.0) - drawn(12, 32, seed=7) @ block.vectors.flatten(), bend)
    before = vectors.margins(kept, torch.zeros(32))
    learned = learn(vectors, wanted, kept, FixConfig(), 1.0)
    assert (vectors.margins(wanted, learned.moved) > 0).all()
    assert float((vectors.margins(kept, learned.moved) - before).abs().max()) < 0.5
    assert learned.given_up == ()


def test_what_costs_too_much_is_given_up_the_dearest_first(block: Embedded) -> None:
    """The second correction asks of nearly the same direction as kept texts near their boundary; the first does not."""
    own, other = torch.eye(32)[:1], torch.eye(32)[1:2]
    flat = block.vectors.flatten()
    weights = torch.cat([own, other])
    wanted = Linear(weights, -torch.ones(2) - weights @ flat)
    near = other.repeat(10, 1) + 0.3 * drawn(10, 32, seed=6) * (torch.arange(32) > 1)
    kept = Linear(near, torch.full((10,), 0.3) - near @ flat)
    vectors = Vectors([block], torch.device("cpu"))
    learned = learn(vectors, wanted, kept, FixConfig(), 0.04)
    assert learned.given_up == (1,)
    assert learned.expected_share < learned.asked_share
    assert float(vectors.margins(wanted, learned.moved)[0]) > 0


def test_values_that_are_not_finite_are_an_error(block: Embedded) -> None:
    vectors = Vectors([block], torch.device("cpu"))
    broken = Linear(drawn(2, 32), torch.tensor([float("nan"), -1.0]))
    with pytest.raises(Diverged, match="not finite"):
        learn(vectors, broken, Linear(drawn(8, 32), torch.ones(8)), FixConfig(), 1.0)
