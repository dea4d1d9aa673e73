"""One method on one set, trained and timed in a process of its own: what ``bench tuning`` puts side by side.

    epigraph      a first run: frozen states built in it          later      another run on the same texts
    once          the same, every row read once                   once-later
    token         a first run of vectors instead of keys and values
    peft-prompt, peft-prefix, peft-documented, lora, full         the rivals of ``methods/rivals``

All see the same examples: the same rows, validated on the same others after every epoch, no early stop. The base is loaded
before the clock starts; frozen states and validation are inside. Test accuracy is scored after every epoch outside of it.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from epigraph.base import Base
from epigraph.bench.machine import layer_rate
from epigraph.config import TuneConfig
from epigraph.cost import MemoryWatch
from epigraph.engine import Engine
from epigraph.errors import DataError
from epigraph.evaluation import evaluate
from epigraph.methods import PromptedBase
from epigraph.methods.rivals import RIVALS
from epigraph.prompts import KINDS
from epigraph.tasks.row import Row, Split
from epigraph.tasks.split import head
from epigraph.tasks.task import Task
from epigraph.tuning.choices import choose, laid_out
from epigraph.tuning.loop import Loop, Moment, Settings
from epigraph.tuning.objective import make_objective
from epigraph.tuning.start import make_prompt

VALIDATION = 150
Parts = tuple[Sequence[Row], Sequence[Row]]
OURS = ("epigraph", "later", "once", "once-later", "token")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all methods of a set have in common."""

    folder: str
    rows: int = 1000
    tests: int = 500
    tokens: int = 256
    epochs: int = 3
    seed: int = 0
    steps: int | None = None
    """Time only so many steps and say what the whole would take; no accuracy."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run gave. ``curve`` has seconds and test accuracy after every epoch."""

    method: str
    seed: int
    seconds: float
    frozen_seconds: float
    steps: int
    step_seconds: float
    flops: int
    whole_flops: float
    memory: int
    rate_share: float
    accuracy: float | None
    curve: list[tuple[float, float]] = field(default_factory=list)
    extrapolated: bool = False

    @property
    def json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


class Ours:
    """A prompt on an engine."""

    def __init__(self, engine: Engine, task: Task, parts: Parts, kind: str, seed: int) -> None:
        self.engine, self.task = engine, task
        length = 8 if kind == "kv" else 20
        self.module = make_prompt(engine, task, kind=kind, length=length, start="text", seed=seed)
        self.solver = PromptedBase(engine, task, self.module.fold())
        self.train, self.validation = parts

    def begin(self) -> float:
        """Build the frozen states; the seconds it took."""
        started = time.perf_counter()
        self.engine.freeze(self.solver.encode([*self.train, *self.validation]))
        self.objective = make_objective(self.solver, self.train, self.validation)
        return time.perf_counter() - started

    def accuracy(self, rows: Sequence[Row]) -> float:
        """On these rows."""
        return evaluate(self.solver.with_forms(self.module.fold()), rows, split="test").value("accuracy")

    @property
    def flops(self) -> int:
        """Counted so far."""
        return self.engine.flops


class Theirs:
    """A rival."""

    def __init__(self, engine: Engine, task: Task, parts: Parts, name: str, seed: int) -> None:
        kind = RIVALS[name]
        self.task = task
        self.rival = kind(engine, task, *parts, kind.settings_type(seed=seed))
        self.module, self.objective = self.rival.module, self.rival.objective

    def begin(self) -> float:
        """Nothing is done beforehand."""
        return 0.0

    def accuracy(self, rows: Sequence[Row]) -> float:
        """On these rows."""
        return evaluate(self.rival, rows, split="test").value("accuracy")

    @property
    def flops(self) -> int:
        """Counted so far."""
        return self.rival.flops


def contest(base: Base, method: str, plan: Plan, *, batch: int, rate: float | None = None) -> list[Outcome]:
    """Train one method; for ``epigraph`` the first run and a later one with another seed."""
    task, parts, tests = read_parts(base, plan, batch)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        engine = Engine(base, folder=Path(folder))
        if method in RIVALS:
            rival = Theirs(engine, task, parts, method, plan.seed)
            return [_measure(method, rival, base, plan, tests, batch, rate or rival.rival.settings.rate)]
        found = []
        readings = choose(TuneConfig(readings=1 if method == "once" else None), task, len(parts[0])).readings
        laid = laid_out(task, "template", readings)
        later = "later" if method == "epigraph" else f"{method}-later"
        runs = (("token", "token", 0),) if method == "token" else ((method, "kv", 0), (later, "kv", 1))
        for name, kind, seed in runs:
            ours = Ours(engine, laid, parts, kind, plan.seed + seed)
            found.append(_measure(name, ours, base, plan, tests, batch, rate or KINDS[kind].default_rate))
        return found


