"""A server of ours as the teacher at an address: what it says over HTTP is what the same base says here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import epigraph
from epigraph.distilling import DistillConfig
from epigraph.distilling.address import Address
from epigraph.distilling.answers import ask_all
from epigraph.distilling.remote import RemoteTeacher
from epigraph.distilling.teacher import hard_prompt_teacher
from epigraph.distilling.written import HardPrompt
from epigraph.engine import Engine
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from tests.serving.conftest import LABELS, House, Running, labelled, written

ROWS = [Row(fields={"text": f"text {i}"}) for i in range(20)]


def remote(running: Running, house: House, task: Task, **changes: Any) -> RemoteTeacher:
    hard = HardPrompt(task=task, text="What is it?", examples=task.train.rows[:3])
    address = Address(url=running.url, model=house.base.name)
    return RemoteTeacher(address=address, hard=hard, output_tokens=6, **changes)


def test_labels_over_http_are_those_of_the_same_hard_prompt_here(running: Running, house: House) -> None:
    task = labelled()
    here = hard_prompt_teacher(Engine(house.base), task, "What is it?", examples=task.train.rows[:3])
    there = remote(running, house, task)
    ours, theirs = ([one.logs for one in teacher.teach(ROWS[:5])] for teacher in (here, there))
    np.testing.assert_allclose(theirs, ours, atol=2e-3)
    assert there.echoes
    assert there.tokens(ROWS) == pytest.approx(here.tokens(ROWS), abs=1)


def test_texts_over_http_too(running: Running, house: House) -> None:
    task = written()
    here = hard_prompt_teacher(Engine(house.base), task, "What is it?", examples=task.train.rows[:2], output_tokens=6)
    hard = HardPrompt(task=task, text="What is it?", examples=task.train.rows[:2])
    there = RemoteTeacher(address=Address(url=running.url, model=house.base.name), hard=hard, output_tokens=6)
    assert [one.text for one in there.teach(ROWS[:3])] == [one.text for one in here.teach(ROWS[:3])]


def test_what_was_answered_before_an_interruption_is_not_asked_again(
    running: Running, house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = remote(running, house, labelled(), together=4)
    teach: Callable[..., Any] = RemoteTeacher.teach
    asked: list[str] = []

    def stop(self: RemoteTeacher, rows: list[Row]) -> Any:
        if len(asked) >= 8:
            raise KeyboardInterrupt
        asked.extend(row.fields["text"] for row in rows)
        return teach(self, rows)

    def stage(_name: str, _done: int, _total: int) -> None:
        pass

    with monkeypatch.context() as patch:
        patch.setattr(RemoteTeacher, "teach", stop)
        with pytest.raises(KeyboardInterrupt):
            ask_all(teacher, ROWS[:12], stage=stage, folder=tmp_path)
    (file,) = tmp_path.glob("*.jsonl")
    assert file.stat().st_mode & 0o077 == 0
    with file.open("ab") as out:
        out.write(b'{"key": "half a li')  # a kill while it was written
    later: list[Row] = []

    def count(self: RemoteTeacher, rows: list[Row]) -> Any:
        later.extend(rows)
        return teach(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(RemoteTeacher, "teach", count)
        found = ask_all(teacher, ROWS[:12], stage=stage, folder=tmp_path)
    assert (len(found.answers), found.now, len(later)) == (12, 4, 4)
    again = ask_all(teacher, ROWS[:12], stage=stage, folder=tmp_path)
    assert (again.answers, again.now) == (found.answers, 0)


def test_a_student_learns_from_an_address(running: Running, house: House) -> None:
    config = DistillConfig(epochs=1, length=2)
    result = epigraph.distill(house.base, labelled(), ROWS, remote(running, house, labelled()), config)
    assert result.teacher == f"{house.base.name} at {running.url}"
    assert result.fidelity.rows == 3, "a fifth of 14: the teacher reads 6 of the 20 as examples"
    assert set(result.request["seconds"]) == {"before", "after"}
    assert result.model.predict(["text"])[0].label in LABELS
