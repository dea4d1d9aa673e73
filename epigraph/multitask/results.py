"""What tuning tasks together gives back: every task beside its plain prompt, and which tasks are alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epigraph.multitask.similarity import Gains, Table


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One task: its prompt, tuned together with others, beside its plain prompt and its hard prompt."""

    name: str
    prompt: str
    metric: str
    scores: Mapping[str, Any]
    plain: Mapping[str, Any]
    hard: Mapping[str, Any]

    @property
    def json(self) -> dict[str, Any]:
        """As the command prints it."""
        return {
            "task": self.name,
            "prompt": self.prompt,
            "metric": self.metric,
            "scores": dict(self.scores),
            "plain": dict(self.plain),
            "hard_prompt": dict(self.hard),
        }


@dataclass(frozen=True, kw_only=True)
class MultitaskResult:
    """All tasks, the universal prompt ("" where the kind has none), and which tasks are alike."""

    folder: Path
    kind: str
    universal: str
    tasks: Sequence[TaskResult]
    similarity: Table
    gains: Gains | None
    agreement: float | None
    cost: Mapping[str, Any]
    reasons: Mapping[str, str]

    @property
    def json(self) -> dict[str, Any]:
        """As the command prints it."""
        names = [one.name for one in self.tasks]
        gains = self.gains.to_dict(names) if self.gains else {"gain": None}
        transfer = {"tasks": names, "cosine": self.similarity, **gains}
        return {
            "work": str(self.folder),
            "kind": self.kind,
            "universal": self.universal,
            "tasks": [one.json for one in self.tasks],
            "similarity": transfer | {"agreement": self.agreement},
            "cost": dict(self.cost),
            "reasons": dict(self.reasons),
        }
