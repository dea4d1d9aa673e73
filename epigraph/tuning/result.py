"""What a tuning gives back: the prompt with its card, its scores beside the hard prompt's, its cost, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epigraph.evaluation import Scores
from epigraph.library import StoredPrompt, write_prompt
from epigraph.model import PromptModel
from epigraph.tuning.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class TunedPrompt:
    """The prompt as it will be stored."""

    stored: StoredPrompt
    metrics_file: Path | None = None

    def save(self, folder: Path | str) -> None:
        """Write the prompt folder; an existing prompt there is replaced."""
        write_prompt(Path(folder), self.stored.forms, self.stored.card, metrics_file=self.metrics_file)


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """The result of ``tune``: what is stored, and ``hard``, the best hard prompt on the same rows."""

    prompt: TunedPrompt
    model: PromptModel = field(repr=False)
    scored: Scores = field(repr=False)
    hard: Scores = field(repr=False)
    cost: Mapping[str, Any]
    settings: Mapping[str, Any]
    reasons: Mapping[str, str]
    warnings: Sequence[str]
    verdict: Verdict = field(repr=False)
    trials: Sequence[Mapping[str, Any]] = ()
    """One entry a trial of the search: its settings, what it reached, and whether it was kept."""

    @property
    def scores(self) -> dict[str, Any]:
        """The tuned prompt's scores on rows no choice has seen."""
        return self.scored.json

    @property
    def json(self) -> dict[str, Any]:
        """The contract's object."""
        return {
            "prompt": self.prompt.stored.card.reference,
            "scores": self.scores,
            "hard_prompt": self.hard.json,
            "cost": dict(self.cost),
            "settings": dict(self.settings),
            "reasons": dict(self.reasons),
            "warnings": list(self.warnings),
            "verdict": self.verdict.keeps,
            "gain": self.verdict.json,
            "trials": [dict(trial) for trial in self.trials],
        }
