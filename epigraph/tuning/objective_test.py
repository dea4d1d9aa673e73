import math

import numpy as np
import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.methods import PromptedBase
from epigraph.methods.watched import Watched, forgiving_loss
from epigraph.prompts import Embedded
from epigraph.tasks.task import Task
from epigraph.tuning.objective import AnswerObjective, LabelObjective, make_objective


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_base())


def solver(engine: Engine, task: Task) -> PromptedBase:
    torch.manual_seed(0)
    vectors = torch.randn(3, engine.base.hidden) * engine.base.table_rms
    return PromptedBase(engine, task, [Embedded(vectors)], output_tokens=6)


def test_the_label_loss_is_the_mean_of_minus_log_probability(engine: Engine) -> None:
    task = Task.from_rows([f"text {i}" for i in range(8)], ["good", "bad"] * 4)
    prompted = solver(engine, task)
    objective = make_objective(prompted, task.train.rows, task.train.rows)
    assert isinstance(objective, LabelObjective)
    right = prompted.probabilities(task.train.rows)[np.arange(8), [1, 0] * 4]
    loss = float(objective.losses([list(range(8))], [prompted.forms])[0])
    assert loss == pytest.approx(-np.log(right).mean(), rel=1e-4)
    watched = objective.watch(prompted.forms)
    assert watched.minus_loss >= -loss - 1e-6  # overconfidence is forgiven
    scores = np.log(prompted.probabilities(task.train.rows))
    assert watched.minus_loss == pytest.approx(-forgiving_loss(scores, np.array([1, 0] * 4)), rel=1e-4)
    assert watched.score == pytest.approx((right > 0.5).mean())


def test_rare_labels_weigh_more_where_labels_are_skewed(engine: Engine) -> None:
    targets = ["usual"] * 18 + ["rare"] * 2
    task = Task.from_rows([f"text {i}" for i in range(20)], targets)
    assert task.metric == "macro_f1"
    prompted = solver(engine, task)
    objective = LabelObjective(prompted, task.train.rows, task.train.rows)
    losses = [float(objective.losses([[i]], [prompted.forms])[0]) for i in (0, 19)]
    usual, rare = task.class_weights()["usual"], task.class_weights()["rare"]
    assert rare == pytest.approx(3 * usual)
    both = float(objective.losses([[0, 19]], [prompted.forms])[0])
    assert both == pytest.approx((usual * losses[0] + rare * losses[1]) / (usual + rare), rel=1e-4)


def test_a_validation_label_that_was_never_trained_is_wrong_and_has_no_loss(engine: Engine) -> None:
    task = Task.from_rows([f"text {i}" for i in range(8)], ["good", "bad"] * 4)
    other = Task.from_rows(["text 1", "text 2"], ["strange", "stranger"])
    prompted = solver(engine, task)
    watched = LabelObjective(prompted, task.train.rows, other.train.rows).watch(prompted.forms)
    assert watched == Watched(0.0, 0.0)


@pytest.mark.parametrize("metric", ["bleu", "exact_match", "rouge_l"])
def test_answers_are_watched_by_the_metric_that_was_asked(
    engine: Engine, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rouge_l was accepted, said, and BLEU was computed."""
    from epigraph import metrics

    texts = [f"input {i}" for i in range(4)]
    task = Task.from_rows(texts, ["one two three four", "five", "x", "y"], kind="generation", metric=metric)
    monkeypatch.setattr(PromptedBase, "encoded_outputs", lambda *_: ["one two three five", "five", "x x", "z"])
    prompted = solver(engine, task)
    objective = make_objective(prompted, task.train.rows, task.train.rows)
    assert isinstance(objective, AnswerObjective)
    watched = objective.watch(prompted.forms)
    references = [[row.target or ""] for row in task.train.rows]
    assert objective.metric == metric
    assert watched.score == pytest.approx(getattr(metrics, metric)(["one two three five", "five", "x x", "z"], references))
    assert 0 < watched.score < 1
    assert math.isfinite(watched.minus_loss)


def test_the_answer_loss_is_a_mean_over_tokens(engine: Engine) -> None:
    task = Task.from_rows(["a", "b"], ["x", "a longer answer"], kind="generation")
    prompted = solver(engine, task)
    objective = AnswerObjective(prompted, task.train.rows, task.train.rows)
    each = [float(objective.losses([[i]], [prompted.forms])[0]) for i in (0, 1)]
    tokens = [len(row.answer) for row in objective.rows]
    mean = (each[0] * tokens[0] + each[1] * tokens[1]) / sum(tokens)
    assert float(objective.losses([[0, 1]], [prompted.forms])[0]) == pytest.approx(mean, rel=1e-4)
    assert objective.watch(prompted.forms).minus_loss == pytest.approx(-mean, rel=1e-4)


def test_a_score_counts_before_a_loss() -> None:
    assert Watched(0.6, -9.0) > Watched(0.5, -1.0)
    assert Watched(0.5, -1.0) > Watched(0.5, -2.0)
