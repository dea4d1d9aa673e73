"""What is explained: a prompt on its base, rows to measure on, and how much time there is.

A case answers each question once: the encoded rows, the prompt's probabilities and answers are computed when first asked for
and kept, so that sections share them. Answers are read off as ``methods/judge.py`` does, so that they are those of ``predict``.
"""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from epigraph import metrics
from epigraph.engine import Engine
from epigraph.errors import ConfigError, Unsupported
from epigraph.explaining.judged import NAMES, is_right, least, metric_of, said, truth_of
from epigraph.methods import judge
from epigraph.methods.judge import Answer, Answers
from epigraph.methods.solver import PromptedBase
from epigraph.metrics import Interval, Metric
from epigraph.model import PromptModel
from epigraph.prompts import Form, plain_forms
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

FEWEST_KNOWN = 4


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

    ``source`` says in words what the rows are, ``split`` in one word, as scores have it; ``trained`` of them are training rows.
    ``groups`` maps a column's name to its value for every row. ``other`` is the
    prompt to compare with, ``text`` the one answer to explain.
    """

    model: PromptModel
    rows: Sequence[Row]
    config: ExplainConfig = field(default_factory=ExplainConfig)
    source: str = "the rows given"
    split: str = "test"
    trained: int = 0
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
        if self.method.members > 1:
            raise Unsupported(
                f"{self.model.card.reference} is an ensemble of {self.model.card.members} prompts; one is explained at a time.",
                "Tune it without --ensemble.",
            )
        return plain_forms(self.method.forms, "an explanation")

    @property
    def no_forms(self) -> str:
        """Why its vectors can't be looked at one by one; "" where they can."""
        try:
            return "" if self.forms else "it has no vectors"
        except Unsupported as refused:
            return refused.message

    @property
    def engine(self) -> Engine:
        """What computes."""
        return self.method.engine

    @property
    def task(self) -> Task:
        """The task as the prompt answers it."""
        return self.method.task

    @property
    def labels(self) -> tuple[str, ...]:
        """The task's labels; empty where answers are written or chosen."""
        return tuple(self.task.labels)

    @property
    def has_labels(self) -> bool:
        """Whether every answer is one of the labels."""
        return self.task.has_labels

    @cached_property
    def known(self) -> tuple[int, ...]:
        """The numbers of the rows that say what is right; none where these are too few to measure on."""
        found = tuple(i for i, row in enumerate(self.rows) if row.target is not None)
        return found if len(found) >= FEWEST_KNOWN else ()

    @property
    def labelled(self) -> bool:
        """Whether there are rows that say what is right."""
        return bool(self.known)

    @cached_property
    def known_rows(self) -> list[Row]:
        """The rows that say what is right."""
        return [self.rows[i] for i in self.known]

    @cached_property
    def truth(self) -> tuple[Answer, ...]:
        """What is right, "" where a row does not say."""
        return tuple(truth_of(row) for row in self.rows)

    def right(self, among: Sequence[int]) -> Bool[np.ndarray, "N"]:
        """Whether the answers to these rows are exactly right."""
        return np.array([is_right(self.rows[i], self.answers[i]) for i in among], dtype=np.bool_)

    @cached_property
    def encoded(self) -> list[Encoded]:
        """The rows as token ids."""
        return self.method.encode(self.rows)

    @cached_property
    def found(self) -> Answers:
        """What the prompt answers, read off as ``predict`` does."""
        return judge.answer(self.method, self.rows)

    @property
    def probabilities(self) -> Float[np.ndarray, "N C"]:
        """The prompt's probabilities of labels or choices."""
        assert self.found.probabilities is not None, "texts are written without probabilities"
        return self.found.probabilities

    @cached_property
    def chosen(self) -> Int[np.ndarray, "N"]:
        """The number of the prompt's label for every row."""
        return np.array([self.labels.index(said(answer)) for answer in self.answers], dtype=np.int64)

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """The prompt's answers: labels, choices or texts, or tuples of labels."""
        return tuple(self.found.given)

    def answers_to(self, rows: Sequence[Row]) -> tuple[Answer, ...]:
        """The prompt's answers to other rows; what was read for them is forgotten, since it does not come back."""
        with self.engine.store.passing():
            return tuple(judge.answer(self.method, rows).given)

    def answers_of(self, forms: Sequence[Form], among: Sequence[int]) -> tuple[Answer, ...]:
        """The answers of other forms in this prompt's place to these rows."""
        return tuple(judge.answer(self.method.with_forms(forms), [self.rows[i] for i in among]).given)

    def metric(self, answers: Sequence[Answer], among: Sequence[int]) -> Metric:
        """The task's metric of answers to the rows ``among``; where none says what is right, agreement with the prompt's answers."""
        if not self.labelled:
            return metrics.mean_metric(np.array([self.answers[i] == a for i, a in zip(among, answers, strict=True)]))
        return metric_of(self.task, [self.rows[i] for i in among], answers)

    @property
    def metric_name(self) -> str:
        """What ``metric`` measures, in words."""
        return NAMES[self.task.metric] if self.labelled else "agreement with the whole prompt"

    def score(self, answers: Sequence[Answer], among: Sequence[int]) -> Interval:
        """The metric with its 95% interval over these rows."""
        lowest = least(self.task) if self.labelled else 0.0
        return metrics.bootstrap(self.metric(answers, among), len(answers), seed=self.config.seed, least=lowest)

    def change(self, first: Sequence[Answer], second: Sequence[Answer], among: Sequence[int]) -> Interval:
        """The second answers' score minus the first ones', paired over these rows."""
        pair = self.metric(first, among), self.metric(second, among)
        return metrics.paired_bootstrap(*pair, len(among), seed=self.config.seed)


def share(flags: Sequence[bool] | np.ndarray) -> Interval:
    """The share of true flags with its Wilson interval; 0 of nothing has the widest one."""
    flags = np.asarray(flags, dtype=bool)
    return metrics.wilson(float(flags.mean()), len(flags)) if len(flags) else Interval(0.0, 0.0, 1.0)


def kappa(first: Sequence[Answer], second: Sequence[Answer], seed: int = 0) -> Interval:
    """Cohen's κ: agreement beyond what two answerers with these frequencies reach by chance; 0 where chance is all."""
    return metrics.kappa([said(a) for a in first], [said(a) for a in second], seed=seed)


def halves(among: Sequence[int], seed: int) -> tuple[list[int], list[int]]:
    """The row numbers in two halves drawn at random: to choose on, and to measure on. Both are all where there are too few."""
    shuffled = list(among)
    random.Random(seed).shuffle(shuffled)
    half = len(shuffled) // 2
    return (sorted(shuffled[:half]), sorted(shuffled[half:])) if half > 1 else (list(among), list(among))


def pick(case: Case, most: int, *, scored: bool = False) -> list[int]:
    """At most so many row numbers, drawn with the case's seed and in order; ``scored``: of rows that say what is right, if any do."""
    among = case.known if scored and case.labelled else range(len(case.rows))
    if len(among) <= most:
        return list(among)
    drawn = np.random.default_rng(case.config.seed).choice(len(among), most, replace=False)
    return sorted(among[i] for i in drawn.tolist())
