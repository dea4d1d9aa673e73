"""Hard prompts as teachers."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from epigraph.base import Base
from epigraph.base.toy import toy_base
from epigraph.distilling.answers import ask_all
from epigraph.distilling.session import distill
from epigraph.distilling.settings import DistillConfig
from epigraph.distilling.taught import unpacked
from epigraph.distilling.teacher import BaseTeacher, hard_prompt_teacher
from epigraph.engine import Engine
from epigraph.tasks.task import Task


@pytest.fixture(scope="module")
def toy() -> Base:
    """A tiny base."""
    return toy_base()


@pytest.fixture(scope="module")
def task() -> Task:
    """Texts that mostly have one of two letters."""
    draw = random.Random(3)
    texts = ["".join(draw.choices(("aab ", "ZZb ")[i % 2], k=12)) for i in range(40)]
    return Task.from_rows(texts, ["animal", "metal"] * 20)


def test_what_stands_before_every_text_is_read_once(toy: Base, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hard prompt of 40 examples was read anew for every 64 texts, which took nearly as long as the texts themselves."""
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


def test_states_are_told_where_the_student_can_have_them_too(toy: Base, task: Task) -> None:
    """Two labels say one number of a text, the state that they are read from says H."""
    engine = Engine(toy)
    plain = hard_prompt_teacher(engine, task, "What is it made of?")
    teacher = plain.with_states(engine, task)
    assert teacher.identity != plain.identity, "answers without states were kept before"
    found = ask_all(teacher, task.train.rows, stage=lambda *_: None).answers
    states = torch.from_numpy(unpacked(found)).view(40, 1, toy.hidden)
    logs = teacher.solver.tree.labels(engine.scores_of(states, teacher.solver.tree))
    np.testing.assert_allclose([one.logs for one in found], logs, atol=1e-2)
    np.testing.assert_allclose(np.exp([one.logs for one in found]), plain.solver.probabilities(task.train.rows), atol=1e-4)
    assert not plain.with_states(Engine(toy_base(seed=7)), task).states
    assert not plain.with_states(engine, replace(task, labels={"animal": "beast", "metal": "ore"})).states


def test_a_student_of_states_comes_nearer_to_them(toy: Base, task: Task) -> None:
    engine = Engine(toy)
    teacher = hard_prompt_teacher(engine, task, "What is it made of?").with_states(engine, task)
    told = ask_all(teacher, task.train.rows, stage=lambda *_: None).answers
    off = {}
    for weight in (0.0, 1.0):
        config = DistillConfig(states=weight, length=4, epochs=6, rate=0.1, batch=8)
        result = distill(toy, task, task.train.rows, teacher, config, engine=engine)
        solver = result.model.method
        found = engine.node_states(solver.encode(task.train.rows), [solver.forms], solver.tree).flatten(1)
        off[weight] = float((found - torch.from_numpy(unpacked(told))).pow(2).sum(1).mean())
        assert result.settings["states"] == weight
    assert off[1.0] < 0.8 * off[0.0]
