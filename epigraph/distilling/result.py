"""What distilling gives back: the student's card and model, how well it imitates, what was lost, what a request saves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from epigraph.distilling.fidelity import Fidelity, Lost
from epigraph.evaluation import Scores
from epigraph.model import PromptModel
from epigraph.tuning.result import TunedPrompt


@dataclass(frozen=True, kw_only=True)
class DistillResult:
    """The result of ``distill``; ``scored``, ``teacher_scored`` and ``lost`` are None where the texts have no labels.

    ``request`` holds tokens and seconds of one request before and after, ``start`` the fidelity of the untrained student.
    """

    prompt: TunedPrompt
    model: PromptModel = field(repr=False)
    teacher: str
    fidelity: Fidelity
    start: Fidelity
    split: str
    scored: Scores | None = field(default=None, repr=False)
    teacher_scored: Scores | None = field(default=None, repr=False)
    lost: Lost | None = None
    request: Mapping[str, Any]
    cost: Mapping[str, Any]
    settings: Mapping[str, Any]
    reasons: Mapping[str, str]
    warnings: Sequence[str]

    @property
    def json(self) -> dict[str, Any]:
        """The contract's object."""
        return {
            "prompt": self.prompt.stored.card.reference,
            "teacher": self.teacher,
            **self.fidelity.json,
            "split": self.split,
            "start": self.start.json,
            "scores": None if self.scored is None else self.scored.json,
            "teacher_scores": None if self.teacher_scored is None else self.teacher_scored.json,
            "lost": None if self.lost is None else self.lost.json,
            "request": dict(self.request),
            "cost": dict(self.cost),
            "settings": dict(self.settings),
            "reasons": dict(self.reasons),
            "warnings": list(self.warnings),
        }
