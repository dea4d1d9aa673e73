"""The choice among hard prompts: what is tried, and that a long instruction is not paid for at every row."""

import pytest

from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.methods import ZERO_SHOT, best_few_shot, best_zero_shot
from epigraph.methods.choice import DRAWS, quick_score
from epigraph.tasks.task import Task


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_base(), keep=False)


def task_of(labels: int, instruction: str) -> Task:
    rows = [(f"text {i}", f"label {i % labels}") for i in range(2 * labels)]
    return Task.from_rows([text for text, _ in rows], [label for _, label in rows], instruction=instruction)


def test_the_better_of_both_places_is_chosen(engine: Engine) -> None:
    task = task_of(3, "Which label?")
    chosen = best_zero_shot(engine, task, task.train.rows, 1)
    scores = {name: quick_score(build(engine, task, 1), task.train.rows) for name, build in ZERO_SHOT.items()}
    assert scores[chosen.name] == max(scores.values())
    assert all(name in chosen.reason for name in ZERO_SHOT)


def test_a_long_instruction_stands_first_only(engine: Engine) -> None:
    """Tuning on 77 labels spent half an hour on its hard prompt: the instruction stood behind each of 3,080 test rows."""
    task = task_of(3, "Say which of the labels fits, " + "and think well about it, " * 5)
    chosen = best_zero_shot(engine, task, task.train.rows, 1)
    assert chosen.name == "zero-shot, instruction first"
    assert "in the prompt's place" not in chosen.reason


def test_few_shot_is_the_best_of_three_draws(engine: Engine) -> None:
    task = task_of(2, "Which label?")
    chosen = best_few_shot(engine, task, task.train.rows, task.train.rows, 1)
    assert chosen is not None
    assert chosen.reason.count("draw") == DRAWS
