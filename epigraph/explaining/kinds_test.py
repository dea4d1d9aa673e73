"""Every kind of task is explained from the answers that ``predict`` gives; what a kind cannot do is refused by name."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from epigraph.config import TuneConfig
from epigraph.errors import Unsupported
from epigraph.explaining import ExplainConfig, explain
from epigraph.explaining.case import Case
from epigraph.explaining.judged import said
from epigraph.explaining.matters import measure_parts
from epigraph.explaining.sensitivity import measure_sensitivity
from epigraph.explaining.toys_test import toy_case, toy_engine, toy_forms, toy_rows
from epigraph.explaining.waywardness import measure_waywardness
from epigraph.explaining.why import explain_answer
from epigraph.library import Card, StoredPrompt
from epigraph.methods.shift import Shift
from epigraph.model import Prediction, PromptModel, facts
from epigraph.prompts import Form
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning import tune

LEVELS = ("low", "middle", "high")
QUICK = ExplainConfig(twin_tokens=2, twin_steps=2, wayward_steps=1, edit_rows=6)


def model_of(task: Task, forms: Sequence[Form] = (), **settings: Any) -> PromptModel:
    base = toy_engine().base
    card = Card(
        name="toy", kind="kv", place="last", trained_parameters=8, base=facts(base), task=task.to_dict(), settings=settings
    )
    return PromptModel(StoredPrompt(card=card, forms=list(forms or toy_forms("kv"))), base, engine=toy_engine())


def several() -> Case:
    """Rows with any number of two labels."""
    texts = [row.fields["text"] for row in toy_rows(12)]
    sets = [[], ["good"], ["good", "bad"]] * 4
    task = Task.from_rows(texts, sets, kind="multilabel", template="{text}{prompt}\nLabels:")
    return Case(model=model_of(task), rows=list(task.train.rows), config=QUICK)


def chosen(**settings: Any) -> Case:
    """Rows with choices of their own."""
    texts = [
        {"question": row.fields["text"], "choices": ["red", "a green tree", "blue"][: 2 + i % 2]}
        for i, row in enumerate(toy_rows(12))
    ]
    task = Task.from_rows(texts, ["red"] * 12, kind="choice", template="{question}{prompt}\nAnswer:")
    return Case(model=model_of(task, **settings), rows=list(task.train.rows), config=QUICK)


def graded(metric: str) -> Case:
    """Labels with an order."""
    texts = [row.fields["text"] for row in toy_rows(12)]
    words = {level: level for level in LEVELS}
    task = Task.from_rows(
        texts, [*LEVELS] * 4, kind="ordinal", words=words, metric=metric, template="{text}{prompt}\nLabel:"
    )
    return Case(model=model_of(task), rows=list(task.train.rows), config=QUICK)


def predicted(case: Case, rows: list[Row]) -> list[str]:
    """What ``predict`` answers."""
    return [_given(p) for p in case.model.predict(rows)]


def _given(found: Prediction) -> str:
    return said(found.labels) if found.labels is not None else found.label or found.output or ""


@pytest.mark.parametrize("make", [several, chosen, lambda: graded("mae"), lambda: graded("accuracy")])
def test_answers_are_those_of_predict_and_parts_are_scored_by_the_tasks_metric(make: Any) -> None:
    case = make()
    rows = list(case.rows)
    assert [said(answer) for answer in case.answers] == predicted(case, rows)
    found = measure_parts(case)
    names = {"micro_f1": "micro-F1", "mae": "closeness (1 − mean distance / largest)", "subset_accuracy": "subset accuracy"}
    assert found.metric == names.get(case.task.metric, "accuracy")
    assert found.shorter[0].change.value == 0
    edits = measure_sensitivity(case).edits
    assert edits
    assert all(0 <= edit.changed.value <= 1 for edit in edits)
    assert measure_waywardness(case).steps == 1


@pytest.mark.parametrize("make", [several, chosen, lambda: graded("mae")])
def test_the_answer_explained_is_that_of_predict(make: Any) -> None:
    case = make()
    for row in case.rows[:2]:
        found = explain_answer(case, row, case.rows)
        given = predicted(case, [row])[0]
        assert found.answer in given or found.answer.startswith("not ")
        assert found.probabilities == pytest.approx(case.model.predict([row])[0].probabilities, abs=1e-5)


def test_a_median_is_explained_where_the_metric_counts_the_distance() -> None:
    case = graded("mae")
    median = [list(LEVELS)[int((p.cumsum() < 0.5).sum())] for p in case.probabilities]
    assert list(case.answers) == median
    found = explain_answer(case, case.rows[0])
    assert found.answer == median[0]


def test_the_cards_calibration_moves_the_margin() -> None:
    plain = graded("accuracy")
    (bare,) = plain.model.predict([plain.rows[0]])
    least = min(bare.probabilities or {}, key=lambda name: (bare.probabilities or {})[name])
    bias = tuple(9.0 if name == least else 0.0 for name in plain.labels)
    shifted = replace(plain, model=model_of(plain.model.task, calibration=Shift("prior", bias).to_dict()))
    found = explain_answer(shifted, plain.rows[0])
    assert found.answer == least == shifted.model.predict([plain.rows[0]])[0].label
    assert found.margin > 0
    contextual = chosen(calibration=Shift("contextual").to_dict())
    row = contextual.rows[1]
    assert explain_answer(contextual, row).answer == contextual.model.predict([row])[0].label


def test_what_a_kind_cannot_do_is_refused_by_name() -> None:
    for case, reason in ((several(), "several labels"), (chosen(), "own choices")):
        found = explain(case.model, case.rows, config=QUICK, only=("twin", "shortcuts"))
        assert not found.sections
        assert all(reason in left.reason for left in found.left_out)


def test_an_ensemble_keeps_what_needs_no_single_prompt() -> None:
    task = Task.from_rows(["a b", "c d"] * 4, ["good", "bad"] * 4, template="{text}{prompt}\nLabel:")
    model = model_of(task, [*toy_forms("kv"), *toy_forms("kv", seed=1)], members=2)
    found = explain(model, toy_rows(), text="red tree", config=QUICK, only=("score", "matters", "why", "slices"))
    assert set(found.sections) == {"score", "slices"}
    assert {left.section for left in found.left_out} == {"matters", "why"}
    assert "ensemble of 2 prompts" in found.left_out[0].reason
    assert found.card["lengths"] == [4, 4]
    assert "ensemble" in found.page()
    with pytest.raises(Unsupported, match="why can't be told"):
        explain(model, text="red tree", only=("why",))


def test_one_row_without_a_label_does_not_switch_truth_off() -> None:
    rows = toy_rows()
    rows[3] = replace(rows[3], target=None)
    case = graded("accuracy")
    model = model_of(Task.from_rows(["a b", "c d"] * 4, ["good", "bad"] * 4, template="{text}{prompt}\nLabel:"))
    found = explain(model, rows, config=QUICK, only=("score", "slices", "matters"))
    assert set(found.sections) == {"score", "slices", "matters"}
    assert found.sections["score"]["rows"] == len(rows) - 1
    assert found.sections["matters"].metric == "accuracy"
    assert found.unlabelled == 1
    assert case.labelled


def test_training_rows_among_those_measured_are_counted_and_warned_of() -> None:
    rows = toy_rows()
    model = model_of(Task.from_rows(["a b", "c d"] * 4, ["good", "bad"] * 4, template="{text}{prompt}\nLabel:"))
    found = explain(model, rows, train=rows[:6], split="holdout", config=QUICK, only=("score",))
    assert found.sections["score"]["split"] == "holdout"
    assert found.sections["score"]["trained_rows"] >= 6
    assert any("are among its training rows" in warning for warning in found.warnings)
    assert (found.json["trained_rows"], found.json["split"]) == (found.trained, "holdout")
    assert "are among those that it learned from" in found.page()


def test_rows_that_all_trained_are_no_test_rows() -> None:
    """``--data train.csv`` was scored as "test"; and where the training rows are not known, that is said."""
    rows, model = toy_rows(), toy_case().model
    all_trained = explain(model, rows, train=rows, config=QUICK, only=("score",))
    assert all_trained.sections["score"]["split"] == all_trained.split == "train"
    assert "All of these rows are among those that it learned from." in all_trained.page()
    unknown = explain(model, rows, config=QUICK, only=("score",))
    assert unknown.json["trained_rows"] is None
    assert "Which rows it learned from is not known here" in unknown.page()


def written() -> Case:
    """Texts are written."""
    texts = [row.fields["text"] for row in toy_rows(8)]
    task = Task.from_rows(
        texts, ["a red tree", "blue"] * 4, kind="generation", metric="token_f1", template="{text}{prompt}\nOutput:"
    )
    return Case(model=model_of(task, output_tokens=3), rows=list(task.train.rows), config=QUICK)


@pytest.mark.parametrize("make", [several, chosen, written])
def test_the_whole_page_is_written_of_every_kind(make: Any) -> None:
    case = make()
    groups = {"country": ["A", "B"] * (len(case.rows) // 2)}
    found = explain(case.model, case.rows, text=case.rows[0], other=case.model, groups=groups, config=QUICK)
    assert {"score", "matters", "why", "pushes", "pair", "sensitivity", "says", "waywardness"} <= set(found.sections)
    assert ("slices" in found.sections) is not case.task.writes
    assert {left.section for left in found.left_out} <= {"slices", "groups", "shortcuts", "twin"}
    assert "What is not here" in found.page()
    assert found.json["sections"]["score"]["rows"] == len(case.rows)


def test_a_prompt_that_depends_on_the_input_keeps_what_needs_no_vectors() -> None:
    engine = toy_engine()
    task = Task.from_rows([r.fields["text"] for r in toy_rows()], [str(r.target) for r in toy_rows()])
    model = tune(engine.base, task, TuneConfig(kind="pool", epochs=1, batch=8, keep="soft"), engine=engine).model
    found = explain(model, toy_rows(), config=QUICK, only=("score", "matters", "pushes", "shortcuts", "twin"))
    assert set(found.sections) == {"score", "shortcuts", "twin"}
    assert all("depends on the input" in left.reason for left in found.left_out)
    assert "No tokens were searched" in found.sections["twin"].stopped
    assert found.page()
