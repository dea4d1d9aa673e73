"""A stored prompt on its base, ready to answer.

model = load("prompts/routing", base)
model.predict(["my card was swallowed"])        # labels with probabilities
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from epigraph.base import Base
from epigraph.engine import Engine
from epigraph.errors import DataError
from epigraph.library import BaseFacts, Card, StoredPrompt, check_base, read_prompt
from epigraph.methods.solver import PromptedBase
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

TOGETHER = 64
Given = str | Mapping[str, str] | Row


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer to one row: ``label`` with all ``probabilities``, or ``output``. ``label`` is None where it abstains."""

    fields: Mapping[str, str]
    label: str | None = None
    probabilities: Mapping[str, float] | None = None
    output: str | None = None
    abstained: bool = False

    @property
    def json(self) -> dict[str, Any]:
        """The contract's object."""
        if self.output is not None:
            return {"fields": dict(self.fields), "output": self.output}
        found = {"fields": dict(self.fields), "label": self.label, "probabilities": dict(self.probabilities or {})}
        return found | ({"abstained": True} if self.abstained else {})


class PromptModel:
    """Predicts with a stored prompt; BaseMismatch if the base is not the one it was tuned on."""

    def __init__(self, stored: StoredPrompt, base: Base, *, engine: Engine | None = None) -> None:
        check_base(stored.card, facts(base))
        self.card: Card = stored.card
        self.task = Task.from_dict(stored.card.task)
        output_tokens = int(stored.card.settings.get("output_tokens", 64))
        self.method = PromptedBase(engine or Engine(base, keep=False), self.task, stored.forms, output_tokens=output_tokens)

    def predict(self, rows: Sequence[Given], *, min_confidence: float = 0.0) -> list[Prediction]:
        """One prediction a row; a label less probable than ``min_confidence`` is withheld."""
        return list(self.stream(rows, min_confidence=min_confidence))

    def stream(
        self, rows: Iterable[Given], *, min_confidence: float = 0.0, together: int = TOGETHER
    ) -> Iterator[Prediction]:
        """Predictions in order, computed ``together`` rows at a time as they arrive."""
        source = iter(rows)
        while chunk := [self._row(given) for given in islice(source, together)]:
            yield from self._answers(chunk, min_confidence)
            if not self.method.engine.store.keep:
                self.method.engine.store.forget()

    def _row(self, given: Given) -> Row:
        names = self.task.template.fields
        if isinstance(given, Row):
            return given
        if isinstance(given, str):
            if len(names) != 1:
                raise DataError(
                    f"one text was given, but the task's template has the fields {', '.join(names)}.",
                    "Give them by name, as JSON objects or columns.",
                )
            return Row(fields={names[0]: given})
        missing = [name for name in names if name not in given]
        if missing:
            raise DataError(f"the row has no field {', '.join(missing)}.", f"It has: {', '.join(given) or 'none'}.")
        return Row(fields={name: str(given[name]) for name in names})

    def _answers(self, rows: Sequence[Row], min_confidence: float) -> Iterator[Prediction]:
        if not self.task.has_labels:
            for row, output in zip(rows, self.method.outputs(rows), strict=True):
                yield Prediction(fields=row.fields, output=output)
            return
        labels = list(self.task.labels)
        for row, scores in zip(rows, self.method.probabilities(rows), strict=True):
            best = int(scores.argmax())
            sure = float(scores[best]) >= min_confidence
            probabilities = {label: float(score) for label, score in zip(labels, scores, strict=True)}
            yield Prediction(
                fields=row.fields, label=labels[best] if sure else None, probabilities=probabilities, abstained=not sure
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
