"""A stored prompt on its base, ready to answer.

model = load("prompts/routing", base)
model.predict(["my card was swallowed"])        # labels with probabilities
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from epigraph.base import DEFAULT, Base
from epigraph.base.fingerprint import remembered_folder
from epigraph.base.load import DEFAULT_NAME
from epigraph.engine import Engine
from epigraph.errors import DataError, TaskError
from epigraph.library import BaseFacts, Card, StoredPrompt, check_base, read_prompt
from epigraph.methods import judge
from epigraph.methods.calibration import calibrate
from epigraph.methods.shift import Shift
from epigraph.methods.solver import Probabilities, PromptedBase
from epigraph.tasks.row import Row
from epigraph.tasks.rows import needed, row_of
from epigraph.tasks.task import Task

TOGETHER = 64
Given = str | Mapping[str, Any] | Row


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer to one row: ``label`` (or a choice) with all ``probabilities``, ``labels`` where there may be several, or
    ``output``. ``label`` is None where it abstains. ``choice`` is the number of a choice among the row's, from 0. ``line`` is
    where the row stands in its file, from 1; 0 where there is none.
    """

    fields: Mapping[str, str]
    label: str | None = None
    probabilities: Mapping[str, float] | None = None
    output: str | None = None
    abstained: bool = False
    labels: tuple[str, ...] | None = None
    choice: int | None = None
    line: int = 0

    @property
    def json(self) -> dict[str, Any]:
        """The contract's object."""
        asked: dict[str, Any] = ({"line": self.line} if self.line else {}) | {"fields": dict(self.fields)}
        if self.output is not None:
            return asked | {"output": self.output}
        probabilities = {"probabilities": dict(self.probabilities or {})}
        if self.labels is not None:
            return asked | {"labels": list(self.labels)} | probabilities
        found: dict[str, Any] = asked | {"label": self.label} | probabilities
        found |= {} if self.choice is None else {"choice": self.choice}
        return found | ({"abstained": True} if self.abstained else {})


def task_of(card: Card) -> Task:
    """The task that a stored prompt answers. TaskError for a universal prompt, which answers none by itself."""
    if not card.task:
        raise TaskError(
            f"prompt {card.reference!r} is where new tasks start: it answers none by itself.",
            f"Tune one from it: epigraph tune train.csv --from {card.name}",
        )
    return Task.from_dict(card.task)


class PromptModel:
    """Predicts with a stored prompt; BaseMismatch if the base is not the one it was tuned on."""

    def __init__(self, stored: StoredPrompt, base: Base, *, engine: Engine | None = None) -> None:
        check_base(stored.card, facts(base))
        self.card: Card = stored.card
        self.task = task_of(stored.card)
        output_tokens = int(stored.card.settings.get("output_tokens", 64))
        method = PromptedBase(
            engine or Engine(base, keep=False),
            self.task,
            stored.forms,
            output_tokens=output_tokens,
            members=stored.card.members,
        )
        shift = stored.card.settings.get("calibration")
        self.method = method.with_shift(Shift.from_dict(shift) if shift else None)

    def on(self, engine: Engine) -> "PromptModel":
        """The same on another engine of the same base."""
        other = copy(self)
        other.method = self.method.on(engine)
        return other

    def calibrate(self, how: str, rows: Sequence[Given] = ()) -> None:
        """Answer with calibrated probabilities from here on; ``rows``, for ``prior``, need no labels."""
        self.method = calibrate(self.method, how, [self.row(given) for given in rows])

    def predict(self, rows: Sequence[Given], *, min_confidence: float = 0.0) -> list[Prediction]:
        """One prediction a row; a label less probable than ``min_confidence`` is withheld."""
        return list(self.stream(rows, min_confidence=min_confidence))

    def stream(
        self, rows: Iterable[Given], *, min_confidence: float = 0.0, together: int = TOGETHER
    ) -> Iterator[Prediction]:
        """Predictions in order, computed ``together`` rows at a time as they arrive."""
        source = iter(rows)
        while chunk := [self.row(given) for given in islice(source, together)]:
            yield from self._answers(chunk, min_confidence)
            if not self.method.engine.store.keep:
                self.method.engine.store.forget()

    def row(self, given: Given) -> Row:
        """What was given as a row of the task. DataError where a field or the choices are missing."""
        names = self.task.template.fields
        if isinstance(given, Row):
            return given
        if isinstance(given, str):
            if len(names) != 1 or self.task.columns.choices:
                raise DataError(
                    f"one text was given, but the task's template has the fields {', '.join(needed(self.task.columns, names))}.",
                    "Give them by name, as JSON objects or columns.",
                )
            return Row(fields={names[0]: given})
        return row_of(given, self.task.columns, names)

    def _answers(self, rows: Sequence[Row], min_confidence: float) -> Iterator[Prediction]:
        if self.task.writes:
            for row, output in zip(rows, self.method.outputs(rows), strict=True):
                yield Prediction(fields=row.fields, output=output, line=row.line)
            return
        yield from read_off(self.method.task, rows, self.method.probabilities(rows), min_confidence)


def read_off(task: Task, rows: Sequence[Row], found: Probabilities, min_confidence: float = 0.0) -> Iterator[Prediction]:
    """The predictions that these probabilities give."""
    given = judge.read(task, rows, found).given
    for row, answer, scores in zip(rows, given, found, strict=True):
        yield _prediction(task, row, answer, [float(score) for score in scores], min_confidence)


def _prediction(task: Task, row: Row, answer: judge.Answer, scores: Sequence[float], min_confidence: float) -> Prediction:
    names = row.choices or tuple(task.labels)
    probabilities = dict(zip(names, scores[: len(names)], strict=True))
    if isinstance(answer, tuple):
        kept = tuple(label for label in answer if probabilities[label] >= min_confidence)
        return Prediction(fields=row.fields, labels=kept, probabilities=probabilities, line=row.line)
    sure = probabilities[answer] >= min_confidence
    return Prediction(
        fields=row.fields,
        label=answer if sure else None,
        probabilities=probabilities,
        abstained=not sure,
        choice=row.choices.index(answer) if row.choices and sure else None,
        line=row.line,
    )


def load(folder: Path | str, base: Base) -> PromptModel:
    """The prompt in this folder on this base. NotFound, Corrupt or BaseMismatch if it cannot be."""
    return PromptModel(read_prompt(Path(folder)), base)


def facts(base: Base) -> BaseFacts:
    """What a card says of a base."""
    return BaseFacts(
        name=base.name,
        fingerprint=base.fingerprint,
        hidden=base.hidden,
        layers=base.layers,
        kv_heads=base.heads,
        head_size=base.head_size,
    )


def base_of(card: Card) -> str:
    """Where the card's base was last seen on this machine, or the name it has on the hub."""
    if card.base.name == DEFAULT_NAME:
        return DEFAULT
    return str(remembered_folder(card.base.fingerprint) or card.base.name)
