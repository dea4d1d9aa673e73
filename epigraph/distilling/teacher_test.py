"""Hard prompts as teachers."""

from typing import Any

import numpy as np
import pytest

from epigraph.base import Base
from epigraph.distilling.answers import ask_all
from epigraph.distilling.teacher import BaseTeacher, hard_prompt_teacher
from epigraph.engine import Engine
from epigraph.tasks.task import Task


def test_what_stands_before_every_text_is_read_once(toy: Base, toy_rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hard prompt of 40 examples was read anew for every 64 texts, which took nearly as long as the texts themselves."""
    pairs = toy_rows(20)
    task = Task.from_rows([text for text, _ in pairs], [label for _, label in pairs])
    teacher = hard_prompt_teacher(Engine(toy), task, "What is it made of?")
    read, read_before = [], Engine.key_values

    def counted(self: Engine, form: Any) -> Any:
        read.append(form.length)
        return read_before(self, form)

    monkeypatch.setattr(Engine, "key_values", counted)
    monkeypatch.setattr(BaseTeacher, "together", 4)
    found = ask_all(teacher, task.train.rows, stage=lambda *_: None)
    assert len(read) == 1
    assert found.now == len({row.fields["text"] for row in task.train.rows}) > 8
    whole = np.log(teacher.solver.probabilities(task.train.rows))
    np.testing.assert_allclose([one.logs for one in found.answers], whole, atol=1e-4)
