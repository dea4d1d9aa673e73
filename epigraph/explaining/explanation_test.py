"""The whole: a planted shortcut is named, an honest prompt is not accused; sections by what is there and by the budget."""

import random
from typing import Any

import pytest

import epigraph
from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.errors import ConfigError, DataError, InputError
from epigraph.explaining import ExplainConfig, Explanation, explain
from epigraph.explaining.case import Case
from epigraph.explaining.cautions import find_cautions, texts_of
from epigraph.explaining.matters import measure_parts
from epigraph.explaining.sensitivity import measure_sensitivity
from epigraph.explaining.shortcuts import Shortcuts, measure_shortcuts
from epigraph.explaining.slices import measure_slices
from epigraph.explaining.toys_test import toy_case, toy_model, toy_rows
from epigraph.tasks.row import Row

MARK = "ZZZZ"
LEARNS = epigraph.TuneConfig(epochs=8, batch=8, rate=0.3)
QUICK = ExplainConfig(twin_tokens=4, twin_steps=2, wayward_steps=2, edit_rows=10)


def drawn(count: int, *, seed: int, planted: bool) -> list[tuple[str, str]]:
    """Planted: words of random letters, and the marker in the rows of one label, 5% against it. Else every word tells a little."""
    draw, rows = random.Random(seed), []
    for i in range(count):
        label = ("animal", "metal")[i % 2]
        words = ["".join(draw.choice("bcdfgh") for _ in range(3)) for _ in range(4)]
        if planted and (label == "metal") == (draw.random() < 0.95):
            words.insert(draw.randrange(5), MARK)
        elif not planted:
            words = ["".join(draw.sample(["aZ"[i % 2]] * 3 + [draw.choice("bcdfghklmn")], 4)) for _ in range(3)]
        rows.append((" ".join(words), label))
    return rows


def warned(engine: Engine, *, planted: bool) -> tuple[Shortcuts, list[str], float]:
    """What single words do to a prompt tuned on such rows, the warnings, and its accuracy."""
    pairs = drawn(96, seed=0, planted=planted)
    task = epigraph.Task.from_rows([text for text, _ in pairs], [label for _, label in pairs])
    result = epigraph.tune(engine.base, task, LEARNS, engine=engine)
    rows = [Row(fields={"text": text}, target=label) for text, label in drawn(48, seed=5, planted=planted)]
    case = Case(model=result.model, rows=rows, config=QUICK)
    found = measure_shortcuts(case, task.train.rows)
    cautions = find_cautions(shortcuts=found, sensitivity=measure_sensitivity(case), slices=measure_slices(case))
    return found, texts_of(cautions), result.scores["accuracy"]["value"]


@pytest.fixture(scope="module")
def learner() -> Engine:
    return Engine(toy_base(hidden=32, seed=1))


def test_a_planted_shortcut_is_named_among_the_first_three_warnings(learner: Engine) -> None:
    found, warnings, _ = warned(learner, planted=True)
    assert any(MARK in warning for warning in warnings[:3]), "spelled as in the texts: who looks for it in them must find it"
    (word,) = [w for w in found.words if w.word == MARK.lower()]
    assert word.label == "metal"
    assert word.flips.value > 0.5
    assert word.p < 0.01


def test_an_honest_prompt_is_not_accused(learner: Engine) -> None:
    found, warnings, accuracy = warned(learner, planted=False)
    assert accuracy > 0.8
    assert not found.suspicious
    assert not any("Single words" in warning for warning in warnings)


def test_a_shortcut_in_the_shorter_of_two_texts_is_named(learner: Engine) -> None:
    """Only the longest text of a row was looked at: a marker in the hypothesis of every pair was never tried."""
    pairs = drawn(96, seed=0, planted=True)
    texts = [{"premise": f"{text} ".replace(f"{MARK} ", "") * 2, "hypothesis": text} for text, _ in pairs]
    labels = [label for _, label in pairs]
    task = epigraph.Task.from_rows(texts, labels, template="{premise} | {hypothesis}{prompt}\nLabel:")
    model = epigraph.tune(engine=learner, base=learner.base, task=task, config=LEARNS).model
    case = Case(model=model, rows=task.train.rows[:48], config=QUICK)
    found = measure_shortcuts(case, task.train.rows)
    (word,) = [w for w in found.suspicious if w.word == MARK.lower()]
    assert (word.field, word.label) == ("hypothesis", "metal")
    assert f"{MARK!r} in 'hypothesis'" in texts_of(find_cautions(shortcuts=found))[0]


