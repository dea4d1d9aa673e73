"""More of every kind in KINDS: what resuming and storing rely on."""

import pytest
import torch

from epigraph.prompts import KINDS, Embedded, Form, KeyValue
from epigraph.prompts.kv import layer_rms

H, L, A, D = 16, 2, 2, 4
PLAIN = [name for name, kind in KINDS.items() if not kind.needs_query]  # of the others see dependent_test.py


def start(kind: str, length: int = 3, seed: int = 0) -> Form:
    generator = torch.Generator().manual_seed(seed)
    if KINDS[kind].start_form is Embedded:
        return Embedded(0.02 * torch.randn(length, H, generator=generator))
    size = (L, A, length, D)
    scale = torch.tensor([10.0, 0.1]).view(L, 1, 1, 1)
    return KeyValue(scale * torch.randn(size, generator=generator), 3 * torch.randn(size, generator=generator))


def tensors(form: Form) -> list[torch.Tensor]:
    return [form.vectors] if isinstance(form, Embedded) else [form.keys, form.values]


@pytest.mark.parametrize("kind", PLAIN)
def test_its_state_is_all_that_was_trained(kind: str) -> None:
    prompt, again = KINDS[kind]([start(kind)]), KINDS[kind]([start(kind)])
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter.add_(1.0)
    again.load_state_dict(prompt.state_dict())
    for mine, theirs in zip(tensors(prompt.fold()[0]), tensors(again.fold()[0]), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", PLAIN)
def test_training_does_not_change_the_start_nor_a_folded_form(kind: str) -> None:
    given = start(kind)
    before = [t.clone() for t in tensors(given)]
    prompt = KINDS[kind]([given])
    folded = prompt.fold()[0]
    kept = [t.clone() for t in tensors(folded)]
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter.mul_(2.0)
    assert all(torch.equal(a, b) for a, b in zip(tensors(given), before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(tensors(folded), kept, strict=True))


def test_each_layers_keys_and_values_have_their_own_unit() -> None:
    form = start("kv")
    assert isinstance(form, KeyValue)
    units = layer_rms(torch.stack([form.keys, form.values])).flatten()
    expected = [float(t[layer].pow(2).mean().sqrt()) for t in (form.keys, form.values) for layer in range(L)]
    assert units.tolist() == pytest.approx(expected)


def test_kinds_are_listed_under_their_own_names() -> None:
    assert all(kind.kind == name and kind.default_rate > 0 for name, kind in KINDS.items())
