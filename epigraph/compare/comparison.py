"""What a comparison found: for every method its mean score with an interval, its costs, its curve; and all pairs tested.

interval     95%, rows and seeds resampled together; of one seed over the rows only
pair         difference on the rows that both answered; p = the larger of paired bootstrap and McNemar (where answers are right
             or wrong), corrected over all pairs by Holm
order        by how many others are better on the rows that both answered, then by the mean score
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from epigraph.base import Base
from epigraph.compare.asked import CompareConfig
from epigraph.compare.cells import DONE, UNSUPPORTED, Cell
from epigraph.compare.material import Material
from epigraph.compare.method import Method
from epigraph.compare.spent import SPENT
from epigraph.errors import Unsupported
from epigraph.methods.judge import metric_of, references_of, truth_of
from epigraph.metrics import Interval, Metric, exact_rows, matches, right, upward
from epigraph.metrics.paired import (
    Difference,
    Draws,
    bounds,
    holm,
    mcnemar_seeds,
    resample,
    resamples_for,
    seeded_difference,
    seeded_interval,
)

ALPHA = 0.05
ONE_SEED = "95%, over the test rows only: one seed, so that training variance is not in it"
SEEDS = "95%, over test rows and {} seeds together"
NO_SEED = "95%, over the test rows: no seed changes this method"
FIRST_SEED = "95%, over the test rows only: 1 of {} seeds is done, so that training variance is not in it"
SHARES = ("accuracy", "exact_match", "subset_accuracy")
CURVE_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two methods on the same rows: second − first. ``training_variance``: whether the interval and p hold how much a training
    varies by chance, which takes two seeds of every method that a seed changes."""

    first: str
    second: str
    difference: Difference
    mcnemar: float | None
    p: float
    rows: int
    training_variance: bool

    @property
    def significant(self) -> bool:
        """After correction for all pairs."""
        return self.p < ALPHA

    @property
    def json(self) -> dict[str, Any]:
        """As ``--json`` has it."""
        said = asdict(self.difference)
        p_bootstrap = said.pop("p")
        tests = {"p_bootstrap": p_bootstrap, "p_mcnemar": self.mcnemar, "p_holm": self.p, "significant": self.significant}
        of = {"rows": self.rows, "training_variance": self.training_variance}
        return {"first": self.first, "second": self.second, "difference": said, **tests, **of}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One method's row of the table. ``curve`` has (rows, value, low, high, seeds), rising, all rows last; ``gaps`` are the cells
    of fewer rows that have no score."""

    method: Method
    status: str
    reason: str
    scores: Mapping[str, Any]
    cost: Mapping[str, Any]
    settings: Mapping[str, Any]
    reasons: Mapping[str, str]
    curve: Sequence[tuple[int, float, float, float, int]]
    gaps: Sequence[Cell]
    forgetting: Mapping[str, float]
    metric: str
    cells: Sequence[Cell]

    @property
    def name(self) -> str:
        """The method's."""
        return self.method.name

    @property
    def done(self) -> bool:
        """Whether it has scores on all rows."""
        return self.status == DONE

    @property
    def training_variance(self) -> bool:
        """Whether its interval holds how much a training varies by chance, or there is no such thing."""
        return not self.method.seeded or len(self.cells) > 1

    @property
    def value(self) -> float:
        """The mean of the task's metric on the test rows."""
        return float(self.scores[self.metric]["value"])

    @property
    def json(self) -> dict[str, Any]:
        """The contract's entry."""
        points = [dict(zip(("rows", "value", "low", "high", "seeds"), point, strict=True)) for point in self.curve]
        return {
            "name": self.name,
            "title": self.method.title,
            "scores": dict(self.scores),
            "cost": dict(self.cost),
            "settings": dict(self.settings),
            "status": self.status,
            "reason": self.reason,
            "reasons": dict(self.reasons),
            "curve": points,
            "gaps": [
                {"rows": cell.rows, "seed": cell.seed, "status": cell.status, "reason": cell.reason} for cell in self.gaps
            ],
            "forgetting": dict(self.forgetting),
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All cells of a comparison, and what follows from them."""

    material: Material
    config: CompareConfig
    methods: Sequence[Method]
    cells: Sequence[Cell]
    base: Base
    base_bytes: int
    seconds: float

    @property
    def metric(self) -> str:
        """What is compared."""
        return self.material.task.metric

    @property
    def every(self) -> int:
        """All training rows."""
        return len(self.material.rest)

    @cached_property
    def results(self) -> list[Result]:
        """One a method, in the order asked."""
        return [self._result(method) for method in self.methods]

    @cached_property
    def done(self) -> list[Result]:
        """Those with scores, best first: a method that answered some of the rows stands where it does on these."""
        found = [r for r in self.results if r.done]
        better = {r.name: sum(self.gain(r, other) > 0 for other in found if other is not r) for r in found}
        return sorted(found, key=lambda r: (better[r.name], -upward(self.metric, r.value)))

    def gain(self, first: Result, second: Result) -> float:
        """How much better the second is on the rows that both answered."""
        rows = shared_rows(first, second)
        return upward(self.metric, self._value_on(second, rows) - self._value_on(first, rows))

    def _value_on(self, one: Result, rows: int) -> float:
        """The mean of its cells on the first test rows."""
        key = (one.name, rows)
        if key not in self._kept_values:
            every = np.arange(rows)[None]
            self._kept_values[key] = statistics.fmean(
                float(self._metric(self.metric, cell, rows)(every)[0]) for cell in one.cells
            )
        return self._kept_values[key]

    @cached_property
    def _kept_values(self) -> dict[tuple[str, int], float]:
        return {}

    @property
    def sets(self) -> bool:
        """Whether a row may have several labels."""
        return self.material.task.knows_labels and not self.material.task.has_labels

    @property
    def resamples(self) -> int:
        """How many resamples every pair is tested with: so many that some can be significant after the correction."""
        return resamples_for(len(self.done) * (len(self.done) - 1) // 2)

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every pair of methods that have scores, tested."""
        raw = [self._pair(a, b) for a, b in combinations(self.done, 2)]
        adjusted = holm([max(pair.difference.p, pair.mcnemar or 0.0) for pair in raw])
        return [replace(pair, p=p) for pair, p in zip(raw, adjusted, strict=True)]

    def pair(self, first: str, second: str) -> Pair:
        """second − first."""
        for pair in self.pairs:
            if (pair.first, pair.second) == (first, second):
                return pair
            if (pair.second, pair.first) == (first, second):
                d = pair.difference
                turned = Difference(-d.value, -d.high, -d.low, d.p)
                return replace(pair, first=first, second=second, difference=turned)
        raise KeyError(f"{first} and {second} were not compared")

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before believing a score."""
        found = list(self.material.warnings)
        if self.config.seeds == 1:
            found.append("one seed: the intervals cover the test rows; how much a training varies by chance is not in them")
        return found

    # ---- one method --------------------------------------------------------------------------------------------------

    def _cells(self, method: Method, rows: int) -> list[Cell]:
        return [cell for cell in self.cells if cell.method == method.name and cell.rows == rows]

    def _result(self, method: Method) -> Result:
        every = self._cells(method, self.every)
        done = [cell for cell in every if cell.done]
        never = Cell(method=method.name, rows=self.every, seed=0, status=UNSUPPORTED, reason="no cell of it was run")
        every = every or [never]
        first = done[0] if done else every[0]
        failed = next((cell for cell in every if not cell.done), None)
        return Result(
            method=method,
            status=DONE if done else first.status,
            reason=failed.reason if failed else "",
            scores=self._scores(method, done) if done else {},
            cost=self._cost(done),
            settings=first.settings,
            reasons=first.reasons,
            curve=self._curve(method, done),
            gaps=[c for c in self.cells if c.method == method.name and c.rows != self.every and not c.done],
            forgetting=_means([cell.forgetting for cell in done]),
            metric=self.metric,
            cells=done,
        )

    def _scores(self, method: Method, done: Sequence[Cell]) -> dict[str, Any]:
        """Of one seed its own scores; of several every metric with rows and seeds resampled together."""
        own, asked = dict(done[0].scores), self.config.seeds
        if len(done) == 1:
            several = FIRST_SEED.format(asked) if method.seeded else NO_SEED
            said = several if asked > 1 or not method.seeded else ONE_SEED
            return own | {"interval": said, "training_variance": not method.seeded}
        found = {}
        for name, value in own.items():
            if not isinstance(value, Mapping):
                found[name] = value
            elif (draws := self._draws(done, name)) is not None:
                found[name] = asdict(self._interval(draws, name))
        seeds = str(asked) if len(done) == asked else f"{len(done)} of {asked}"
        return found | {"interval": SEEDS.format(seeds), "seeds": len(done), "training_variance": True}

    def _interval(self, draws: Draws, metric: str) -> Interval:
        least, most = bounds(metric, len(self.material.task.labels))
        return seeded_interval(draws, least=least, most=most)

    def _draws(self, done: Sequence[Cell], metric: str, rows: int | None = None, resamples: int = 4000) -> Draws | None:
        """Resamples of the first ``rows`` test rows; None for metrics that need more than the answers."""
        rows = rows or min(len(cell.predicted) for cell in done)
        try:
            metrics = [self._metric(metric, cell, rows) for cell in done]
        except Unsupported:
            return None
        return resample(metrics, rows, resamples=resamples)

    def _metric(self, name: str, cell: Cell, rows: int) -> Metric:
        """One metric of a cell's answers to the first ``rows`` test rows. Unsupported where answers do not make it."""
        given = cell.sets if self.sets else cell.predicted
        return metric_of(self.material.task, self.material.test[:rows], given[:rows], name)

    def _cost(self, done: Sequence[Cell]) -> dict[str, Any]:
        """Means of numbers over the seeds, of memory the highest; what keeping many tasks takes."""
        if not done:
            return {}
        found = dict(done[0].cost)
        for name in (*SPENT, *(f"search_{name}" for name in SPENT)):
            found[name] = round(statistics.fmean(cell.cost[name] for cell in done), 2)
        found["peak_memory_bytes"] = max(cell.cost["peak_memory_bytes"] for cell in done)
        shared = 0 if found["own_base"] else self.base_bytes
        found["bytes_of_tasks"] = {str(k): shared + k * found["kept_bytes"] for k in (1, 10, 100, 1000)}
        return found

    def _curve(self, method: Method, done: Sequence[Cell]) -> list[tuple[int, float, float, float, int]]:
        points = []
        for rows in sorted({cell.rows for cell in self.cells if cell.method == method.name} - {self.every}):
            some = [cell for cell in self._cells(method, rows) if cell.done]
            draws = self._draws(some, self.metric, resamples=CURVE_RESAMPLES) if some else None
            if draws is not None:
                found = self._interval(draws, self.metric)
                points.append((rows, found.value, found.low, found.high, len(some)))
        if done:
            whole = self._scores(method, done)[self.metric]
            points.append((self.every, whole["value"], whole["low"], whole["high"], len(done)))
        return points

    # ---- pairs -------------------------------------------------------------------------------------------------------

    def _pair(self, a: Result, b: Result) -> Pair:
        """Tested, and not corrected yet."""
        rows = shared_rows(a, b)
        draws = [self._paired_draws(one, rows) for one in (a, b)]
        p = mcnemar_seeds(self._right(a, rows), self._right(b, rows)) if self.metric in SHARES else None
        least, most = bounds(self.metric, len(self.material.task.labels))
        difference = seeded_difference(*draws, span=most - least)
        both = a.training_variance and b.training_variance
        return Pair(
            first=a.name,
            second=b.name,
            difference=difference,
            mcnemar=p,
            p=difference.p,
            rows=rows,
            training_variance=both,
        )

    def _paired_draws(self, one: Result, rows: int) -> Draws:
        key = (one.name, rows)
        if key not in self._kept_draws:
            metrics = [self._metric(self.metric, cell, rows) for cell in one.cells]
            self._kept_draws[key] = resample(metrics, rows, resamples=self.resamples)
        return self._kept_draws[key]

    @cached_property
    def _kept_draws(self) -> dict[tuple[str, int], Draws]:
        return {}

    def _right(self, one: Result, rows: int) -> np.ndarray:
        test = self.material.test[:rows]
        if self.sets:
            return np.stack([exact_rows([row.labels for row in test], cell.sets[:rows]) for cell in one.cells])
        if self.metric == "accuracy":
            return np.stack([right(truth_of(test), cell.predicted[:rows]) for cell in one.cells])
        return np.stack([matches(cell.predicted[:rows], references_of(test)) for cell in one.cells])


def shared_rows(*methods: Result) -> int:
    """How many test rows all of these answered: the first ones of the test set."""
    return min(len(cell.predicted) for result in methods for cell in result.cells)


def _means(given: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every entry."""
    names = given[0] if given else {}
    return {name: statistics.fmean(one[name] for one in given) for name in names}
