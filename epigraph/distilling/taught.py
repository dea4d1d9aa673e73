"""What a teacher says of a text: the distribution over the labels, or its greedy answer with the likeliest tokens at each place.

labels       log p(label) for every label, in the order of the task's                     [C]
             where wanted, the states from which its branching nodes are read             [X, H], as base64 of float16
generation   the answer's text and, where teacher and student have one vocabulary, its ids [T] (the end token included) and
             the K likeliest tokens at each of its places with their log probabilities      [T, K]
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from epigraph.errors import Corrupt
from epigraph.tasks.task import Task

LEAST_LOG = -30.0  # nats; below it a label is as good as impossible


@dataclass(frozen=True, kw_only=True)
class Taught:
    """A teacher's answer to one text; ``logs`` where it chooses a label (``states`` where these were wanted), the rest where it writes."""

    logs: tuple[float, ...] = ()
    states: str = ""
    text: str = ""
    ids: tuple[int, ...] = ()
    top: tuple[tuple[int, ...], ...] = ()
    top_logs: tuple[tuple[float, ...], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What is kept of it; empty parts are left out."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Taught":
        """What was kept. Corrupt if it is no answer."""
        try:
            return cls(
                logs=tuple(map(float, data.get("logs", ()))),
                states=str(data.get("states", "")),
                text=str(data.get("text", "")),
                ids=tuple(map(int, data.get("ids", ()))),
                top=tuple(tuple(map(int, one)) for one in data.get("top", ())),
                top_logs=tuple(tuple(map(float, one)) for one in data.get("top_logs", ())),
            )
        except (TypeError, ValueError) as error:
            raise Corrupt(
                f"a kept answer of the teacher cannot be read: {error}.", "Clear: epigraph cache clear answers"
            ) from None

    @property
    def finite(self) -> bool:
        """Whether all its numbers are."""
        return all(math.isfinite(log) for log in (*self.logs, *(log for place in self.top_logs for log in place)))

    @property
    def plain(self) -> "Taught":
        """The answer as text alone: what a student with another vocabulary can learn from."""
        return Taught(logs=self.logs, text=self.text)


def of_logs(logs: Sequence[float]) -> Taught:
    """An answer from log probabilities of the labels, made to sum to one."""
    found = np.maximum(np.asarray(logs, dtype=np.float64), LEAST_LOG)
    with np.errstate(invalid="ignore"):  # what is no number stays none: ``finite`` tells
        found = found - np.logaddexp.reduce(found)
    return Taught(logs=tuple(round(float(log), 6) for log in found))


def packed(states: Float[np.ndarray, "X H"]) -> str:
    """States as they are kept; what is beyond float16 becomes its largest number."""
    largest = float(np.finfo(np.float16).max)
    return base64.b64encode(np.clip(states, -largest, largest).astype("<f2").tobytes()).decode()


def unpacked(taught: Sequence[Taught]) -> Float[np.ndarray, "N Y"]:
    """The states of several answers, [X · H] each."""
    return np.stack([np.frombuffer(base64.b64decode(one.states), "<f2") for one in taught]).astype(np.float32)


def probabilities(taught: Sequence[Taught]) -> Float[np.ndarray, "N C"]:
    """The label distributions of several answers."""
    return np.exp(np.array([one.logs for one in taught], dtype=np.float64))


def check_kind(task: Task) -> None:
    """Unsupported for tasks whose answers are neither one label nor a text."""
    from epigraph.errors import Unsupported

    if not (task.has_labels or task.writes):
        raise Unsupported(
            f"distilling needs a task of labels or of texts to write, but this one is of kind {task.kind!r}.",
            "Tune a prompt on labelled rows instead: epigraph tune",
        )
