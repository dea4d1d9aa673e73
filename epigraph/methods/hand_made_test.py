"""Methods that train nothing of the base: hard prompts as written, examples, searches, the probe; on toy bases."""

from collections.abc import Sequence

import numpy as np
import pytest

from epigraph.base import Base
from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.errors import DataError, TaskError, Unsupported
from epigraph.evaluation import evaluate
from epigraph.methods.hard import few_shot, instruction_first
from epigraph.methods.label_words import mine_words, next_tokens
from epigraph.methods.nearest_shots import NearestShots, best_nearest
from epigraph.methods.probe import fit_probe
from epigraph.methods.proposed import answer_shown, row_reward
from epigraph.methods.ranking import rank
from epigraph.methods.search import HardPromptSearch, SearchLimits, instructions
from epigraph.methods.shots import DRAWS, best_count, draw_balanced, with_prefix_read
from epigraph.methods.states import read_states
from epigraph.methods.wording import AS_TEMPLATE, best_wording
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

TEXTS = [mark * n for n in range(1, 13) for mark in ("a", "Z")]
LABELS = ["animal", "metal"] * 12


@pytest.fixture(scope="module")
def base() -> Base:
    return toy_base(hidden=32, seed=1, context=1024)


@pytest.fixture(scope="module")
def engine(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(base, folder=tmp_path_factory.mktemp("frozen"))


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.from_rows(TEXTS, LABELS, instruction="Animal or metal?")


@pytest.fixture(scope="module")
def writing() -> Task:
    return Task.from_rows(TEXTS[:12], [t.upper() for t in TEXTS[:12]], kind="generation", metric="exact_match")


def check(found: np.ndarray, rows: Sequence[object]) -> None:
    assert found.shape == (len(rows), 2)
    assert found.sum(1) == pytest.approx(np.ones(len(rows)))


def test_a_probe_learns_what_the_states_tell_apart(engine: Engine, task: Task) -> None:
    rows = task.train.rows
    probe = fit_probe(engine, task, rows[:16], rows[16:])
    check(probe.probabilities(rows), rows)
    assert evaluate(probe, rows[16:], split="test").value("accuracy") == 1
    assert probe.parameters == 64 + 1 + 2 * 64
    with pytest.raises(Unsupported, match="cannot write"):
        probe.outputs(rows)


def test_a_probe_refuses_what_it_cannot(engine: Engine, task: Task, writing: Task) -> None:
    with pytest.raises(Unsupported, match="this task's answers are written"):
        fit_probe(engine, writing, writing.train.rows, writing.train.rows)
    with pytest.raises(DataError, match="the same label"):
        fit_probe(engine, task, task.train.rows[::2], task.train.rows)


def test_states_need_frozen_ones(engine: Engine, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "plain", "for a test")
    with pytest.raises(Unsupported, match="keeps no frozen states"):
        read_states(engine, task, task.train.rows)


def test_a_wording_that_names_a_field_is_a_template(engine: Engine, task: Task) -> None:
    rows = list(task.train.rows[:6])
    found = best_wording(engine, task, "Text: {text}\nKind:", rows, 4)
    assert found.name == AS_TEMPLATE
    assert found.method.template.text == "Text: {text}{prompt}\nKind:"
    check(found.method.probabilities(rows), rows)
    assert best_wording(engine, task, "Which is it? {text}", rows, 4).method.template.text.startswith("{prompt}")
    with pytest.raises(TaskError, match="is empty"):
        best_wording(engine, task, " \n", rows, 4)
    with pytest.raises(TaskError, match=r"names \{title\}"):
        best_wording(engine, task, "{text} of {title}:", rows, 4)


def test_a_wording_without_a_field_is_an_instruction(engine: Engine, task: Task) -> None:
    found = best_wording(engine, task, 'Say it in {"json"}.', list(task.train.rows[:4]), 4)
    assert "zero-shot" in found.name
    assert found.method.task.instruction == 'Say it in {"json"}.'


@pytest.mark.parametrize("draw", DRAWS)
def test_the_best_count_is_one_that_was_tried(draw: str, engine: Engine, task: Task) -> None:
    rows = task.train.rows
    found = best_count(engine, task, rows[:16], rows[16:], 4, draw=DRAWS[draw])
    assert found.name in found.reason
    check(found.method.probabilities(rows), rows)


def test_a_prefix_read_once_changes_nothing(engine: Engine, task: Task) -> None:
    rows = list(task.train.rows)
    plain = few_shot(engine, task, draw_balanced(engine, task, rows, 4, 0), 4)
    assert with_prefix_read(plain).probabilities(rows) == pytest.approx(plain.probabilities(rows), abs=1e-5)


def test_nearest_rows_are_the_most_alike_and_never_oneself(engine: Engine, task: Task) -> None:
    rows = list(task.train.rows)
    nearest = NearestShots(engine, task, rows, shots=4, output_tokens=4)
    for number, near in enumerate(nearest.neighbours(rows)):
        assert number not in near
        assert [rows[i].target for i in near] == [rows[number].target] * 4
    check(nearest.probabilities(rows), rows)
    assert nearest.added_tokens(rows) > 4 * len("Label: animal")


def test_nearest_with_the_same_examples_is_few_shot(engine: Engine, task: Task) -> None:
    rows = list(task.train.rows)
    nearest = NearestShots(engine, task, rows, shots=2, output_tokens=4)
    for row, near in zip(rows[:3], nearest.neighbours(rows[:3]), strict=True):
        same = few_shot(engine, task, [rows[i] for i in near], 4)
        assert nearest.probabilities([row]) == pytest.approx(same.probabilities([row]), abs=1e-5)


def test_the_best_nearest_writes_too(engine: Engine, writing: Task) -> None:
    rows = list(writing.train.rows)
    found, reason = best_nearest(engine, writing, rows[:8], rows[8:], 3)
    assert len(found.outputs(rows[8:])) == 4
    assert "2 nearest" in reason


def test_a_search_ends_with_the_best_it_tried(engine: Engine, task: Task) -> None:
    rows = list(task.train.rows)
    search = HardPromptSearch(engine, task, rows[:16], rows[16:], output_tokens=4, seed=0)
    found = search.run(SearchLimits(candidates=24))
    assert found.best.score == max(one.score for one in found.tried)
    assert {len(one.candidate.examples) for one in found.tried} >= {0, 4, 8}
    scored = evaluate(found.method, rows[16:], split="validation")
    assert scored.value("accuracy") == pytest.approx(found.best.score[0])
    assert "hard prompts on validation" in found.reason


@pytest.mark.parametrize("limits", [SearchLimits(candidates=1), SearchLimits(seconds=0.0)])
def test_a_search_keeps_its_limits(limits: SearchLimits, engine: Engine, task: Task) -> None:
    rows = list(task.train.rows)
    found = HardPromptSearch(engine, task, rows[:8], rows[8:], output_tokens=4, seed=0).run(limits)
    assert len(found.tried) == 2  # plain and calibrated
    assert found.best.candidate.instruction == instructions(task)[0]


def test_a_search_writes_too(engine: Engine, writing: Task) -> None:
    rows = list(writing.train.rows)
    search = HardPromptSearch(engine, writing, rows[:8], rows[8:], output_tokens=3, seed=0)
    found = search.run(SearchLimits(candidates=4))
    assert len(found.tried) == 4
    assert len(found.method.outputs(rows[:2])) == 2


def test_next_tokens_are_a_distribution_and_bytes_give_no_words(engine: Engine, task: Task) -> None:
    solver = instruction_first(engine, task, 1)
    rows = list(task.train.rows[:5])
    found = next_tokens(solver, rows)
    assert found.exp().sum(1).numpy() == pytest.approx(np.ones(5), abs=1e-4)
    assert mine_words(solver, task.train.rows) == {}


SETS = Task.from_rows(TEXTS[:8], [["animal"], ["animal", "metal"], [], ["metal"]] * 2, kind="multilabel")
SCALE = Task.from_rows(TEXTS[:9], [1, 2, 3] * 3, kind="ordinal", metric="mae")
QUIZ = Task.from_rows([{"question": t, "choices": ["Z", "a"]} for t in TEXTS[:8]], ["Z", "a"] * 4, kind="choice")


@pytest.mark.parametrize("task", [SETS, SCALE, QUIZ], ids=lambda task: task.kind)
def test_a_search_and_nearest_examples_work_for_every_kind(engine: Engine, task: Task) -> None:
    """They asked for a label's column in the answers of choices, and compared a mean error as if higher were better."""
    rows = list(task.train.rows)
    found = HardPromptSearch(engine, task, rows[:4], rows[4:], output_tokens=4, seed=0).run(SearchLimits(candidates=4))
    assert found.best.score == max(one.score for one in found.tried)
    assert any(one.calibrated for one in found.tried)
    nearest, reason = best_nearest(engine, task, rows[:4], rows[4:], 4)
    assert nearest.probabilities(rows[4:]).shape[0] == len(rows) - 4
    assert "nearest: -" not in reason
    assert best_count(engine, task, rows[:4], rows[4:], 4, draw=DRAWS["random"]).method.task.kind == task.kind


def test_examples_of_several_labels_are_shown_as_verdicts(engine: Engine) -> None:
    """The nearest examples showed "animal, metal", which the base is never asked to say."""
    shown = NearestShots(engine, SETS, SETS.train.rows, shots=1, output_tokens=4).shown
    assert "animal:yes" in shown[1].replace(": ", ":")
    assert "metal:no" in shown[0].replace(": ", ":")


def test_a_probe_says_of_every_kind_why_it_cannot(engine: Engine) -> None:
    """Of choices it said that the answers are written."""
    for task, reason in ((QUIZ, "choices of its own"), (SETS, "may have several")):
        with pytest.raises(Unsupported, match=reason):
            fit_probe(engine, task, task.train.rows, task.train.rows)
    rows = SCALE.train.rows
    assert fit_probe(engine, SCALE, rows, rows).probabilities(rows).shape == (9, 3)


def test_candidates_are_ranked_by_the_metric_and_then_the_loss() -> None:
    rows = SCALE.train.rows[:3]
    sure = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    order = [list(SCALE.labels).index(row.target or "") for row in rows]
    near, far = sure[order], sure[order[::-1]]
    assert rank(SCALE, rows, near) > rank(SCALE, rows, 0.5 * near + 1 / 6) > rank(SCALE, rows, far)
    sets = SETS.train.rows[:4]
    low = np.array([[label in row.labels for label in SETS.labels] for row in sets]) * 0.2 + 0.1
    assert rank(SETS, sets, low)[0] == 1  # at a threshold of 0.2


def test_a_rows_reward_is_the_metric_of_that_row(writing: Task) -> None:
    """An answer had to be the target to the letter, so that all instructions of a BLEU or ROUGE task had 0."""
    text = "the black cat sleeps here"
    wanted = Row(fields={}, target=text)
    for metric in ("bleu", "rouge_l", "token_f1"):
        task = Task.from_rows(["x"] * 4, [text] * 4, kind="generation", metric=metric)
        assert row_reward(task, wanted, text) == 1
        assert 0 < row_reward(task, wanted, "the black cat sleeps there") < 1
    lowest, highest = next(iter(SCALE.labels)), list(SCALE.labels)[-1]
    assert row_reward(SCALE, Row(fields={}, target=lowest), highest) == 0
    assert row_reward(SCALE, Row(fields={}, target=lowest), lowest) == 1
    assert row_reward(SETS, SETS.train.rows[2], ()) == 1
    assert row_reward(SETS, SETS.train.rows[1], ("metal", "animal")) == 1


def test_a_stronger_model_is_shown_all_labels_of_a_row() -> None:
    """It was shown an empty answer for every row that may have several labels."""
    task = Task.from_rows(["a", "b", "c"], [["red", "blue"], ["red"], []], kind="multilabel")
    assert sorted(answer_shown(task, task.train.rows[0]).split(", ")) == ["blue", "red"]
    single = Task.from_rows(TEXTS, LABELS)
    assert answer_shown(single, single.train.rows[0]) == "animal"
