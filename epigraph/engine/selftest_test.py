"""A base that our attention would get wrong is concatenated or refused by name; what was found is remembered."""

from typing import Any

import pytest
import torch
import transformers

from epigraph.assets import home
from epigraph.base import Base, wrap_model
from epigraph.base.toy import VOCABULARY, toy_base, toy_tokenizer
from epigraph.engine import Engine, attention, selftest
from epigraph.engine.attention import Blocks
from epigraph.engine.selftest import find_problem
from epigraph.errors import Unsupported
from epigraph.prompts import Embedded


def toy_bloom(seed: int = 0) -> Base:
    transformers.set_seed(seed)
    config = transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=2, n_head=4)
    return wrap_model(transformers.BloomForCausalLM(config), toy_tokenizer(), name="toy-bloom")


def test_alibi_is_run_by_plain_concatenation() -> None:
    """Its attention does not go through the interface: the prompt would have been ignored without a word."""
    engine = Engine(toy_bloom())
    assert engine.plain == "its attention does not go through transformers' interface"
    assert engine.base.model.config._attn_implementation != attention.NAME
    assert "toy-bloom is run by plain concatenation" in engine.warning


def test_a_base_that_is_served_warns_of_nothing() -> None:
    engine = Engine(toy_base("llama", seed=70))
    assert (engine.plain, engine.warning) == ("", "")
    assert engine.base.model.config._attn_implementation == attention.NAME


def test_positions_that_turn_with_the_length_are_run_by_plain_concatenation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen keys were rotated for a short text and read behind a long one: short texts alone passed the test."""
    monkeypatch.setattr(selftest, "turning_length", lambda _base: 20)
    assert Engine(toy_base("phi3", seed=71)).plain == "its rotary positions turn otherwise in texts of more than 20 tokens"


def test_a_base_without_heads_runs_by_plain_concatenation() -> None:
    config = transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, state_size=4)
    engine = Engine(wrap_model(transformers.MambaForCausalLM(config), toy_tokenizer(), name="toy-mamba"))
    assert "toy-mamba is run by plain concatenation" in engine.warning
    with pytest.raises(Unsupported, match="takes no keys and values"):
        engine.key_values(Embedded(torch.zeros(1, 16)))


def test_a_base_that_reads_tokens_besides_vectors_is_refused_by_name() -> None:
    """Gemma 3n looks tokens up at every layer: given vectors it answers otherwise, and nobody would have known."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "num_kv_shared_layers": 2}
    own = {"hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": VOCABULARY, "laurel_rank": 4}
    layers = {"layer_types": ["sliding_attention", "full_attention"] * 2, "activation_sparsity_pattern": [0.0] * 4}
    config = transformers.Gemma3nTextConfig(**sizes, **heads, **own, **layers, max_position_embeddings=64)
    torch.manual_seed(0)
    model = transformers.Gemma3nForCausalLM(config)
    with torch.no_grad():  # what its layers look up is scaled by zero at first
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    with pytest.raises(Unsupported, match=r"gemma3n.*Plain concatenation fails too: label logits differ"):
        Engine(wrap_model(model, toy_tokenizer(), name="toy-gemma3n"))


def test_a_base_whose_forward_breaks_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    base = toy_bloom(72)

    def broken(**_: Any) -> None:
        raise ValueError("no vectors, please")

    monkeypatch.setattr(base.trunk, "forward", broken)
    with pytest.raises(Unsupported, match=r"bloom.*fails too: its forward pass breaks \(ValueError: no vectors, please\)"):
        Engine(base)


def test_a_base_that_lets_padding_through_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    base = toy_bloom(73)
    forward = base.trunk.forward

    def leaky(*given: Any, **named: Any) -> Any:
        done = forward(*given, **named)
        done.last_hidden_state = done.last_hidden_state + done.last_hidden_state.mean(1, keepdim=True)
        return done

    monkeypatch.setattr(base.trunk, "forward", leaky)
    with pytest.raises(Unsupported, match="fails too: states differ"):
        Engine(base)


def test_a_prompt_that_no_gradient_reaches_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(toy_bloom(74))
    monkeypatch.setattr(selftest, "_gradient", lambda states, form: form.vectors.detach() * 0)
    assert selftest.find_plain_problem(engine, engine.plain) == "no gradient reaches the prompt"


@pytest.mark.parametrize("make", [lambda: toy_base("llama", seed=77), lambda: toy_bloom(77)])
def test_is_remembered(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Engine(make())
    monkeypatch.setattr(selftest, "find_problem", lambda _engine: pytest.fail("tested again"))
    monkeypatch.setattr(selftest, "find_plain_problem", lambda _engine, _reason: pytest.fail("tested again"))
    again = Engine(make())
    assert again.plain == first.plain
    assert Engine(first.base).plain == first.plain
    assert again.base.model.config._attn_implementation == first.base.model.config._attn_implementation
    assert any((home() / "selftests").glob("*.plain" if first.plain else "*"))


def test_an_empty_note_is_no_note() -> None:
    """A disk that was full left the reason empty: the base would have been run by our attention, untested."""
    engine = Engine(toy_bloom(80))
    note = (home() / "selftests" / selftest._name(engine)).with_suffix(".plain")
    note.write_text("")
    assert Engine(toy_bloom(80)).plain == engine.plain
    assert note.read_text() == engine.plain


def test_a_head_that_is_not_the_models_own_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(toy_base("granite", seed=78))
    monkeypatch.setattr(Base, "_shape_logits", lambda _self, logits: logits)
    assert find_problem(engine) == "label logits differ from those of its own head"


def test_an_attention_that_forgets_the_window_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(toy_base("mistral", seed=79))
    monkeypatch.setattr(Blocks, "bias", lambda self, _window, full=Blocks.bias: full(self, None))
    assert find_problem(engine) == "states differ from those of its own attention"
