import pytest
import torch

from epigraph.prompts import Embedded, TokenPrompt
from epigraph.tuning.optimiser import Optimiser


def make(steps: int = 20, clip: float = 1.0) -> tuple[TokenPrompt, Optimiser]:
    prompt = TokenPrompt([Embedded(torch.ones(1, 2))])
    return prompt, Optimiser(prompt, rate=0.5, steps=steps, warmup=0.25, clip=clip)


def test_the_rate_rises_and_falls_as_the_formula_says() -> None:
    _, optimiser = make()
    assert optimiser.rate_at(0) == pytest.approx(0.5 / 5)
    assert optimiser.rate_at(4) == pytest.approx(0.5 * (1 - 4 / 20))
    assert optimiser.rate_at(19) == pytest.approx(0.5 / 20)
    optimiser.scale = 0.5
    assert optimiser.rate_at(0) == pytest.approx(0.5 / 10)


def test_a_step_equals_torch_adamw_and_takes_the_norm_before_clipping() -> None:
    prompt, optimiser = make()
    other = torch.nn.Parameter(prompt.vectors[0].detach().clone())
    adam = torch.optim.AdamW([other], lr=optimiser.rate_at(0), weight_decay=0.0)
    (prompt.vectors[0] * 30).sum().backward()
    assert optimiser.step(0) == pytest.approx(30 * 2**0.5)
    other.grad = torch.full_like(other, 30 / (30 * 2**0.5))
    adam.step()
    torch.testing.assert_close(prompt.vectors[0], other)
    assert prompt.vectors[0].grad is None


def test_one_gradient_of_a_hundred_times_the_usual_norm_moves_no_more_than_twice_the_usual() -> None:
    """One spike at a high rate drove the keys of a prompt where short questions were answered with the labels' shares."""
    moved = []
    for spike in (2.0, 200.0):
        prompt, optimiser = make(clip=1000.0)
        for step in range(12):
            (prompt.vectors[0] * (spike if step == 8 else 1.0)).sum().backward()
            optimiser.step(step)
        moved.append(prompt.vectors[0].detach().clone())
    torch.testing.assert_close(moved[0], moved[1])


def test_a_first_gradient_of_zero_stops_nothing() -> None:
    prompt, optimiser = make()
    for step in range(3):
        (prompt.vectors[0] * step).sum().backward()
        optimiser.step(step)
    assert (prompt.vectors[0] < 0.9).all()


def test_its_state_is_all_it_needs_to_go_on() -> None:
    prompt, optimiser = make()
    again, restored = make()
    for step in range(6):
        if step == 3:
            again.load_state_dict(prompt.state_dict())
            restored.restore(optimiser.state())
        for p, o in ((prompt, optimiser), (again, restored)):
            ((p.vectors[0] - step) ** 2).sum().backward()
            o.step(step)
    assert torch.equal(prompt.vectors[0], again.vectors[0])
    restored.restore({})
    assert restored.state() == {}
