"""The embedded base: fetched once, verified, and the same for us and for stock transformers."""

import os

import pytest
import torch

import epigraph
from epigraph.assets import demo_rows
from epigraph.base.fingerprint import weights_hash
from epigraph.engine.plain import plain_states
from epigraph.engine.stream import Tail
from epigraph.prompts import KeyValue
from epigraph.tasks.encode import Encoded

pytestmark = pytest.mark.base


@pytest.fixture(scope="module")
def base() -> epigraph.Base:
    before = os.environ["EPIGRAPH_HOME"]
    os.environ["EPIGRAPH_HOME"] = os.environ["EPIGRAPH_REAL_HOME"]
    loaded = epigraph.load_base(dtype="float32")
    os.environ["EPIGRAPH_HOME"] = before
    return loaded


def test_stock_transformers_loads_its_folder(base: epigraph.Base) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    assert not hasattr(model.config, "quantization_config")
    assert weights_hash(model) == weights_hash(base.model)
    assert tokenizer("a text").input_ids == base.tokenize("a text")


def test_says_what_it_is(base: epigraph.Base) -> None:
    assert base.name == "SmolLM2-135M-Instruct-Q4_1"
    assert len(base.fingerprint) == 64
    assert (base.layers, base.heads, base.groups, base.head_size, base.hidden) == (30, 3, 3, 64, 576)
    assert base.bos is None


def test_engine_equals_the_plain_concatenation(base: epigraph.Base) -> None:
    engine = epigraph.Engine(base, budget=10**9)
    torch.manual_seed(0)
    shape = (base.layers, base.heads, 4, base.head_size)
    forms = [KeyValue(torch.randn(shape), torch.randn(shape))]
    cue = tuple(base.tokenize("\nLabel:"))
    rows = [
        Encoded((tuple(base.tokenize(text)), cue)) for text in ("a fine film", "dull, long and far too pleased with itself")
    ]
    with torch.no_grad():
        done = engine.forward(rows, forms, Tail([()] * 2))
        for b, row in enumerate(rows):
            expected = plain_states(base, row, forms)[-1]
            torch.testing.assert_close(done.hidden[b, done.stream.ends[b] - 1], expected, atol=1e-3, rtol=1e-3)


def test_tunes_on_real_sentences_and_stays_as_it_was(base: epigraph.Base) -> None:
    before_home, before = os.environ["EPIGRAPH_HOME"], weights_hash(base.model)
    os.environ["EPIGRAPH_HOME"] = os.environ["EPIGRAPH_REAL_HOME"]
    pairs = [(text, label) for text, label in demo_rows() if len(text) <= 45][:120]
    os.environ["EPIGRAPH_HOME"] = before_home
    task = epigraph.Task.from_rows([text for text, _ in pairs], [label for _, label in pairs])
    result = epigraph.tune(base, task, epigraph.TuneConfig(epochs=3, readings=1, budget="1", keep="soft"))
    assert result.scores["accuracy"]["value"] > 0.6
    assert weights_hash(base.model) == before
