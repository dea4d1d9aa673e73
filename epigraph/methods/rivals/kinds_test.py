"""A rival that has learned nothing yet lowers what the house's own objective has for the bare base, for every kind."""

import pytest
import torch

from epigraph.methods import PromptedBase
from epigraph.methods.rivals.toys_test import loss, make, toy_engine, train
from epigraph.prompts import Embedded
from epigraph.tasks.task import Task
from epigraph.tuning.objective import make_objective

TASKS = {
    "ordinal": Task.from_rows([f"text {'x' * i}" for i in range(6)], [1, 2, 12] * 2, kind="ordinal"),
    "multilabel": Task.from_rows(
        [f"chữ {'x' * i}" for i in range(4)], [["ab"], [], ["ab", "abc"], ["好"]], kind="multilabel"
    ),
    "choice": Task.from_rows(
        [{"question": f"q {'x' * i}", "choices": ["một", "hai", "ba bốn"][: 2 + i % 2]} for i in range(4)],
        [0, 2, 1, 0],
        kind="choice",
    ),
}


@pytest.mark.parametrize("kind", list(TASKS))
def test_every_kind_has_the_same_loss_in_every_method(kind: str) -> None:
    task, engine = TASKS[kind], toy_engine()
    rival = make("lora", engine, task)
    bare = PromptedBase(engine, task, [Embedded(torch.zeros(0, 16))], template=task.template.placed("first"))
    objective = make_objective(bare, task.train.rows, task.train.rows)
    (ours,) = objective.losses([list(range(len(task.train.rows)))], [bare.forms])
    assert loss(rival).item() == pytest.approx(ours.item(), rel=1e-4)
    watched = rival.objective.watch(())
    assert watched.minus_loss == pytest.approx(objective.watch(bare.forms).minus_loss, rel=1e-4)
    train(rival, rate=0.01, epochs=2)
    assert loss(rival).item() < ours.item()
    assert rival.probabilities(task.train.rows).shape[0] == len(task.train.rows)
