"""A turned key is the key that the same token would have had there."""

import pytest
import torch
from torch import Tensor

from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.engine.attention import Blocks
from epigraph.engine.trunk import stack_captured
from epigraph.engine.turning import turn_keys


def keys_at(engine: Engine, start: int) -> Tensor:
    """The keys of a text that begins at a position [L, A, T, D]: rotary positions are relative, so nothing else differs."""
    embedded = engine.base.embed(torch.tensor([engine.base.tokenize("a text of many letters")]))
    T = embedded.shape[1]
    blocks = Blocks(torch.arange(start, start + T)[None], torch.ones(1, T, T, dtype=torch.bool).tril(), captured={})
    with torch.no_grad():
        engine.trunk.run(embedded, blocks)
    return stack_captured(blocks)[0][:, 0]


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "gpt_neox", "cohere", "phi3"])
def test_keys_are_turned_to_where_they_shall_stand(architecture: str) -> None:
    """Layers of one base may turn at different speeds (gemma3), some dimensions not at all (gpt_neox), neighbours (cohere)."""
    engine = Engine(toy_base(architecture))
    before, after = keys_at(engine, 40), keys_at(engine, 3)
    length = before.shape[2]
    found = turn_keys(engine, before, range(40, 40 + length), range(3, 3 + length))
    torch.testing.assert_close(found, after, atol=2e-4, rtol=1e-3)
    assert not torch.allclose(before, after, atol=1e-2)
    forth = turn_keys(engine, after, range(3, 3 + length), range(40, 40 + length))
    torch.testing.assert_close(forth, before, atol=2e-4, rtol=1e-3)


def test_learned_positions_are_no_turn() -> None:
    engine = Engine(toy_base("gpt2"))
    keys = keys_at(engine, 40)
    assert torch.equal(turn_keys(engine, keys, range(40, 62), range(22)), keys)


def test_what_stays_is_not_touched() -> None:
    engine = Engine(toy_base())
    keys = keys_at(engine, 0)
    found = turn_keys(engine, keys, range(22), [0, *range(2, 23)])
    assert torch.equal(found[:, :, 0], keys[:, :, 0])
    assert not torch.allclose(found[:, :, 1:], keys[:, :, 1:])
