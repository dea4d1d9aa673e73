"""What holds for every kind: its forms at the start are the start, they fold, and they carry gradient."""

import pytest
import torch

from epigraph.prompts import KINDS, Embedded, Form, KeyValue
from epigraph.prompts.init import random_vectors, repeat_to, resize, sample_vocabulary

L, A, P, D, H = 3, 2, 4, 5, 6
PLAIN = [name for name, kind in KINDS.items() if not kind.needs_query]  # of the others see dependent_test.py


def start(kind: str, blocks: int = 2) -> list[Form]:
    torch.manual_seed(0)
    if KINDS[kind].start_form is Embedded:
        return [Embedded(torch.randn(P, H) * 0.02) for _ in range(blocks)]
    return [KeyValue(torch.randn(L, A, P, D) * 7, torch.randn(L, A, P, D) * 0.1) for _ in range(blocks)]


def tensors(forms: list[Form]) -> list[torch.Tensor]:
    return [t for form in forms for t in ([form.vectors] if isinstance(form, Embedded) else [form.keys, form.values])]


@pytest.mark.parametrize("kind", PLAIN)
def test_before_training_the_forms_are_the_start(kind: str) -> None:
    given = start(kind)
    for found, expected in zip(tensors(list(KINDS[kind](given).form())), tensors(given), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", PLAIN)
def test_every_parameter_reaches_a_form(kind: str) -> None:
    prompt = KINDS[kind](start(kind))
    sum(t.pow(2).sum() for t in tensors(list(prompt.form()))).backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in prompt.parameters())
    assert prompt.trained_parameters == sum(p.numel() for p in prompt.parameters())


@pytest.mark.parametrize("kind", PLAIN)
def test_a_folded_prompt_is_plain_and_apart(kind: str) -> None:
    prompt = KINDS[kind](start(kind))
    folded = tensors(prompt.fold())
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter.zero_()
    assert all(t.dtype == torch.float32 and not t.requires_grad and bool((t != 0).any()) for t in folded)


@pytest.mark.parametrize("kind", PLAIN)
def test_parameters_are_in_units_of_their_first_values(kind: str) -> None:
    """One learning rate serves layers, tables and networks whose sizes differ by orders of magnitude. Offsets begin at 0."""
    for parameter in KINDS[kind](start(kind)).parameters():
        expected = 0.0 if kind == "context" else 1.0
        assert float(parameter.detach().pow(2).mean().sqrt()) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", PLAIN)
def test_the_same_step_moves_a_larger_start_by_as_much_more(kind: str) -> None:
    """A rate means the same whatever the size of the embedding table, or of a layer's keys."""
    moved = []
    for size in (1.0, 8.0):
        given = [type(form)(**{n: size * t for n, t in vars(form).items()}) for form in start(kind)]
        prompt = KINDS[kind](given)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in prompt.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        moved.append(tensors(prompt.fold()))
    for small, large in zip(*moved, strict=True):
        torch.testing.assert_close(8.0 * small, large, atol=1e-5, rtol=1e-4)


def test_a_start_of_zeros_stays_finite() -> None:
    for kind in (KINDS[name] for name in PLAIN):
        zero = torch.zeros(P, H) if kind.start_form is Embedded else torch.zeros(L, A, P, D)
        prompt = kind([Embedded(zero) if kind.start_form is Embedded else KeyValue(zero, zero)])
        assert all(bool(torch.isfinite(t).all()) for t in tensors(list(prompt.form())))


def test_ids_are_repeated_or_cut() -> None:
    assert repeat_to([1, 2], 5) == [1, 2, 1, 2, 1]
    assert repeat_to([1, 2, 3], 2) == [1, 2]
    assert repeat_to([], 2) == []


def test_vocabulary_samples_are_different_frequent_and_not_special() -> None:
    found = sample_vocabulary(50_000, 100, torch.Generator().manual_seed(0), special=range(10))
    assert len(set(found)) == 100
    assert all(10 <= i < 5000 for i in found)
    assert found == sample_vocabulary(50_000, 100, torch.Generator().manual_seed(0), special=range(10))


def test_random_vectors_have_the_tables_rms() -> None:
    vectors = random_vectors(200, 100, 0.03, torch.Generator().manual_seed(0))
    assert float(vectors.pow(2).mean().sqrt()) == pytest.approx(0.03, rel=0.05)


def test_resizing_keeps_the_beginning() -> None:
    form = Embedded(torch.arange(6.0).view(3, 2))
    assert resize(form, 2).vectors.tolist() == [[0, 1], [2, 3]]
    assert resize(form, 4).vectors.tolist() == [[0, 1], [2, 3], [4, 5], [0, 1]]
