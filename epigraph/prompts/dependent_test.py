"""Kinds that depend on the input: what they give for a query, what is frozen, what a state brings back; factors of tasks."""

import pytest
import torch

from epigraph.prompts import (
    KINDS,
    Dependent,
    Embedded,
    Form,
    KeyValue,
    MixturePrompt,
    MultitaskPrompt,
    PoolPrompt,
    kept_numbers,
)
from epigraph.prompts.multitask import universal
from epigraph.prompts.packed import pack
from epigraph.prompts.pool import COMPONENTS, orthogonal_to

L, A, P, D, H = 3, 2, 4, 5, 6
DEPENDENT = [name for name, kind in KINDS.items() if kind.needs_query]
FORMS = ("token", "kv")


def start(form: str = "kv", seed: int = 0, blocks: int = 1) -> list[Form]:
    generator = torch.Generator().manual_seed(seed)
    if form == "token":
        return [Embedded(torch.randn(P, H, generator=generator)) for _ in range(blocks)]
    size = (L, A, P, D)
    return [KeyValue(torch.randn(size, generator=generator), torch.randn(size, generator=generator)) for _ in range(blocks)]


def queries(rows: int = 5, seed: int = 0, at: float = 0.0) -> torch.Tensor:
    return at + torch.randn(rows, H, generator=torch.Generator().manual_seed(seed))


def made(kind: str, form: str = "kv", blocks: int = 1) -> MixturePrompt | PoolPrompt:
    if kind == "mixture":
        sources = [start(form, seed, blocks) for seed in (1, 2)]
        return MixturePrompt(start(form, 0, blocks), sources, hidden=H)
    return PoolPrompt(start(form, 0, blocks), hidden=H)


@pytest.mark.parametrize("kind", DEPENDENT)
@pytest.mark.parametrize("form", FORMS)
def test_each_input_gets_its_own_form_and_every_parameter_reaches_it(kind: str, form: str) -> None:
    prompt = made(kind, form, blocks=2)
    found = prompt.form(queries())
    weight = torch.randn(5, 1, 1)
    for one, block in zip(found, start(form, blocks=2), strict=True):
        packed = one.vectors if isinstance(one, Embedded) else torch.stack([one.keys, one.values], 1)
        assert packed.shape == (5, *pack(block).shape)
        assert not torch.allclose(packed[0], packed[1])
    first = found[0].vectors if isinstance(found[0], Embedded) else found[0].keys.flatten(1)[:, :, None]
    (first * weight).pow(3).sum().backward()
    without = [name for name, p in prompt.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    assert without == ["own.1"]


@pytest.mark.parametrize("kind", DEPENDENT)
@pytest.mark.parametrize("form", FORMS)
def test_its_state_rebuilds_it(kind: str, form: str) -> None:
    prompt = made(kind, form, blocks=2)
    prompt.prepare(queries(12), queries(20, 3))
    again = KINDS[kind].from_state(dict(prompt.state_dict()))
    for mine, theirs in zip(prompt.form(queries()), again.form(queries()), strict=True):
        assert torch.equal(pack(mine), pack(theirs))


@pytest.mark.parametrize("kind", DEPENDENT)
def test_a_state_that_is_none_is_no_prompt(kind: str) -> None:
    with pytest.raises(ValueError, match="it holds no"):
        KINDS[kind].from_state({"center": torch.zeros(H)})


@pytest.mark.parametrize("kind", DEPENDENT)
def test_folding_keeps_it_whole_and_apart(kind: str) -> None:
    prompt = made(kind)
    (block,) = prompt.fold()
    assert isinstance(block, Dependent)
    kept = pack(block.prompt.form(queries())[0])  # type: ignore[operator]
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter.zero_()
    assert torch.equal(pack(block.prompt.form(queries())[0]), kept)  # type: ignore[operator]
    assert kept_numbers([block]) == sum(t.numel() for t in prompt.state_dict().values())


def test_the_published_sum_is_what_the_pool_computes() -> None:
    prompt = made("pool")
    assert isinstance(prompt, PoolPrompt)
    prompt.prepare(queries(12), queries(20, 3))
    query, (keys, attention) = queries(), prompt.addresses()
    seen = (query - prompt.center) / prompt.scale
    for b in range(len(query)):
        similar = [torch.cosine_similarity(seen[b] * attention[m], keys[m], dim=0) for m in range(COMPONENTS)]
        alpha = torch.softmax(torch.stack(similar) / 0.1, 0)
        expected = sum(alpha[m] * prompt.components(0)[m] for m in range(COMPONENTS))
        found = prompt.form(query)[0]
        assert isinstance(found, KeyValue)
        torch.testing.assert_close(torch.stack([found.keys[b], found.values[b]]), expected)


def test_a_later_task_trains_its_own_components_only_and_its_keys_begin_orthogonal() -> None:
    first = PoolPrompt(start(), hidden=H)
    first.prepare(queries(12), queries(20, 3))
    second = PoolPrompt(start(seed=5), hidden=H, older=first)
    second.prepare(queries(12, at=2.0), queries(20, 3))
    own = first.keys.detach()[:3]  # 6 dimensions: 4 old keys leave 2 to the new ones
    assert torch.equal(second.components(0)[:COMPONENTS], first.components(0))
    torch.testing.assert_close(second.keys @ own.T, torch.zeros(COMPONENTS, 3), atol=1e-5, rtol=0)
    assert {name for name, _ in second.named_parameters()} == {"own.0", "keys", "attention"}
    assert float(second.tasks) == 2


def test_nothing_is_left_of_a_vector_in_the_span_so_it_stays() -> None:
    basis = torch.eye(3)[:2]
    given = torch.tensor([[1.0, 0, 0], [1, 0, 1]])
    assert orthogonal_to(given, basis).tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("form", FORMS)
def test_task_prompts_share_one_parameter_and_start_at_it(form: str) -> None:
    first = MultitaskPrompt(start(form))
    second = first.for_another_task()
    assert second.shared[0] is first.shared[0]
    torch.testing.assert_close(pack(second.form()[0]), pack(start(form)[0]))
    with torch.no_grad():
        second.rows[0].mul_(3.0)
    torch.testing.assert_close(pack(second.form()[0]), 3 * pack(first.form()[0]))
    torch.testing.assert_close(pack(universal([first, second])[0]), 2 * pack(first.form()[0]))


@pytest.mark.parametrize("form", FORMS)
def test_the_factors_are_of_rank_one(form: str) -> None:
    prompt = MultitaskPrompt(start(form))
    torch.manual_seed(0)
    with torch.no_grad():
        for factor in prompt.factors:
            factor.copy_(torch.randn_like(factor))
    change = pack(prompt.form()[0]) / pack(start(form)[0])
    rows = change.movedim(-2, 0).flatten(1)
    assert torch.linalg.matrix_rank(rows, tol=1e-3) == 1
