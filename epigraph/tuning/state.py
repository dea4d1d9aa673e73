"""The state of a tuning on disk: one safetensors file, replaced whole, so that a kill at any moment leaves a good one.

current.* best.*   the prompt's parameters        moments.*   the optimiser's        header   step, scores, rate scale
good.*             the same of the last validation, to which a loss that is not finite goes back
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from epigraph.errors import Corrupt, NotFound, StorageFailed

HEADER = "epigraph_state"


@dataclass
class State:
    """Where a tuning stands before step ``step``."""

    step: int
    current: dict[str, Tensor]
    moments: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float = -1.0
    best_minus_loss: float = float("-inf")
    best_step: int = 0
    without_gain: int = 0
    scale: float = 1.0
    rollbacks: int = 0
    stopped: bool = False
    train_seconds: float = 0.0

    def copy(self) -> "State":
        """A state that later steps do not change."""
        return State(
            **{**self.__dict__, "current": _cloned(self.current), "moments": _cloned(self.moments), "best": dict(self.best)}
        )


TENSORS = ("current", "moments", "best")
GOOD = "good."


def save_state(path: Path, state: State, good: State) -> None:
    """Write the state, and the one to roll back to, beside their old version and swap them."""
    tensors = {name: t.clone() for name, t in (_tensors(state, "") | _tensors(good, GOOD)).items()}  # both may share some
    numbers = {"state": _numbers(state), "good": _numbers(good)}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, partial, metadata={HEADER: json.dumps(numbers)})
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise StorageFailed(
            f"the state of the run could not be written to {path}: {error}.", "Free disk space and resume."
        ) from error


def load_state(path: Path) -> tuple[State, State]:
    """Read a state and the one to roll back to; NotFound or Corrupt."""
    if not path.exists():
        raise NotFound(f"{path.parent} holds no state to resume from.", "Tune again without --resume.")
    try:
        with safe_open(path, framework="pt") as opened:
            numbers = json.loads((opened.metadata() or {})[HEADER])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        return _state(numbers["state"], tensors, ""), _state(numbers["good"], tensors, GOOD)
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
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


def _cloned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
