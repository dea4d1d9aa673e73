"""A soft prompt that is a text has that text as its twin; tokens found copy out as text."""

import math

import pytest
import torch

from epigraph.engine.plain import stock_attention
from epigraph.errors import Unsupported
from epigraph.explaining.toys_test import toy_case, toy_engine
from epigraph.explaining.twin import TokenSearch, _Search, perplexity, search_twin
from epigraph.explaining.waywardness import measure_waywardness, read
from epigraph.prompts import Embedded


def test_swaps_come_nearer_to_a_prompt_that_is_a_text() -> None:
    engine = toy_engine()
    hidden = engine.base.tokenize(" tango!?")
    case = toy_case("token", forms=[Embedded(engine.embedded_text(hidden).vectors)], twin_tokens=8)
    search = _Search(case, list(range(len(case.rows))))
    tokens = TokenSearch(case, search.target, [case.encoded[i] for i in search.seen], search.rng)
    whole = list(range(len(search.seen)))
    assert float(tokens.losses([tokens.forms(hidden)], whole)[0]) == pytest.approx(0, abs=1e-4)
    start = tokens.begin(engine.base.tokenize(" something"), 8)
    with torch.no_grad():
        before = float(tokens.losses([tokens.forms(start)], whole)[0])
    found, taken = tokens.swap(start, 6)
    with torch.no_grad():
        after = float(tokens.losses([tokens.forms(found)], whole)[0])
    assert taken == 6
    assert after < before
    assert tokens.stable(found)
    assert read(engine.base, case.forms[0]) == hidden


def test_a_twin_is_measured_on_rows_it_was_not_searched_on() -> None:
    case = toy_case("kv", twin_tokens=4, twin_steps=4)
    found = search_twin(case, ["say good or bad"])
    assert 0 <= found.best.agreement.low <= found.best.agreement.value <= 1
    assert found.change.value == pytest.approx(found.best.score.value - found.soft.value)
    assert found.change.low <= found.change.value <= found.change.high
    assert found.rows == len(case.rows) // 2
    assert found.best.divergence == min(h.divergence for h in (found.best, *found.others))
    assert "2 projected and 2 swapped steps over 4 tokens" in found.stopped


def test_perplexity_is_that_of_the_stock_model() -> None:
    case, text = toy_case(), "a plain text"
    base = case.engine.base
    ids = torch.tensor([base.tokenize(text)])
    with torch.no_grad(), stock_attention(base):
        loss = float(base.model(input_ids=ids, labels=ids, use_cache=False).loss)
    assert perplexity(case, text) == pytest.approx(math.exp(loss), rel=1e-3)


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_a_wayward_prompt_reads_as_the_text(kind: str) -> None:
    found = measure_waywardness(toy_case(kind, wayward_steps=6))
    assert found.share_of_text == 1
    assert "".join(found.reads_as) == found.text == "The "
    assert len(found.nearest) == 4
    assert found.steps == 6
    assert "explanation" in found.verdict


def test_written_answers_have_no_twin() -> None:
    case = toy_case()
    object.__setattr__(case.model.task, "kind", "generation")
    with pytest.raises(Unsupported, match="a twin is searched for where answers are labels"):
        search_twin(case)
