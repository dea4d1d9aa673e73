"""What a method answered before is not computed again, and is the same."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.methods.hard import instruction_first
from epigraph.methods.remembered import Book, identity
from epigraph.methods.solver import Probabilities, PromptedBase
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

TEXTS = ["aa", "Z", "aaa", "ZZ"]
TASKS = {
    "classification": Task.from_rows(TEXTS, ["animal", "metal"] * 2),
    "choice": Task.from_rows(
        [{"question": t, "choices": ["Z", "a", "k"][: 2 + n % 2]} for n, t in enumerate(TEXTS)], [1, 0] * 2, kind="choice"
    ),
    "generation": Task.from_rows(TEXTS, ["A", "Z"] * 2, kind="generation"),
}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_base(), keep=False)


@pytest.mark.parametrize("kind", TASKS)
def test_every_row_is_computed_once(engine: Engine, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, asked = TASKS[kind], list[int]()
    plain, book = instruction_first(engine, task, 4), Book()
    rows = task.train.rows
    whole = plain.outputs(rows) if task.writes else plain.probabilities(rows)
    probabilities, outputs = PromptedBase.probabilities, PromptedBase.outputs

    def count(self: PromptedBase, given: Sequence[Row]) -> Probabilities:
        asked.append(len(given))
        return probabilities(self, given)

    def count_outputs(self: PromptedBase, given: Sequence[Row]) -> list[str]:
        asked.append(len(given))
        return outputs(self, given)

    monkeypatch.setattr(PromptedBase, "probabilities", count)
    monkeypatch.setattr(PromptedBase, "outputs", count_outputs)
    for some in ([0, 1], [3, 0, 1], [2, 1, 0, 3]):
        method = book.of(instruction_first(engine, task, 4))  # made anew, as every tuning makes it
        given = [rows[i] for i in some]
        if task.writes:
            assert method.outputs(given) == [whole[i] for i in some]
        else:
            found = method.probabilities(given)
            np.testing.assert_allclose(found, np.asarray(whole)[some][:, : found.shape[1]], atol=1e-6)
    assert asked == [2, 1, 1]


def test_another_instruction_is_another_method_and_another_threshold_is_not(engine: Engine) -> None:
    task = TASKS["classification"]
    method = instruction_first(engine, task, 4)
    assert identity(method) == identity(method.with_threshold(0.2))
    assert identity(method) != identity(instruction_first(engine, replace(task, instruction="Which is it?"), 4))
    assert identity(method) != identity(instruction_first(engine, replace(task, labels={"animal": "b", "metal": "c"}), 4))
