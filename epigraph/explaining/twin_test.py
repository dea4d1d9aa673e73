"""A soft prompt that is a text has that text as its twin; tokens found copy out as text."""

import math
from dataclasses import replace

import pytest
import torch

from epigraph.engine.plain import stock_attention
from epigraph.errors import Unsupported
from epigraph.explaining.case import Clock
from epigraph.explaining.toys_test import toy_case, toy_engine, toy_rows
from epigraph.explaining.twin import TEMPLATE, TokenSearch, _Candidate, _Search, perplexity, search_twin
from epigraph.explaining.waywardness import _verdict, measure_waywardness, read
from epigraph.metrics import Interval
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
    assert found.best.seen_kappa == max(h.seen_kappa for h in (found.best, *found.others))
    assert "2 projected and 2 swapped steps over 4 tokens" in found.stopped


def test_the_divergence_does_not_choose() -> None:
    """On TREC it chose tokens that were sure of nothing, and agreed with the prompt on 13% of the rows, where others did on 37%."""
    sure_of_nothing = _Candidate("a", "a", "", None, divergence=0.5, kappa=0.0, score=0.2)  # type: ignore[arg-type]
    mostly_right = _Candidate("b", "b", "", None, divergence=2.0, kappa=0.4, score=0.6)  # type: ignore[arg-type]
    as_right = replace(mostly_right, divergence=1.0)
    assert sorted([sure_of_nothing, mostly_right, as_right], key=lambda c: c.unlike) == [
        as_right,
        mostly_right,
        sure_of_nothing,
    ]


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


def test_what_is_shown_is_what_was_scored_and_what_was_written_by_hand_stands_beside_it() -> None:
    case = toy_case("kv", twin_tokens=2, twin_steps=2)
    task = replace(case.model.task, instruction="Say it", hard_prompts=("Text: {text}\nMood:", "Good or bad?"))
    case.model.task = task
    search = _Search(case, list(range(len(case.rows))))
    found = {c.words: c for c in search.instructions([])}
    template = found["Text: {text}\nMood:"]
    assert template.how == TEMPLATE
    assert "{text}" not in case.engine.base.detokenize(template.method.encode(case.rows[:1])[0].segments[0])
    assert found["Good or bad?"].whole == "{text}\nGood or bad?\nLabel:"
    (shown, *_) = search.demonstrations(list(found.values()))
    examples = shown.text.split("\n\n")[1:]
    assert all(example.split("\nLabel:")[1].strip() in ("good", "bad") for example in examples)
    forms = shown.method.forms[0]
    assert forms.length == len(case.engine.base.tokenize(shown.text + "\n\n"))
    twin = search_twin(case)
    assert twin.written is not None
    assert twin.written.text in ("Text: {text}\nMood:", "Good or bad?")


def test_where_no_tokens_are_searched_the_true_reason_is_said() -> None:
    case = toy_case("kv")
    search = _Search(case, list(range(len(case.rows))))
    assert search.tokens([]) == ([], "No tokens were searched: no instruction was there to begin with.")
    late = replace(case, clock=Clock(1e-9))
    assert "the budget was spent" in _Search(late, list(range(len(case.rows)))).tokens([])[1]


def test_of_keys_and_values_it_is_said_what_alone_was_held_near() -> None:
    limits = "only the values of the first layer"
    assert limits in measure_waywardness(toy_case("kv", wayward_steps=1)).verdict
    found = measure_waywardness(toy_case("token", wayward_steps=1))
    assert limits not in found.verdict + found.how
    assert found.change.low <= found.change.value <= found.change.high


def test_as_good_is_said_only_where_the_interval_allows_it() -> None:
    assert "answers as well" in _verdict(Interval(0.0, -0.04, 0.05), "")
    assert "these rows do not tell" in _verdict(Interval(-0.01, -0.2, 0.18), "")
    assert "longer tunings" in _verdict(Interval(-0.3, -0.4, -0.2), "")


def test_written_answers_have_no_twin() -> None:
    case = toy_case()
    object.__setattr__(case.model.task, "kind", "generation")
    with pytest.raises(Unsupported, match="a twin is searched for where answers are labels"):
        search_twin(case)


def test_where_training_rows_are_known_the_wayward_prompt_learns_from_them() -> None:
    """It learned from half of the rows to measure on, which left it few to learn from and few to be measured on."""
    case = toy_case("kv", wayward_steps=2)
    found = measure_waywardness(case, [*toy_rows(40, seed=7), *toy_rows(3)])
    unseen = 24 - 3
    assert f"43 training rows, scored on {unseen} rows of the rows given" in found.how
    few = measure_waywardness(case, toy_rows(8, seed=7))
    assert "12 rows of the rows given, scored on 12 others" in few.how
