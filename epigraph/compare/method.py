"""What every method of a comparison is: fitted on the same rows, seed and budget, it can be scored, and knows its costs.

    fit(job) → Fitted            job: train, validation, seed, budget, and the learning rate the search found

No method has a loop of its own here: prompts go through ``tune``, rivals through the house's loop.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from epigraph.cost import MemoryWatch, Meter, Power
from epigraph.engine import Engine
from epigraph.methods.remembered import Book
from epigraph.methods.solver import Scorable
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a method may spend on its choices: so many settings tried, so many seconds, so many passes over the rows."""

    trials: int
    seconds: float | None
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """One fit. ``task`` holds ``train`` and ``validation`` together as its training rows, and no test rows."""

    engine: Engine
    task: Task
    train: Sequence[Row]
    validation: Sequence[Row]
    validation_share: float
    seed: int
    budget: Budget
    output_tokens: int
    rate: float | None = None
    book: Book = field(default_factory=Book)
    """What hard prompts answered before, to methods that are judged against them; no method's costs are saved by it."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Seconds, the joules of the same seconds with where they come from, and the bytes that were added at the highest."""

    seconds: float
    energy: Mapping[str, Any]
    memory: int = 0

    @classmethod
    def of(cls, meter: Meter, power: Power, memory: MemoryWatch | None = None) -> "Reading":
        """What the meter says now."""
        return cls(seconds=meter.seconds, energy=meter.energy(power), memory=0 if memory is None else memory.added)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A method ready to answer, what was chosen, and what keeping it costs.

    ``kept_bytes`` is what a task takes on disk beside the base; ``held_bytes`` what it takes in memory to answer at
    once. ``own_base``: the method has a copy of the base of its own, which no other task can use. ``serving`` opens it
    for requests, where that is more than calling it. ``loss_on`` gives the mean loss in nats of a text after the fit,
    for methods that change the base. ``flops`` are those that the engine does not count, ``counted`` those of the fit
    alone, where it scored as well; ``meter_read`` are seconds, joules and memory of the fit alone, for the same reason.
    ``most_tests`` bounds the test rows that are scored.
    """

    method: Scorable
    settings: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    trained_parameters: int = 0
    kept_parameters: int = 0
    kept_bytes: int = 0
    held_bytes: int = 0
    added_tokens: int = 0
    own_base: bool = False
    flops: Callable[[], int] = lambda: 0
    counted: int | None = None
    serving: Callable[[], AbstractContextManager[Scorable]] | None = None
    loss_on: Callable[[str], float] | None = None
    meter_read: Reading | None = None
    most_tests: int | None = None

    def open(self) -> AbstractContextManager[Scorable]:
        """The method ready for requests."""
        return nullcontext(self.method) if self.serving is None else self.serving()


@runtime_checkable
class Method(Protocol):
    """A way to solve a task.

    ``family`` groups methods for the verdict: hard, few-shot, optimised, probe, soft, weights. ``seeded``: another seed
    gives another result. ``curved``: more rows do. ``trained``: by steps, so that its learning rate is searched for.
    ``settings`` are those the user gave; with the name they are its identity.
    """

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def seeded(self) -> bool: ...
    @property
    def curved(self) -> bool: ...
    @property
    def trained(self) -> bool: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    def rates(self, job: Job) -> list[float]:
        """The learning rates to choose from, the default first; asked only of those that are trained."""
        ...

    def fit(self, job: Job) -> Fitted:
        """Solve the task. Raises what the house raises where it cannot."""
        ...
