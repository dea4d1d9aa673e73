from collections.abc import Sequence
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.correct.learning import Learning
from epigraph.correct.settings import FixConfig
from epigraph.correct.vectors import Vectors
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


@pytest.mark.parametrize("bend", [0.0, 0.05])
@pytest.mark.parametrize("hold", [None, 1.0, 1e4])
def test_corrections_are_reached_and_the_kept_stay(bend: float, hold: float | None, block: Embedded) -> None:
    vectors = Vectors([block], torch.device("cpu"))
    wanted = Linear(drawn(3, 32), torch.full((3,), -1.0) - drawn(3, 32) @ block.vectors.flatten(), bend)
    kept = Linear(drawn(12, 32, seed=7), torch.full((12,), 4.0) - drawn(12, 32, seed=7) @ block.vectors.flatten(), bend)
    before = vectors.margins(kept, torch.zeros(32))
    learned = Learning(vectors, wanted, kept, FixConfig(hold=hold)).learn(3)
    assert (vectors.margins(wanted, learned.moved) > 0).all()
    if hold != 1.0:
        assert float((vectors.margins(kept, learned.moved) - before).abs().max()) < 0.5
    assert learned.chosen == (0, 1, 2)


def test_however_firmly_texts_are_held_corrections_are_mastered(block: Embedded) -> None:
    """Texts are as many as the vectors' numbers, all alike, and held a thousandfold: in a sum of squares no correction counted."""
    flat = block.vectors.flatten()
    common = drawn(1, 32, seed=7)
    kept_weights, weights = common + 0.05 * drawn(60, 32, seed=8), common + 0.3 * drawn(2, 32, seed=9)
    wanted = Linear(weights, torch.full((2,), -1.0) - weights @ flat)
    kept = Linear(kept_weights, torch.full((60,), 2.0) - kept_weights @ flat)
    vectors = Vectors([block], torch.device("cpu"))
    learned = Learning(vectors, wanted, kept, FixConfig(hold=1000.0, steps=20)).learn(2)
    assert (vectors.margins(wanted, learned.moved) > 0).all()


def test_the_dearest_is_given_up_first(block: Embedded) -> None:
    """The second correction asks of nearly the same direction as kept texts near their boundary; the first does not."""
    own, other = torch.eye(32)[:1], torch.eye(32)[1:2]
    flat = block.vectors.flatten()
    weights = torch.cat([own, other])
    wanted = Linear(weights, -torch.ones(2) - weights @ flat)
    near = other.repeat(10, 1) + 0.3 * drawn(10, 32, seed=6) * (torch.arange(32) > 1)
    kept = Linear(near, torch.full((10,), 0.3) - near @ flat)
    vectors = Vectors([block], torch.device("cpu"))
    learning = Learning(vectors, wanted, kept, FixConfig())
    assert learning.order == [0, 1]
    assert learning.expected(1) < learning.expected(2)
    learned = learning.learn(1)
    assert learned.chosen == (0,)
    assert float(vectors.margins(wanted, learned.moved)[0]) > 0


def test_a_correction_that_contradicts_another_ends_it_soon(block: Embedded) -> None:
    """One that can never be mastered: all steps that were allowed were taken for it."""
    own, flat = torch.eye(32)[:1], block.vectors.flatten()
    weights = torch.cat([own, -own, torch.eye(32)[1:2]])
    wanted = Linear(weights, -torch.ones(3) - weights @ flat)
    kept = Linear(drawn(12, 32, seed=7), torch.full((12,), 4.0) - drawn(12, 32, seed=7) @ flat)
    told: list[int] = []
    Learning(
        Vectors([block], torch.device("cpu")), wanted, kept, FixConfig(steps=20), lambda done, _of: told.append(done)
    ).learn(3)
    assert max(told) < 12


def test_values_that_are_not_finite_are_an_error(block: Embedded) -> None:
    vectors = Vectors([block], torch.device("cpu"))
    broken = Linear(drawn(2, 32), torch.tensor([float("nan"), -1.0]))
    with pytest.raises(Diverged, match="not finite"):
        Learning(vectors, broken, Linear(drawn(8, 32), torch.ones(8)), FixConfig()).learn(2)
