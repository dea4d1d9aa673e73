"""The labels of several tasks as one set: equal words are one label, or as many as there are tasks that say them.

p(task k, label) = p(words | x) · p(k | x, a task that has these words)        with distinct labels
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float

from epigraph.tasks.row import Row, Split
from epigraph.tasks.task import Task

Posterior = Float[np.ndarray, "N K"]
Answer = tuple[int, str]  # a task's number, or -1 where equal words are one label; the words


@dataclass(frozen=True)
class Union:
    """The labels of these tasks. ``distinct``: equal words of two tasks are two labels."""

    tasks: Sequence[Task]
    distinct: bool = False

    @cached_property
    def words(self) -> list[str]:
        """Every word once, in the order of the tasks."""
        return list(dict.fromkeys(words for task in self.tasks for words in task.labels.values()))

    @cached_property
    def answers(self) -> list[Answer]:
        """All labels."""
        return list(dict.fromkeys(self.answer(k, label) for k, task in enumerate(self.tasks) for label in task.labels))

    @property
    def shared(self) -> dict[str, list[str]]:
        """Words that more than one task says, with the names of these tasks."""
        found = {words: [t.name for t in self.tasks if words in t.labels.values()] for words in self.words}
        return {words: names for words, names in found.items() if len(names) > 1}

    def answer(self, k: int, label: str) -> Answer:
        """The answer that a label of task k is; one that no answer equals for a label it does not have."""
        words = self.tasks[k].labels.get(label)
        if words is None:
            return (-2, label)
        return (k if self.distinct else -1, words)

    def task(self, like: Task, rows: Sequence[tuple[int, Row]] = ()) -> Task:
        """One task of all labels, in the template of ``like``; its rows come with the number of their task."""
        labels = {words: words for words in self.words}
        named = [replace(row, target=self.tasks[k].labels.get(row.target or "")) for k, row in rows]
        train = Split(rows=tuple(named), source=f"{len(self.tasks)} tasks")
        return replace(like, labels=labels, metric="accuracy", train=train, test=None, hard_prompts=())

    def split(self, words: Float[np.ndarray, "N W"], posterior: Posterior) -> Float[np.ndarray, "N C"]:
        """Probabilities of all answers from those of the words and of the tasks."""
        if not self.distinct:
            return words
        found = np.zeros((len(words), len(self.answers)))
        for c, (k, said) in enumerate(self.answers):
            having = [j for j, task in enumerate(self.tasks) if said in task.labels.values()]
            share = posterior[:, k] / np.maximum(posterior[:, having].sum(1), 1e-30)
            found[:, c] = words[:, self.words.index(said)] * share
        return found
