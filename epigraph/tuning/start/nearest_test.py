import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.tuning.start.nearest import rank


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_base())


def of_text(engine: Engine, text: str) -> Embedded:
    return engine.embedded_text(engine.base.tokenize(text))


@pytest.mark.parametrize("by_layer", [False, True])
def test_the_prompt_of_the_same_words_is_the_nearest(engine: Engine, by_layer: bool) -> None:
    def form(text: str) -> Form:
        return engine.key_values(of_text(engine, text)) if by_layer else of_text(engine, text)

    stored = [
        (name, [form(text)]) for name, text in (("far", "xyz zyx qq"), ("near", "good, bad, bad"), ("other", "1234567"))
    ]
    found = rank(engine, [form("good, bad. good")], stored)
    assert found[0].reference == "near"
    assert 1 >= found[0].similarity > found[1].similarity >= found[2].similarity >= -1
    same = rank(engine, [form("good, bad. good")], [("same", [form("good, bad. good")])])
    assert same[0].similarity == pytest.approx(1.0, abs=1e-5)


def test_vectors_are_compared_as_keys_and_values_and_not_the_other_way(engine: Engine) -> None:
    vectors = of_text(engine, "good")
    keys = engine.key_values(vectors)
    assert [s.reference for s in rank(engine, [keys], [("v", [vectors]), ("k", [keys])])] in (["v", "k"], ["k", "v"])
    assert [s.reference for s in rank(engine, [vectors], [("v", [vectors]), ("k", [keys])])] == ["v"]
    for stored in ([], [("k", [keys])]):
        with pytest.raises(ConfigError, match=r"no stored prompt of this base can be started from\. Tune one first"):
            rank(engine, [vectors], stored)


def test_a_prompt_of_one_vector_is_compared_by_it(engine: Engine) -> None:
    one = Embedded(torch.randn(1, engine.base.hidden))
    assert rank(engine, [one], [("a", [one])])[0].similarity == pytest.approx(1.0)
    assert isinstance(engine.key_values(one), KeyValue)
