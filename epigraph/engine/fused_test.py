"""The fused kernel gives what written-down scores give, and is asked only where it may be."""

import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.engine import Engine, fused
from epigraph.engine.attention import Blocks, Shared
from epigraph.engine.plain import plain_states
from epigraph.engine.stream import Tail
from epigraph.prompts import KeyValue
from epigraph.tasks.encode import Encoded

A, G, D, LAYER = 2, 3, 16, 0


def blocks(rows: int, tokens: int, shared: int, groups: int, *, tree: bool = False) -> Blocks:
    """Own tokens, causal or each beside the one before it, behind a shared block of keys and values."""
    own = torch.ones(tokens, tokens, dtype=torch.bool).tril()[None]
    if tree:
        own = own.repeat(rows, 1, 1)
        own[:, -1, -2] = False
    block = None
    if shared:
        keys, values = (torch.randn(1, groups, A, shared, D) for _ in range(2))
        block = Shared(keys, values, torch.arange(shared)[None].expand(rows, -1))
    return Blocks(torch.arange(shared, shared + tokens)[None].expand(rows, -1), own, shared=block)


def both_ways(seen: Blocks, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The outputs by the kernel, with scores written down, and so from the same numbers in fp32."""
    B, Q = seen.positions.shape
    query, key, value = (torch.randn(B, heads, Q, D).to(dtype) for heads in (A * G, A, A))
    asked = []
    kernel = fused.attend
    monkeypatch.setattr(fused, "attend", lambda *given: asked.append(1) or kernel(*given))

    def attend(dtype: torch.dtype) -> torch.Tensor:
        block = seen.shared and Shared(seen.shared.keys.to(dtype), seen.shared.values.to(dtype), seen.shared.positions)
        same = Blocks(seen.positions, seen.own, shared=block)
        found = same.attend(LAYER, query.to(dtype), key.to(dtype), value.to(dtype), window=None, softcap=None)
        assert found.dtype is dtype
        return found

    found = [attend(dtype)]
    assert asked
    monkeypatch.setattr(fused, "serves", lambda *_: False)
    return [*found, attend(dtype), attend(torch.float32)]


@pytest.mark.parametrize(
    ("rows", "tokens", "shared", "groups", "tree"),
    [(3, 64, 0, 1, False), (4, 5, 70, 1, False), (4, 5, 70, 2, True), (1, 1, 300, 1, False), (6, 50, 8, 3, True)],
)
def test_the_kernel_gives_what_written_scores_give(
    rows: int, tokens: int, shared: int, groups: int, tree: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, written, _ = both_ways(blocks(rows, tokens, shared, groups, tree=tree), torch.float32, monkeypatch)
    torch.testing.assert_close(ours, written, atol=2e-6, rtol=1e-5)


def test_in_bf16_it_is_as_near_as_bf16_is(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, written, exact = (each.float() for each in both_ways(blocks(2, 6, 60, 1), torch.bfloat16, monkeypatch))
    off, theirs = (float((found - exact).norm() / exact.norm()) for found in (ours, written))
    assert off < 1.2 * theirs < 0.02


def test_few_keys_and_passes_with_a_gradient_are_not_its_own() -> None:
    query, key = torch.randn(1, A * G, 4, D), torch.randn(1, A, 4, D)
    long = torch.randn(1, A, fused.FEWEST_KEYS, D)
    assert fused.serves(query, long, long, None)
    assert fused.serves(query, key, key, (long, long))
    assert not fused.serves(query, key, key, None)
    trained = long.clone().requires_grad_()
    assert not fused.serves(query, key, key, (trained, trained))
    with torch.no_grad():
        assert fused.serves(query, key, key, (trained, trained))
    assert not fused.serves(query, long, torch.randn(1, A, fused.FEWEST_KEYS, D // 2), None)  # values of another width


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "gpt2"])
def test_long_texts_and_long_prompts_are_as_the_stock_forward_has_them(name: str) -> None:
    engine = Engine(toy_base(name), keep=False)
    base = engine.base
    generator = torch.Generator().manual_seed(0)
    tokens = base.embedding.weight.shape[0]
    texts = [torch.randint(3, tokens, (n,), generator=generator).tolist() for n in (70, 9, 55)]
    rows = [Encoded(((), tuple(text))) for text in texts]
    shape = (base.layers, base.heads, 2 * fused.FEWEST_KEYS, base.head_size)
    form = KeyValue(*(torch.randn(shape, generator=generator) for _ in range(2)))
    with torch.no_grad():
        done = engine.forward(rows, [form], Tail([()] * len(rows)))
    for b, row in enumerate(rows):
        ours = done.hidden[b, done.stream.ends[b] - 1]
        torch.testing.assert_close(ours, plain_states(base, row, [form])[-1], atol=1e-5, rtol=1e-4)
