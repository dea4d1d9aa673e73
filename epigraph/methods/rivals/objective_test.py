"""The loss's own parts: weights, padding, the order of results."""

import pytest
import torch

from epigraph.methods.rivals.objective import pad_right
from epigraph.methods.rivals.toys_test import make, toy_engine
from epigraph.methods.watched import Watched
from epigraph.tasks.task import Task
from epigraph.tuning.objective import LabelObjective


def skewed_task() -> Task:
    return Task.from_rows([f"text {i}" for i in range(20)], ["usual"] * 18 + ["rare"] * 2)


def test_it_is_the_houses_loss_and_result_with_the_weights_of_rare_labels() -> None:
    engine, task = toy_engine(), skewed_task()
    rival = make("peft-prompt", engine, task)
    house = LabelObjective(rival.solver, task.train.rows, task.train.rows)
    forms = rival.module.fold()
    for rows in ([0, 19], list(range(20))):
        (found,), (expected,) = rival.objective.losses([rows], [forms]), house.losses([rows], [forms])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found_watched, expected_watched = rival.objective.watch(forms), house.watch(forms)
    assert found_watched.score == pytest.approx(expected_watched.score)
    assert found_watched.minus_loss == pytest.approx(expected_watched.minus_loss, rel=1e-4)


def test_padding_changes_nothing() -> None:
    rival = make("lora", toy_engine("gemma3"), Task.from_rows(["a", "b" * 30, "cc"], ["x", "y", "y"]))
    together = rival.objective.each([0, 1, 2])
    alone = torch.cat([rival.objective.each([i]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert pad_right([[1], [2, 3]], torch.device("cpu")).tolist() == [[1, 0], [2, 3]]


def test_a_score_counts_before_a_loss() -> None:
    assert Watched(0.6, -9.0) > Watched(0.5, -1.0)
    assert Watched(0.5, -1.0) > Watched(0.5, -2.0)
