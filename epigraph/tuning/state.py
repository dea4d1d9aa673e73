"""The state of a tuning on disk: one safetensors file, replaced whole, so that a kill at any moment leaves a good one.

i.current.* i.best.*   parameters of the i-th prompt        i.moments.*   its optimiser's        header   step, scores, rate scale
i.good.*               the same of the last validation, to which a loss that is not finite goes back
search                 what a search has decided so far
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from epigraph.errors import Corrupt, NotFound, StorageFailed

HEADER, SEARCH = "epigraph_state", "epigraph_search"


@dataclass
class State:
    """Where a tuning stands before step ``step``.

    ``best`` are the parameters that are kept, with what validation showed of them; ``top_…`` the best score seen at all, its
    standard error, and the best loss. ``history`` has one entry a validation: step, score, −loss, standard error, and the mean
    training loss since the one before.
    """

    step: int
    current: dict[str, Tensor]
    moments: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = float("-inf")
    best_minus_loss: float = float("-inf")
    best_error: float = 0.0
    best_step: int = 0
    top_score: float = float("-inf")
    top_error: float = 0.0
    top_minus_loss: float = float("-inf")
    history: list[list[float]] = field(default_factory=list)
    loss_sum: float = 0.0
    without_gain: int = 0
    scale: float = 1.0
    rollbacks: int = 0
    stopped: bool = False
    train_seconds: float = 0.0

    def copy(self) -> "State":
        """A state that later steps do not change (tensors are replaced, never written to)."""
        return State(**{**self.__dict__, **{part: dict(getattr(self, part)) for part in TENSORS}})


TENSORS = ("current", "moments", "best")
GOOD = "good."


Saved = tuple[State, State]


def save_states(path: Path, saved: Sequence[Saved], search: Mapping[str, Any] | None = None) -> None:
    """Write every prompt's state, and the one to roll back to, beside their old version and swap them.

    ``search`` is what a search has decided, as plain values.
    """
    parts = {f"{i}.{prefix}": state for i, pair in enumerate(saved) for prefix, state in zip(("", GOOD), pair, strict=True)}
    tensors = {
        name: t.clone() for prefix, state in parts.items() for name, t in _tensors(state, prefix).items()
    }  # some shared
    numbers = {prefix: _numbers(state) for prefix, state in parts.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, partial, metadata={HEADER: json.dumps(numbers), SEARCH: json.dumps(search or {})})
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise StorageFailed(
            f"the state of the run could not be written to {path}: {error}.", "Free disk space and resume."
        ) from error


def load_states(path: Path) -> list[Saved]:
    """Read every prompt's state and the one to roll back to; NotFound or Corrupt."""
    if not path.exists():
        raise NotFound(f"{path.parent} holds no state to resume from.", "Tune again without --resume.")
    try:
        with safe_open(path, framework="pt") as opened:
            numbers = json.loads((opened.metadata() or {})[HEADER])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        states = {prefix: _state(values, tensors, prefix) for prefix, values in numbers.items()}
        return [(states[f"{i}."], states[f"{i}.{GOOD}"]) for i in range(len(states) // 2)]
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        raise Corrupt(f"the state of the run at {path} cannot be read: {error}.", "Tune again without --resume.") from error


def load_search(path: Path) -> dict[str, Any]:
    """What a search had decided when this state was saved; Corrupt if it cannot be read."""
    try:
        with safe_open(path, framework="pt") as opened:
            found: dict[str, Any] = json.loads((opened.metadata() or {}).get(SEARCH, "{}"))
            return found
    except (SafetensorError, ValueError, OSError) as error:
        raise Corrupt(f"the state of the run at {path} cannot be read: {error}.", "Tune again without --resume.") from error


def _state(numbers: Mapping[str, Any], tensors: Mapping[str, Tensor], prefix: str) -> State:
    state = State(**numbers, current={})
    for part in TENSORS:
        begin = f"{prefix}{part}."
        setattr(state, part, {n.removeprefix(begin): t for n, t in tensors.items() if n.startswith(begin)})
    return state


def _tensors(state: State, prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{part}.{name}": t for part in TENSORS for name, t in getattr(state, part).items()}


def _numbers(state: State) -> dict[str, Any]:
    return {name: value for name, value in state.__dict__.items() if name not in TENSORS}
