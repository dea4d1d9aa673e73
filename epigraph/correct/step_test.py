from dataclasses import replace

import pytest
import torch
from torch import Tensor

from epigraph.correct.step import HOLDS, MISS, NEARLY, Held, Place


def drawn(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def place_of(hold: float = 100.0, kept: int = 6) -> Place:
    """Three corrections of which one is met already, and texts that are held."""
    held = Held(drawn(kept, 20, seed=1).double(), drawn(kept, seed=4).double().abs(), hold)
    return Place(held, drawn(3, 20).double(), torch.tensor([1.0, 0.5, -9.0]).double(), torch.zeros(kept).double())


def test_the_move_is_the_minimum_of_what_the_docstring_says() -> None:
    """The conditions hold, the one that needs no force has none, and the objective's gradient lies in the others' directions."""
    place = place_of()
    place = replace(place, asked_of_held=0.1 * drawn(6, seed=5).double())
    forces, _ = place.solved(range(3))
    move = place.move(range(3)).requires_grad_()
    assert [bool(force > 0) for force in forces] == [True, True, False]
    assert (place.own @ move - place.asked > -1e-3).all()
    held = place.held
    loss = (move.pow(2).sum() + ((held.gradients @ move - place.asked_of_held).pow(2) / held.loose).sum()) / 2
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(move.grad, place.own.T @ forces, rtol=1e-6, atol=1e-6)


def test_leaving_one_out_is_what_the_formula_says() -> None:
    """The published equation against the slow way: solve again without each held text, and see where it goes."""
    place = place_of()
    told = place.away(range(3))
    for k in range(6):
        rest = [i for i in range(6) if i != k]
        gradients, own = place.held.gradients[rest], place.own[:2]
        products = gradients @ gradients.T + torch.diag(place.held.loose[rest])
        metric = own @ own.T - own @ gradients.T @ torch.linalg.solve(products, gradients @ own.T)
        metric += MISS * (place.own @ place.own.T).diagonal().mean() * torch.eye(2).double()
        force = torch.linalg.solve(metric, place.asked[:2])
        move = own.T @ force - gradients.T @ torch.linalg.solve(products, gradients @ own.T @ force)
        assert float(place.held.gradients[k] @ move) == pytest.approx(float(told[k]), abs=1e-8)


def test_the_dearest_is_the_one_without_which_the_step_is_the_smallest() -> None:
    place = replace(place_of(), asked=torch.tensor([0.2, 1.0, 0.4]).double())

    def size(chosen: list[int]) -> float:
        return float(place.solved(chosen)[0] @ place.wanted[chosen])

    without = {c: size([one for one in range(3) if one != c]) for c in range(3)}
    assert place.dearest([0, 1, 2]) == min(without, key=lambda c: without[c])


@pytest.mark.parametrize("own", [0.0, 0.3, 1.0])
def test_texts_are_held_as_leaving_each_out_says(own: float) -> None:
    """Texts that share a few directions are held firmly; those of which each has its own are not worth bending to."""
    few = drawn(4, 200, seed=1).double()
    shared = drawn(3, 4, seed=3).double() @ few, drawn(40, 4, seed=2).double() @ few
    held = Held((shared[1] + own * drawn(40, 200, seed=5)).double(), torch.full((40,), 0.01).double(), 1.0)
    place = Place(held, (shared[0] + drawn(3, 200)).double(), torch.ones(3).double(), torch.zeros(40).double())
    chosen = place.best_hold()
    shares = {hold: place.by(hold).expected(range(3)) for hold in HOLDS}
    assert shares[chosen] <= NEARLY * min(shares.values())
    assert all(shares[hold] > NEARLY * min(shares.values()) for hold in HOLDS if hold < chosen)