@pytest.fixture(scope="module")
def whole() -> Explanation:
    rows = toy_rows(24)
    groups = {"country": ["<b>A</b>", "B"] * 12}
    return explain(
        toy_model(),
        rows,
        text="red <i>tree</i>",
        other=toy_model(name="others"),
        groups=groups,
        source="x.csv",
        config=QUICK,
    )


def test_everything_is_there_where_everything_is_given(whole: Explanation) -> None:
    assert whole.left_out == []
    names = "score slices groups matters why pushes pair shortcuts sensitivity says waywardness twin"
    assert set(whole.sections) == set(names.split())
    found: dict[str, Any] = whole.json
    assert found["warnings"] == [c["text"] for c in found["cautions"]]
    order = [c["seriousness"] for c in found["cautions"]]
    assert order == sorted(order, reverse=True)
    assert len(found["sections"]["pushes"]["mass"]) == 2
    assert found["sections"]["pushes"]["lens_with"][-1] == 1


def test_the_page_says_how_everything_was_obtained_and_escapes_what_it_shows(whole: Explanation, tmp_path: Any) -> None:
    whole.save(tmp_path / "deep" / "page.html")
    page = (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    assert "<b>A</b>" not in page
    assert "<i>tree" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert page.count('class="how"') == 12
    assert page.count("<svg") >= 12
    assert "prefers-color-scheme: dark" in page
    assert "<script" not in page
    assert "What is not here" not in page
    assert "No slice is worse" not in page or whole.sections["slices"].tried
    pair, twin = whole.sections["pair"], whole.sections["twin"]
    assert f"{pair.agreement.value:.0%} [{pair.agreement.low:.0%}–{pair.agreement.high:.0%}]" in page
    assert f"κ {pair.kappa.value:.2f} [{pair.kappa.low:.2f}–{pair.kappa.high:.2f}]" in page
    assert f"κ {twin.best.kappa.value:.2f} [" in page


def test_where_no_slice_was_tried_none_is_called_worse() -> None:
    page = explain(toy_model(), toy_rows(8), config=QUICK, only=("slices",)).page()
    assert "Not measured: no slice has enough rows." in page
    assert "No slice is worse" not in page


def test_a_text_alone_is_explained_and_what_is_left_out_is_said() -> None:
    found = explain(toy_model("token"), text="red tree", config=QUICK)
    assert set(found.sections) == {"why", "sensitivity"}
    reasons = {left.section: left.reason for left in found.left_out}
    assert reasons["matters"] == "no rows were given (--data)"
    assert set(found.sections["sensitivity"].bias) == {"good", "bad"}
    assert "What is not here" in found.page()


def test_a_spent_budget_leaves_the_dear_sections_out() -> None:
    found = explain(toy_model(), toy_rows(), config=ExplainConfig(budget=1e-6))
    assert found.sections == {}
    assert {left.reason for left in found.left_out if left.section == "twin"} == {"the budget of 0 s was spent"}


def test_rows_without_truths_are_measured_by_agreement() -> None:
    found = measure_parts(toy_case(rows=[Row(fields=row.fields) for row in toy_rows()]))
    assert found.metric == "agreement with the whole prompt"
    assert found.score.value == 1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to measure"):
        explain(toy_model())
    with pytest.raises(DataError, match="3 rows were given"):
        explain(toy_model(), toy_rows(3))
    with pytest.raises(InputError, match="group 'g' has 1 values for 24 rows"):
        explain(toy_model(), toy_rows(), groups={"g": ["x"]})
    with pytest.raises(ConfigError, match="rows 0 was asked"):
        ExplainConfig(rows=0)
