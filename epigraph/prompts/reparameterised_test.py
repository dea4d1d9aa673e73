"""What is particular to single kinds: their networks, mixes, frozen vectors and balls."""

import pytest
import torch

from epigraph.errors import ConfigError
from epigraph.prompts import KINDS, Embedded, KeyValue, Repeated, Supply, TokenPrompt
from epigraph.prompts.context import RADIUS, ContextPrompt
from epigraph.prompts.network import Network
from epigraph.prompts.sink import SinkPrompt
from epigraph.prompts.superpos import ROWS, SuperposPrompt

H = 6


def vectors(length: int = 4, seed: int = 0) -> Embedded:
    return Embedded(0.02 * torch.randn(length, H, generator=torch.Generator().manual_seed(seed)))


def key_values(length: int = 4) -> KeyValue:
    generator = torch.Generator().manual_seed(0)
    return KeyValue(torch.randn(3, 2, length, 5, generator=generator), torch.randn(3, 2, length, 5, generator=generator))


def step(prompt: torch.nn.Module, seed: int = 1, size: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def test_a_network_is_linear_layers_with_an_activation_between() -> None:
    network = Network([3, 5, 2], torch.tanh, torch.Generator().manual_seed(0))
    first, second = (w * network.get_buffer(f"weight_unit{i}") for i, w in enumerate(network.weights))
    low, high = (b * network.get_buffer(f"bias_unit{i}") for i, b in enumerate(network.biases))
    x = torch.randn(4, 3)
    torch.testing.assert_close(network(x), torch.tanh(x @ first.T + low) @ second.T + high)
    assert float(first.detach().abs().max()) <= 3**-0.5


@pytest.mark.parametrize("kind", ["ptuning", "residual", "prefix"])
def test_a_network_is_drawn_at_the_seed(kind: str) -> None:
    start = [key_values() if KINDS[kind].start_form is KeyValue else vectors()]
    parameters = [
        torch.cat([p.flatten() for p in KINDS[kind].begin(start, Supply(seed=seed)).parameters()]) for seed in (3, 3, 4)
    ]
    assert torch.equal(parameters[0], parameters[1])
    assert not torch.equal(parameters[0], parameters[2])


@pytest.mark.parametrize("kind", ["ptuning", "residual"])
def test_what_one_vector_learns_moves_the_others(kind: str) -> None:
    """That is what the shared network is for: without it the gradient of one vector is its own."""
    prompt = KINDS[kind]([vectors()])
    (form,) = prompt.form()
    assert isinstance(form, Embedded)
    form.vectors[0].sum().backward()
    with torch.no_grad():
        for parameter in prompt.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.5 * parameter.grad.sign())
    moved = (prompt.fold()[0].vectors - vectors().vectors).abs().sum(-1)  # type: ignore[union-attr]
    assert bool((moved > 0).all())


def test_superpos_mixes_its_own_rows_with_sampled_ones() -> None:
    asked: list[int] = []

    def vocabulary(count: int) -> torch.Tensor:
        asked.append(count)
        return torch.ones(count, H)

    prompt = SuperposPrompt.begin([vectors(), vectors(2, 1)], Supply(vocabulary=vocabulary))
    assert isinstance(prompt, SuperposPrompt)
    assert asked == [ROWS]
    assert prompt.rows.shape == (6 + ROWS, H)
    with torch.no_grad():
        prompt.weights[1][0] = 0.0
        prompt.weights[1][0, -1] = (6 + ROWS) ** 0.5
    mixed = prompt.fold()[1]
    assert isinstance(mixed, Embedded)
    torch.testing.assert_close(mixed.vectors[0], torch.ones(H))
    torch.testing.assert_close(mixed.vectors[1], vectors(2, 1).vectors[1])


def test_a_sink_stays_and_the_rest_moves() -> None:
    prompt = SinkPrompt([key_values()])
    step(prompt)
    (form,) = prompt.fold()
    assert isinstance(form, KeyValue)
    assert torch.equal(form.keys[:, :, 0], key_values().keys[:, :, 0])
    assert torch.equal(form.values[:, :, 0], key_values().values[:, :, 0])
    assert not torch.equal(form.keys[:, :, 1:], key_values().keys[:, :, 1:])
    assert not any("first" in name for name, _ in prompt.named_parameters())


def test_a_sink_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a sink prompt of 1 vector has nothing to train.*--length 2"):
        SinkPrompt([key_values(1)])


def test_a_context_stays_in_its_ball_and_its_answers_where_they_are() -> None:
    answers = torch.tensor([False, True, False, False])
    prompt = ContextPrompt.begin([vectors()], Supply(answers=[answers]))
    step(prompt, size=3.0)
    prompt.after_step()
    (form,) = prompt.fold()
    assert isinstance(form, Embedded)
    unit = vectors().vectors.pow(2).mean().sqrt()
    reached = (form.vectors - vectors().vectors).pow(2).mean(-1).sqrt() / unit
    assert reached.tolist() == pytest.approx([RADIUS, 0.0, RADIUS, RADIUS], rel=1e-4)


def test_an_offset_inside_the_ball_is_left_alone() -> None:
    prompt = ContextPrompt([vectors()])
    step(prompt, size=0.01)
    before = [p.detach().clone() for p in prompt.parameters()]
    prompt.after_step()
    assert all(torch.allclose(p, b, rtol=1e-6) for p, b in zip(prompt.parameters(), before, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_done_after_a_step_that_was_none(kind: str) -> None:
    prompt = KINDS[kind]([key_values() if KINDS[kind].start_form is KeyValue else vectors()])
    before = [p.detach().clone() for p in prompt.parameters()]
    prompt.after_step()
    assert all(torch.equal(p, b) for p, b in zip(prompt.parameters(), before, strict=True))


def test_a_repeated_block_is_trained_in_all_its_places() -> None:
    prompt = Repeated(TokenPrompt([vectors()]), 3)
    assert prompt.trained_parameters == 4 * H
    forms = prompt.form()
    assert len(forms) == 3
    sum(form.vectors.sum() for form in forms).backward()  # type: ignore[union-attr]
    alone = TokenPrompt([vectors()])
    alone.form()[0].vectors.sum().backward()
    mine, theirs = next(prompt.parameters()).grad, next(alone.parameters()).grad
    assert mine is not None
    assert theirs is not None
    torch.testing.assert_close(mine, 3 * theirs)


def test_a_repeated_context_is_kept_in_its_ball() -> None:
    prompt = Repeated(ContextPrompt([vectors()]), 2)
    step(prompt, size=5.0)
    prompt.after_step()
    assert all(float(p.detach().pow(2).mean(-1).sqrt().max()) <= RADIUS * 1.0001 for p in prompt.parameters())
