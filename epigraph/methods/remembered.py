"""A method whose answers are remembered: what was computed for a row is not computed again, whoever asks.

    answer(row) = book[method, row]        else computed and noted

The same hard prompts are asked for the same rows by every tuning that is judged against them: each learning rate, seed, kind and
number of rows of a comparison. A book is as large as its answers, and lives as long as who holds it.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from epigraph.methods.solver import Probabilities, PromptedBase
from epigraph.prompts import Embedded, plain_forms
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

RowKey = tuple[Any, ...]


class Book:
    """Answers by method and row."""

    def __init__(self) -> None:
        self._pages: dict[str, dict[RowKey, Any]] = {}

    def of(self, method: PromptedBase) -> "Remembered":
        """The method with its page of this book."""
        return Remembered(method, self._pages.setdefault(identity(method), {}))


class Remembered:
    """A prompted base that computes every row once."""

    def __init__(self, method: PromptedBase, page: dict[RowKey, Any]) -> None:
        self.method, self.page = method, page

    @property
    def task(self) -> Task:
        """The method's."""
        return self.method.task

    def probabilities(self, rows: Sequence[Row]) -> Probabilities:
        """The method's, as wide as its widest row."""
        found = self._answers("p", rows, lambda new: list(self.method.probabilities(new)))
        width = max((len(one) for one in found), default=len(self.task.labels))
        return np.stack([np.pad(one, (0, width - len(one))) for one in found]) if found else np.zeros((0, width))

    def outputs(self, rows: Sequence[Row]) -> list[str]:
        """The method's."""
        return self._answers("o", rows, self.method.outputs)

    def _answers(self, what: str, rows: Sequence[Row], compute: Callable[[Sequence[Row]], Sequence[Any]]) -> list[Any]:
        keys = [(what, tuple(sorted(row.fields.items())), row.choices) for row in rows]
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in self.page}
        if new:
            self.page |= zip(new, compute(list(new.values())), strict=True)
        return [self.page[key] for key in keys]


def identity(method: PromptedBase) -> str:
    """A hash of all that a method's answers depend on; from which probability on a label is given is not among it. Unsupported for
    prompts that depend on the input."""
    base, task = method.engine.base, method.task
    said = {
        "base": [base.fingerprint, base.precision.name, base.device.type],
        "task": [task.kind, dict(task.labels), task.chat, list(task.stop)],
        "read": [method.template.text, method.encoder.bos, method.output_tokens, method.members],
        "shift": None if method.shift is None else method.shift.to_dict(),
    }
    found = hashlib.blake2b(json.dumps(said, default=str).encode(), digest_size=16)
    for form in plain_forms(method.forms, "a method whose answers are remembered"):
        for tensor in [form.vectors] if isinstance(form, Embedded) else [form.keys, form.values]:
            found.update(f"{tuple(tensor.shape)}".encode())
            found.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return found.hexdigest()
