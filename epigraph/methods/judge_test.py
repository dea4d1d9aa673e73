"""Losses and answers of the kinds that a base reads as a tree: against a row and an answer at a time."""

import numpy as np
import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.engine import Engine, before_stop
from epigraph.engine.plain import plain_states
from epigraph.methods import PromptedBase, judge
from epigraph.methods.hard import few_shot, instruction_in_place
from epigraph.methods.threshold import best_threshold, with_best_threshold
from epigraph.prompts import Embedded
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tasks.verdicts import NO, YES, question
from epigraph.tuning.objective import make_objective

SETS = [["vui"], [], ["vui", "vui vẻ"], ["好"], ["vui vẻ", "好"], ["vui"]]
SETS_TASK = Task.from_rows([f"văn bản {i}" for i in range(6)], SETS, kind="multilabel")
SCALE_TASK = Task.from_rows([f"text {i}" for i in range(8)], [1, 2, 3, 10] * 2, kind="ordinal", metric="mae")
CHOICE_TASK = Task.from_rows(
    [{"question": f"q {i}", "choices": ["một", "hai", "三"][: 2 + i % 2]} for i in range(6)], [0, 1] * 3, kind="choice"
)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_base(), keep=False)


def solver(engine: Engine, task: Task) -> PromptedBase:
    torch.manual_seed(0)
    vectors = torch.randn(3, engine.base.hidden) * engine.base.table_rms
    return PromptedBase(engine, task, [Embedded(vectors)], output_tokens=8)


def loss_of(prompted: PromptedBase) -> float:
    task = prompted.task
    objective = make_objective(prompted, task.train.rows, task.train.rows)
    (loss,) = objective.losses([list(range(len(task.train.rows)))], [prompted.forms])
    assert objective.watch(prompted.forms).minus_loss <= 0
    return float(loss)


def test_a_verdict_is_the_odds_of_yes_after_the_label_alone(engine: Engine) -> None:
    """The stock forward over the row and one question; "vui" begins "vui vẻ"."""
    prompted, row = solver(engine, SETS_TASK), SETS_TASK.train.rows[0]
    (encoded,), ids = prompted.encode([row]), engine.base.tokenize
    yes, no = ids(YES)[1], ids(NO)[1]
    for label, found in zip(SETS_TASK.labels, prompted.probabilities([row])[0], strict=True):
        asked = [*ids(question(prompted.template, label)), ids(YES)[0]]
        states = plain_states(engine.base, encoded, prompted.forms, asked)
        logits = engine.base.logits(states[-1:])[0]
        assert found == pytest.approx(float(torch.sigmoid(logits[yes] - logits[no])), abs=1e-4)


def test_the_loss_of_sets_is_the_mean_over_rows_and_labels(engine: Engine) -> None:
    prompted = solver(engine, SETS_TASK)
    p = prompted.probabilities(SETS_TASK.train.rows).astype(float)
    marks = np.array([[label in row.labels for label in SETS_TASK.labels] for row in SETS_TASK.train.rows])
    assert loss_of(prompted) == pytest.approx(-np.log(np.where(marks, p, 1 - p)).mean(), rel=1e-3)


def test_the_loss_of_a_scale_is_two_proper_scores(engine: Engine) -> None:
    prompted = solver(engine, SCALE_TASK)
    assert list(SCALE_TASK.labels) == ["1", "2", "3", "10"]
    p = prompted.probabilities(SCALE_TASK.train.rows).astype(float)
    total = 0.0
    for row, probabilities in zip(SCALE_TASK.train.rows, p, strict=True):
        right = list(SCALE_TASK.labels).index(row.target or "")
        total -= np.log(probabilities[right])
        total += sum((probabilities[: k + 1].sum() - (right <= k)) ** 2 for k in range(3))
    assert loss_of(prompted) == pytest.approx(total / 8, rel=1e-3)


def test_the_loss_of_choices_is_that_of_their_probabilities(engine: Engine) -> None:
    prompted = solver(engine, CHOICE_TASK)
    p = prompted.probabilities(CHOICE_TASK.train.rows)
    assert p.sum(1) == pytest.approx(np.ones(6), abs=1e-5)
    assert loss_of(prompted) == pytest.approx(-np.log(p[np.arange(6), [0, 1] * 3]).mean(), rel=1e-3)


def test_the_median_suits_the_distance_and_the_likeliest_label_accuracy() -> None:
    p = np.array([[0.4, 0.05, 0.15, 0.4], [0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 0.0, 0.0]])
    rows = [Row(fields={"text": "x"})] * 3
    assert list(judge.read(SCALE_TASK, rows, p).given) == ["3", "3", "1"]
    by_accuracy = Task.from_rows(["x"] * 8, [1, 2, 3, 10] * 2, kind="ordinal")
    assert list(judge.read(by_accuracy, rows, p).given) == ["1", "10", "1"]


def test_a_hard_prompt_and_few_shot_answer_every_kind(engine: Engine) -> None:
    for task in (SETS_TASK, SCALE_TASK, CHOICE_TASK):
        for method in (instruction_in_place(engine, task, 8), few_shot(engine, task, task.train.rows[:2], 8)):
            answers = judge.answer(method, task.train.rows)
            assert len(answers.given) == len(task.train.rows)
            assert np.isfinite(judge.value(task, task.train.rows, answers.given))


def test_the_threshold_is_the_best_of_its_rows(engine: Engine) -> None:
    prompted = solver(engine, SETS_TASK)
    rows = SETS_TASK.train.rows
    chosen = with_best_threshold(prompted, rows)
    values = {}
    for threshold in (0.1, 0.3, 0.5, 0.7, chosen.task.threshold):
        tried = prompted.with_threshold(threshold)
        values[threshold] = judge.value(tried.task, rows, judge.answer(tried, rows).given)
    assert values[chosen.task.threshold] == max(values.values())
    assert chosen.task.threshold == best_threshold(prompted, rows)
    labels = solver(engine, SCALE_TASK)
    assert with_best_threshold(labels, SCALE_TASK.train.rows) is labels


@pytest.mark.parametrize("plain", [False, True])
def test_an_output_ends_before_a_stop_word_wherever_its_tokens_part(engine: Engine, plain: bool) -> None:
    task = Task.from_rows(["a", "bb", "ccc"], ["x", "y", "z"], kind="generation")
    forms = solver(engine, task).forms
    free = PromptedBase(engine, task, forms, output_tokens=12)
    whole = [engine.base.detokenize(ids) for ids in _tokens(free, task)]
    stop = next(text[2:4] for text in whole if len(text) > 4)
    assert len(stop) == 2, "two tokens of a byte tokenizer"
    from dataclasses import replace

    stopped = PromptedBase(engine, replace(task, stop=(stop,)), forms, output_tokens=12)
    try:
        engine.use("as a test" if plain else "")
        found = stopped.outputs(task.train.rows)
    finally:
        engine.use()
    assert found == [before_stop(text, [stop]).strip() for text in whole]


def _tokens(prompted: PromptedBase, task: Task) -> list[list[int]]:
    from epigraph.engine import generate

    return generate(prompted.engine, prompted.encode(task.train.rows), prompted.forms, 12)
