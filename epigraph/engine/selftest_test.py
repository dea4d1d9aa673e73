"""A base that the engine would get wrong is refused by name; one that it serves is tested once."""

import pytest
import transformers

from epigraph.base import Base, wrap_model
from epigraph.base.toy import VOCABULARY, toy_base, toy_tokenizer
from epigraph.engine import Engine, selftest
from epigraph.engine.attention import Blocks
from epigraph.engine.selftest import find_problem
from epigraph.errors import Unsupported


def test_alibi_is_refused_by_name() -> None:
    """Its attention does not go through the interface: the prompt would have been ignored without a word."""
    config = transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=2, n_head=4)
    with pytest.raises(Unsupported, match=r"architecture bloom.*cannot be served"):
        Engine(wrap_model(transformers.BloomForCausalLM(config), toy_tokenizer(), name="toy-bloom"))


def test_a_recurrent_base_is_refused_by_name() -> None:
    config = transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, state_size=4)
    with pytest.raises(Unsupported, match=r"architecture mamba.*cannot be served"):
        Engine(wrap_model(transformers.MambaForCausalLM(config), toy_tokenizer(), name="toy-mamba"))


def test_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    base = toy_base("llama", seed=77)
    Engine(base)
    monkeypatch.setattr(selftest, "find_problem", lambda _engine: pytest.fail("tested again"))
    Engine(base)


def test_a_head_that_is_not_the_models_own_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(toy_base("granite", seed=78))
    monkeypatch.setattr(Base, "_shape_logits", lambda _self, logits: logits)
    assert find_problem(engine) == "label logits differ from those of its own head"


def test_an_attention_that_forgets_the_window_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(toy_base("mistral", seed=79))
    monkeypatch.setattr(Blocks, "bias", lambda self, _window, full=Blocks.bias: full(self, None))
    assert find_problem(engine) == "states differ from those of its own attention"
