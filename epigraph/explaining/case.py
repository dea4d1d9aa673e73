"""What is explained: a prompt on its base, rows to measure on, and how much time there is.

A case answers each question once: the encoded rows, the prompt's probabilities and answers are computed when first asked for
and kept, so that sections share them.
"""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from epigraph import metrics
from epigraph.engine import Engine
from epigraph.errors import ConfigError, Unsupported
from epigraph.methods.solver import PromptedBase
from epigraph.metrics import Interval, Metric
from epigraph.model import PromptModel
from epigraph.prompts import Form, plain_forms
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """How much is looked at, and for how long."""

    rows: int = 200
    """The most rows that are measured on."""
    seed: int = 0
    """Seed of draws and resamples."""
    budget: float = 0.0
    """Seconds after which no further section begins; 0: as long as it takes."""
    twin_tokens: int = 8
    """Tokens of the hard prompt that is searched for."""
    twin_steps: int = 24
    """Steps of the search with gradients; half of them project, half swap tokens."""
    wayward_steps: int = 60
    """Steps of the re-tuning that is pulled to an unrelated text."""
    edit_rows: int = 60
    """The most rows that each kind of edit is tried on."""

    def __post_init__(self) -> None:
        for name in ("rows", "twin_tokens", "edit_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} was asked; it must be at least 1.")
        if not 0 <= self.budget < float("inf"):
            raise ConfigError(f"budget {self.budget} was asked; it must be a number of seconds.")


@dataclass
class Clock:
    """How much of the budget is left. ``budget`` 0 never ends."""

    budget: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started

    @property
    def over(self) -> bool:
        """Whether the budget is spent."""
        return bool(self.budget) and self.seconds >= self.budget


@dataclass(frozen=True, eq=False)
class Case:
    """A prompt and what it is measured on.

    ``source`` says in words what the rows are. ``groups`` maps a column's name to its value for every row. ``other`` is the
    prompt to compare with, ``text`` the one answer to explain.
    """

    model: PromptModel
    rows: Sequence[Row]
    config: ExplainConfig = field(default_factory=ExplainConfig)
    source: str = "the rows given"
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    text: Row | None = None
    other: PromptModel | None = None
    clock: Clock = field(default_factory=Clock)

    @property
    def method(self) -> PromptedBase:
        """The prompted base."""
        return self.model.method

    @cached_property
    def forms(self) -> list[Form]:
        """Its forms. Unsupported where they depend on the input or several prompts vote."""
        if self.model.card.members > 1:
            raise Unsupported(
                f"{self.model.card.reference} is an ensemble of {self.model.card.members} prompts; one is explained at a time.",
                "Tune it without --ensemble.",
            )
        return plain_forms(self.method.forms, "an explanation")

    @property
    def engine(self) -> Engine:
        """What computes."""
        return self.method.engine

    @property
    def labels(self) -> tuple[str, ...]:
        """The task's labels; empty where answers are written."""
        return tuple(self.model.task.labels)

    @property
    def has_labels(self) -> bool:
        """Whether answers are labels."""
        return self.model.task.has_labels

    @property
    def labelled(self) -> bool:
        """Whether every row says what is right."""
        return bool(self.rows) and all(row.target is not None for row in self.rows)

    @cached_property
    def truth(self) -> tuple[str, ...]:
        """What is right, "" where a row does not say."""
        return tuple(row.target or "" for row in self.rows)

    @cached_property
    def encoded(self) -> list[Encoded]:
        """The rows as token ids."""
        return self.method.encode(self.rows)

    @cached_property
    def probabilities(self) -> Float[np.ndarray, "N C"]:
        """The prompt's label probabilities."""
        return self.method.label_probabilities(self.encoded)

    @cached_property
    def chosen(self) -> Int[np.ndarray, "N"]:
        """The number of the prompt's label for every row."""
        return np.asarray(self.probabilities.argmax(1))

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """The prompt's answers: labels or texts."""
        if self.has_labels:
            return tuple(self.labels[i] for i in self.chosen)
        return tuple(self.method.encoded_outputs(self.encoded))

    def answers_of(self, forms: Sequence[Form], rows: Sequence[Encoded]) -> tuple[str, ...]:
        """The answers of other forms in this prompt's place."""
        method = self.method.with_forms(forms)
        if self.has_labels:
            return tuple(self.labels[i] for i in method.label_probabilities(rows).argmax(1))
        return tuple(method.encoded_outputs(rows))

    def metric(self, answers: Sequence[str], among: Sequence[int] | None = None) -> Metric:
        """The task's metric of answers to the rows ``among``; where rows say nothing, agreement with the prompt's answers."""
        index = range(len(self.rows)) if among is None else among
        if not self.labelled:
            return metrics.mean_metric(metrics.right([self.answers[i] for i in index], answers))
        if self.has_labels:
            truth = [self.truth[i] for i in index]
            if self.model.task.metric == "macro_f1":
                return metrics.macro_f1_metric(truth, answers)
            return metrics.mean_metric(metrics.right(truth, answers))
        references = [self.rows[i].references or (self.truth[i],) for i in index]
        if self.model.task.metric == "exact_match":
            return metrics.mean_metric(np.asarray(metrics.matches(answers, references)))
        return metrics.mean_metric(np.asarray(metrics.rouge_l_rows(answers, references)))

    @property
    def metric_name(self) -> str:
        """What ``metric`` measures, in words."""
        if not self.labelled:
            return "agreement with the whole prompt"
        if self.has_labels:
            return "macro-F1" if self.model.task.metric == "macro_f1" else "accuracy"
        return "exact match" if self.model.task.metric == "exact_match" else "ROUGE-L"

    def score(self, answers: Sequence[str], among: Sequence[int] | None = None) -> Interval:
        """The metric with its 95% interval over these rows."""
        return metrics.bootstrap(self.metric(answers, among), len(answers), seed=self.config.seed)


def share(flags: Sequence[bool] | np.ndarray) -> Interval:
    """The share of true flags with its Wilson interval; 0 of nothing has the widest one."""
    flags = np.asarray(flags, dtype=bool)
    return metrics.wilson(float(flags.mean()), len(flags)) if len(flags) else Interval(0.0, 0.0, 1.0)


def kappa(first: Sequence[str], second: Sequence[str]) -> float:
    """Cohen's κ: agreement beyond what two answerers with these frequencies reach by chance; 0 where chance is all."""
    return float(metrics.chance_corrected(first, second)(np.arange(len(first))[None])[0])


def halves(among: Sequence[int], seed: int) -> tuple[list[int], list[int]]:
    """The row numbers in two halves drawn at random: to choose on, and to measure on. Both are all where there are too few."""
    shuffled = list(among)
    random.Random(seed).shuffle(shuffled)
    half = len(shuffled) // 2
    return (sorted(shuffled[:half]), sorted(shuffled[half:])) if half > 1 else (list(among), list(among))


def pick(case: Case, most: int) -> list[int]:
    """At most so many row numbers, drawn with the case's seed and in order."""
    n = len(case.rows)
    if n <= most:
        return list(range(n))
    return sorted(np.random.default_rng(case.config.seed).choice(n, most, replace=False).tolist())
