"""The vote of several prompts in one pass is the mean of their own probabilities."""

import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.engine import Engine, Tree
from epigraph.engine.voting import vote
from epigraph.prompts import Embedded, Form
from epigraph.tasks.encode import Encoder, build_trie
from epigraph.tasks.row import Row
from epigraph.tasks.template import Template


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("text", ["{text}{prompt}:", "{prompt}{text}:", "{prompt}{text}{prompt}:"])
@pytest.mark.parametrize("lengths", [(3, 3, 3), (2, 5, 1)])
def test_a_vote_is_the_mean_of_the_members(text: str, by_layer: bool, lengths: tuple[int, ...]) -> None:
    engine, template = Engine(toy_base()), Template(text)
    tree = Tree.build(build_trie({"a": "good", "b": "goodness", "c": "bad"}, template, engine.base), engine.base)
    encoder = Encoder(template, engine.base, 200)
    rows = [encoder.encode(Row(fields={"text": "x" * n})) for n in (3, 9, 1, 4, 4)]
    generator = torch.Generator().manual_seed(0)

    def form(length: int) -> Form:
        vectors = Embedded(0.5 * torch.randn(length, engine.base.hidden, generator=generator))
        return engine.key_values(vectors) if by_layer else vectors

    prompts = [[form(length) for _ in range(template.blocks)] for length in lengths]
    with torch.no_grad():
        alone = torch.stack([engine.classify(rows, forms, tree).exp() for forms in prompts])
        together = vote(engine, rows, prompts, tree)
    torch.testing.assert_close(together.exp(), alone.mean(0), atol=1e-5, rtol=1e-4)
    assert float((alone[0] - alone[1]).abs().max()) > 1e-3


def test_prompts_vote_by_plain_concatenation_too() -> None:
    engine, template = Engine(toy_base()), Template("{text}{prompt}:")
    tree = Tree.build(build_trie({"a": "good", "b": "bad"}, template, engine.base), engine.base)
    rows = [Encoder(template, engine.base, 200).encode(Row(fields={"text": "abc"}))]
    prompts = [[Embedded(torch.randn(2, engine.base.hidden))] for _ in range(2)]
    expected = vote(engine, rows, prompts, tree)
    engine.use(plain="to see that it is the same")
    torch.testing.assert_close(vote(engine, rows, prompts, tree), expected, atol=1e-4, rtol=1e-4)
