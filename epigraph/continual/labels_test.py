"""A union of labels: equal words are one label or as many as tasks say them; probabilities stay probabilities."""

import numpy as np
import pytest

from epigraph.continual.labels import Union
from epigraph.tasks.task import Task


def task(name: str, labels: dict[str, str]) -> Task:
    targets = list(labels) * 2
    return Task.from_rows([f"text {i}" for i in range(len(targets))], targets, name=name, words=labels)


TASKS = [
    task("films", {"pos": "good", "neg": "bad"}),
    task("food", {"p": "good", "n": "awful"}),
    task("mood", {"s": "sad", "h": "glad"}),
]


def test_equal_words_are_one_label_or_two() -> None:
    one, two = Union(TASKS), Union(TASKS, distinct=True)
    assert one.shared == two.shared == {"good": ["films", "food"]}
    assert (len(one.answers), len(two.answers)) == (5, 6)
    assert one.answer(0, "pos") == one.answer(1, "p")
    assert two.answer(0, "pos") != two.answer(1, "p")
    assert one.answer(0, "unheard") not in one.answers


def test_one_task_of_all_labels_has_everybodys_rows() -> None:
    union = Union(TASKS)
    rows = [(k, row) for k, one in enumerate(TASKS) for row in one.train.rows]
    together = union.task(TASKS[0], rows)
    assert list(together.labels) == ["bad", "good", "awful", "glad", "sad"]
    assert [row.target for row in together.train.rows][:4] == ["good", "bad", "good", "bad"]
    assert together.train.rows[4].target == "good"


@pytest.mark.parametrize("distinct", [False, True])
def test_probabilities_of_words_become_those_of_answers(distinct: bool) -> None:
    union = Union(TASKS, distinct)
    rng = np.random.default_rng(0)
    words, tasks = rng.dirichlet(np.ones(5), 7), rng.dirichlet(np.ones(3), 7)
    found = union.split(words, tasks)
    assert found.shape == (7, len(union.answers))
    np.testing.assert_allclose(found.sum(1), 1.0)
    if distinct:
        film, food = union.answers.index((0, "good")), union.answers.index((1, "good"))
        np.testing.assert_allclose(found[:, film] + found[:, food], words[:, union.words.index("good")])
        np.testing.assert_allclose(found[:, film] / found[:, food], tasks[:, 0] / tasks[:, 1])