def read_parts(base: Base, plan: Plan, batch: int) -> tuple[Task, Parts, Sequence[Row]]:
    """The task, its training and validation rows, and its test rows, all cut; fewer training rows where there are too few."""
    task = Task.from_file(Path(plan.folder))
    if task.test is None:
        raise DataError(f"{plan.folder} has no test rows.", "Put a test.jsonl beside its train.jsonl.")
    every = [_cut(base, row, plan.tokens) for row in head(task.train.rows, plan.rows + VALIDATION, seed=plan.seed)]
    train, validation = every[:-VALIDATION], every[-VALIDATION:]
    sampled = len(train) if plan.steps is None else min(len(train), plan.steps * batch)
    tests = [_cut(base, row, plan.tokens) for row in head(task.test.rows, plan.tests, seed=0)]
    return replace(task, train=Split(rows=tuple(train))), (train[:sampled], validation), tests


def _cut(base: Base, row: Row, tokens: int) -> Row:
    """The row with every field cut to so many tokens."""
    fields = {}
    for name, text in row.fields.items():
        ids = base.tokenize(text)
        fields[name] = text if len(ids) <= tokens else base.detokenize(ids[:tokens]).rstrip("�")
    return replace(row, fields=fields)


def _measure(
    name: str, learner: Ours | Theirs, base: Base, plan: Plan, tests: Sequence[Row], batch: int, rate: float
) -> Outcome:
    before, sampled = learner.flops, plan.steps is not None
    clock = _Clock(learner, () if sampled else tests)
    with MemoryWatch() as memory:
        clock.go()
        frozen = learner.begin()
        clock.lap()
        epochs = 1 if sampled else plan.epochs
        settings = Settings(epochs=epochs, batch=batch, rate=rate, warmup=0.1, clip=1.0, patience=epochs + 1, seed=plan.seed)
        loop = Loop(learner.module, learner.objective, settings, clock.listen)
        loop.run()
        clock.stop()
    step, rows = statistics.mean(clock.steps), len(learner.task.train.rows)
    flops = learner.flops - before - clock.outside_flops
    steps = plan.epochs * math.ceil(rows / batch)
    tokens = batch * statistics.mean(learner.objective.lengths)
    return Outcome(
        method=name,
        seed=plan.seed,
        seconds=_whole(clock.steps, clock.seconds, loop, steps, plan.epochs) if sampled else clock.seconds,
        frozen_seconds=frozen,
        steps=steps,
        step_seconds=step,
        flops=flops,
        whole_flops=_whole(clock.step_flops, flops, loop, steps, plan.epochs) if sampled else float(flops),
        memory=memory.added,
        rate_share=statistics.mean(clock.step_flops) / step / layer_rate(base, min(2048, max(batch, round(tokens)))),
        accuracy=clock.curve[-1][1] if clock.curve else None,
        curve=clock.curve,
        extrapolated=sampled,
    )


def _whole(each: Sequence[float], spent: float, loop: Loop, steps: int, epochs: int) -> float:
    """Seconds or operations of all steps and epochs, from what a short one ``spent``: every step, of which some are known, and
    every validation as dear as the mean."""
    step = statistics.mean(each)
    return steps * step + epochs * max(0.0, spent - step * loop.steps)


class _Clock:
    """Seconds of the work, those of scoring on the test rows left out."""

    def __init__(self, learner: Ours | Theirs, tests: Sequence[Row]) -> None:
        self.learner, self.tests = learner, tests
        self.seconds, self.outside_flops = 0.0, 0
        self.steps: list[float] = []
        self.step_flops: list[int] = []
        self.curve: list[tuple[float, float]] = []

    def go(self) -> None:
        """Start, or go on."""
        self.lap()
        self._since = self._step

    def lap(self) -> None:
        """The next step begins now."""
        self._step = time.perf_counter()
        self._flops = self.learner.flops

    def stop(self) -> None:
        """Pause."""
        self.seconds += time.perf_counter() - self._since

    def listen(self, moment: Moment) -> None:
        """After every step; after a validation the test rows are scored off the clock."""
        now = time.perf_counter()
        if moment.score is None:
            self.steps.append(now - self._step)
            self.step_flops.append(self.learner.flops - self._flops)
        self._step, self._flops = now, self.learner.flops
        if moment.score is not None and self.tests:
            self.stop()
            flops = self.learner.flops
            self.curve.append((self.seconds, self.learner.accuracy(self.tests)))
            self.outside_flops += self.learner.flops - flops
            self.go()
