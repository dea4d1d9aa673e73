"""Contributions add up; leaving out is exact; neighbours are found."""

import numpy as np
import pytest
import torch

from epigraph.explaining import why as module
from epigraph.explaining.margin import Margin
from epigraph.explaining.toys_test import toy_case, toy_forms, toy_rows
from epigraph.explaining.why import explain_answer, rank_correlation
from epigraph.prompts.shown import show
from epigraph.tasks.row import Row


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_contributions_add_up_to_the_margin(kind: str) -> None:
    case = toy_case(kind)
    row = Row(fields={"text": "red tree"})
    found = explain_answer(case, row, case.rows)
    assert found.gap < 0.05
    assert found.answer == case.model.predict([row])[0].label
    vectors = [p.what for p in found.parts if p.prompt]
    assert vectors == [f"vector {i + 1}" for i in range(4)]
    tokens = "".join(p.what for p in found.parts if not p.prompt)
    assert tokens == "red tree\nLabel:"
    assert -1 <= found.agreement <= 1
    assert len(found.neighbours) == 5
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-4)


def test_the_same_text_is_its_own_nearest_neighbour() -> None:
    case = toy_case()
    found = explain_answer(case, case.rows[3], case.rows)
    assert found.neighbours[0].text == case.rows[3].fields["text"]
    assert found.neighbours[0].similarity == pytest.approx(1, abs=1e-3)
    assert found.neighbours[0].answer == found.answer


def test_a_vector_is_left_out_as_if_it_were_hidden() -> None:
    case = toy_case("kv")
    found = explain_answer(case, case.rows[0])
    shown_ones = torch.tensor([False, True, True, True])
    logs = np.log(case.method.with_forms([show(case.forms[0], shown_ones)]).probabilities(case.rows[:1])[0])
    best, second = case.labels.index(found.answer), case.labels.index(found.instead)
    first = next(p for p in found.parts if p.prompt)
    assert found.margin - first.left_out == pytest.approx(float(logs[best] - logs[second]), abs=1e-3)


def test_an_answer_that_is_another_one_in_fp32_is_explained_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    case = toy_case("kv")
    others = (toy_case("kv", toy_forms("kv", seed=seed)) for seed in range(1, 20))
    other = next(c for c in others if Margin(c, case.rows[0]).answer != Margin(case, case.rows[0]).answer)
    monkeypatch.setattr(module, "in_fp32", lambda _case: other)
    found = explain_answer(case, case.rows[0])
    assert found.answer == case.model.predict([case.rows[0]])[0].label
    assert found.margin > 0


def test_rank_correlation_is_spearmans() -> None:
    assert rank_correlation([1.0, 2.0, 3.0], [10.0, 20.0, 25.0]) == pytest.approx(1)
    assert rank_correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert rank_correlation([1.0, 1.0, 1.0], [3.0, 2.0, 1.0]) == 0


def test_it_is_said_where_neighbours_are_from_and_how_often_such_answers_are_right() -> None:
    case = toy_case(rows=toy_rows(30))
    found = explain_answer(case, case.rows[0], case.rows, "the rows it is measured on")
    assert found.neighbours_of == "the rows it is measured on"
    assert found.reliable is not None
    assert found.reliable.low <= found.probabilities[found.answer] <= found.reliable.high
    assert found.reliable.words.startswith(f"Of {found.reliable.rows} rows answered with a probability of")
    inside = [i for i, p in enumerate(case.probabilities.max(1)) if found.reliable.low <= p < found.reliable.high]
    assert found.reliable.rows == len(inside) > 0
    assert explain_answer(toy_case(rows=[]), case.rows[0]).reliable is None


def test_of_many_rows_some_are_looked_at_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100,000 training rows all states were read for one answer."""
    monkeypatch.setattr(module, "LOOKED_AT", 12)
    case = toy_case(rows=toy_rows(30))
    found = explain_answer(case, case.rows[0], case.rows)
    assert found.neighbours_of == "12 rows drawn from the training rows (30)"
    assert len(found.neighbours) == 5
