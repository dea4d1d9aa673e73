"""A stock classifier as a teacher: a model that was fine-tuned with a classification head of its own.

    p(label) = softmax over id2label        labels are matched to the task's by name, or by the words the base says for them

It reads a row's fields alone, two as a pair of texts, and no hard prompt. Whatever its architecture and vocabulary, only
probabilities of labels pass to the student.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epigraph.base.classifier import Classifier
from epigraph.distilling.taught import Taught, of_logs
from epigraph.errors import TaskError
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

TOGETHER = 64  # rows between two saves
PAIR = 2
FEW = 5


@dataclass(frozen=True, kw_only=True)
class ClassifierTeacher:
    """A classifier that answers the rows of a task; ``columns`` are its outputs in the order of the task's labels."""

    classifier: Classifier
    task: Task
    columns: Sequence[int]
    text: str = ""
    shown: Sequence[Row] = ()
    together: int = TOGETHER
    vocabulary: Mapping[str, int] | None = None

    @property
    def name(self) -> str:
        """The model, and what it is."""
        return f"{self.classifier.name}, a classifier"

    @property
    def identity(self) -> Mapping[str, Any]:
        """Weights, precision, the fields that are read and the labels."""
        its = self.classifier
        return {
            "classifier": its.fingerprint,
            "precision": f"{its.precision.name} {its.model.device.type}",
            "fields": list(self.task.template.fields),
            "labels": [[label, its.labels[column]] for label, column in zip(self.task.labels, self.columns, strict=True)],
        }

    def teach(self, rows: Sequence[Row]) -> list[Taught]:
        """The answers to these rows."""
        logs = self.classifier.logs([self._read(row) for row in rows])[:, list(self.columns)]
        return [of_logs(one) for one in logs.tolist()]

    def ask(self, row: Row) -> None:
        """Answer one row as a request of its own."""
        self.classifier.logs([self._read(row)])

    def tokens(self, rows: Sequence[Row]) -> float | None:
        """Tokens that one request reads, in the mean."""
        lengths = self.classifier.lengths([self._read(row) for row in rows])
        return sum(lengths) / len(lengths)

    def _read(self, row: Row) -> tuple[str, ...]:
        """A text, or a pair of them; more fields are one text, a line each."""
        texts = tuple(row.fields[name] for name in self.task.template.fields)
        return texts if len(texts) <= PAIR else ("\n".join(texts),)


def classifier_teacher(classifier: Classifier, task: Task) -> ClassifierTeacher:
    """A classifier that teaches this task. TaskError where it has other labels, or the task has none."""
    if not task.has_labels:
        raise TaskError(
            f"{classifier.name} is a classifier, but the task is of kind {task.kind!r}.", "Choose a teacher that writes."
        )
    return ClassifierTeacher(classifier=classifier, task=task, columns=_columns(classifier, task))


def _columns(classifier: Classifier, task: Task) -> list[int]:
    """Which output each of the task's labels is, by its name or its words, whatever their case."""
    its = {_folded(label): column for column, label in enumerate(classifier.labels)}
    found = {label: its.get(_folded(label), its.get(_folded(words))) for label, words in task.labels.items()}
    columns = [column for column in found.values() if column is not None]
    if len(columns) == len(task.labels) == len(set(columns)) == len(classifier.labels):
        return columns
    missing = [label for label, column in found.items() if column is None]
    more = [label for column, label in enumerate(classifier.labels) if column not in columns]
    parts = [
        *([f"it has no {_few(missing)}"] if missing else []),
        *([f"the task has no {_few(more)}"] if more else []),
    ] or ["labels of one name"]
    raise TaskError(
        f"classifier {classifier.name} answers with other labels than the task: {'; '.join(parts)}.",
        "Name them alike: in id2label of its config.json, or under [labels] in the task TOML.",
    )


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _few(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels[:FEW])) + (" …" if len(labels) > FEW else "")
