"""Every kind of task through a comparison: the cheap methods on a toy base, their answers scored as the task asks."""

from dataclasses import replace
from pathlib import Path

import pytest

from epigraph.base import Base
from epigraph.base.toy import toy_base
from epigraph.compare import CompareConfig, Comparison, compare
from epigraph.compare.deciding import Decided, decided
from epigraph.compare.disagreement import divided_rows, scores_by_label
from epigraph.compare.method import Fitted
from epigraph.compare.report import comparison_json, make_page
from epigraph.compare.verdict import verdict
from epigraph.engine import Engine
from epigraph.methods.hard import instruction_first
from epigraph.metrics import macro_set_f1, micro_f1, per_label
from epigraph.report import to_html, to_markdown
from epigraph.tasks.row import Split
from epigraph.tasks.task import Task

TEXTS = [mark * n for n in range(1, 9) for mark in ("a", "Z")]
TASKS = {
    "classification": Task.from_rows(TEXTS, ["animal", "metal"] * 8, metric="macro_f1"),
    "multilabel": Task.from_rows(TEXTS, [["b", "a"], ["a"], [], ["c", "a"]] * 4, kind="multilabel"),
    "choice": Task.from_rows([{"question": t, "choices": ["Z", "a", "k"]} for t in TEXTS], [1, 0] * 8, kind="choice"),
    "ordinal": Task.from_rows(TEXTS, [1, 2, 3, 4] * 4, kind="ordinal", metric="mae"),
    "generation": Task.from_rows(TEXTS, [t[:3].upper() for t in TEXTS], kind="generation", metric="token_f1"),
}
CHEAP = CompareConfig(
    methods="hard-prompt,few-shot-balanced,few-shot-nearest,optimised,probe", seeds=2, trials=1, curve="none"
)


@pytest.fixture(scope="module")
def base() -> Base:
    return toy_base(hidden=32, seed=1, context=1024)


@pytest.fixture(scope="module", params=list(TASKS))
def found(request: pytest.FixtureRequest, base: Base, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compare(base, TASKS[request.param], CHEAP, folder=tmp_path_factory.mktemp("cells"))


def test_every_kind_is_compared_to_its_end(found: Comparison) -> None:
    """Choices and sets ended in KeyErrors or were written, and metrics that could not be resampled lost the report."""
    kind = found.material.task.kind
    status = {result.name: result.status for result in found.results}
    probe = status.pop("probe")
    assert probe == ("done" if kind in ("classification", "ordinal") else "cannot run")
    assert set(status.values()) == {"done"}
    for result in found.done:
        score = result.scores[found.metric]
        assert score["low"] <= score["value"] <= score["high"]
    assert comparison_json(found)["pairs"]
    assert verdict(found)
    assert f"{found.metric} [95%]" in to_html(make_page(found))


def test_the_best_is_the_best_by_the_metric(found: Comparison) -> None:
    """Of the mean error the worst method was said to be the best."""
    values = [result.value for result in found.done]
    assert values == sorted(values, reverse=found.metric != "mae")
    for pair in found.pairs:  # made of the best first
        assert pair.difference.value >= 0 if found.metric == "mae" else pair.difference.value <= 0


def test_sets_are_compared_as_sets(base: Base, tmp_path: Path) -> None:
    """The joined texts were compared: the truth "b, a" in the data's order was never the prediction "a, b"."""
    config = CompareConfig(methods="hard-prompt,few-shot-random", seeds=2, curve="none")
    task = TASKS["multilabel"]
    done = compare(base, replace(task, test=Split(rows=task.train.rows[:8])), config, folder=tmp_path)
    several = next(r for r in done.done if len(r.cells) == 2)
    truth = [row.labels for row in done.material.test]
    for name, metric in (("micro_f1", micro_f1), ("macro_f1", macro_set_f1)):
        mean = sum(metric(truth, cell.sets) for cell in several.cells) / 2
        assert several.scores[name]["value"] == pytest.approx(mean)
        assert several.cells[0].scores[name]["value"] == pytest.approx(metric(truth, several.cells[0].sets))
    assert all(row.truth != "b, a" for row in divided_rows(done, done.done))
    labels = scores_by_label(done, done.done)
    assert {one.label for one in labels} == {"a", "b", "c"}
    place = done.done.index(several)
    each = [{one.label: one.f1 for one in per_label(truth, cell.sets, ["a", "b", "c"])} for cell in several.cells]
    for one in labels:
        assert one.f1[place] == pytest.approx(sum(f1[one.label] for f1 in each) / 2)
    assert "F1 by label" in to_markdown(make_page(done))
    for result in done.done:
        assert "threshold" in result.settings


def test_every_method_gets_the_threshold_that_is_best_on_validation(base: Base) -> None:
    """Only soft and hard prompts had one of their own; LoRA, examples and searched prompts stayed at 0.5."""
    task = TASKS["multilabel"]
    rows, plain = task.train.rows, Fitted(method=instruction_first(Engine(base, keep=False), task, 1))
    found = decided(plain, rows)
    assert isinstance(found.method, Decided)
    assert found.method.task.threshold == found.settings["threshold"]
    assert "best micro_f1 on 16 validation rows" in found.reasons["threshold"]
    assert decided(found, rows) is found
    label = Fitted(method=instruction_first(Engine(base, keep=False), TASKS["ordinal"], 1))
    assert decided(label, TASKS["ordinal"].train.rows) is label
