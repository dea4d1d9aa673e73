"""How well a student imitates: on texts that neither training nor stopping has seen.

    agreement   share of equal answers (labels, or texts that are equal)      κ   beyond chance; that of a constant answer is 0
    divergence  mean KL of the label distributions, in nats                   overlap   mean ROUGE-L of the texts

    lost        score of the teacher − score of the student, paired, where right answers are known

and what a request costs before and after: tokens that are read, and the median seconds of one request alone.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from epigraph import metrics
from epigraph.distilling.taught import Taught, probabilities
from epigraph.distilling.teacher import ask_alone, tokens_read
from epigraph.engine import Engine
from epigraph.evaluation import Scores, score_labels, score_outputs
from epigraph.methods import judge
from epigraph.methods.shots import with_prefix_read
from epigraph.methods.solver import PromptedBase
from epigraph.metrics import Interval
from epigraph.metrics.paired import row_metric
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

REQUESTS, WARM_UP = 9, 2
COMPARED = ("accuracy", "macro_f1", "exact_match", "rouge_l", "bleu")


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """One student beside its teacher on ``rows`` texts. ``divergence`` is None for texts, ``overlap`` for labels."""

    rows: int
    agreement: Interval
    kappa: Interval | None
    constant: str
    constant_agreement: float
    divergence: float | None = None
    overlap: float | None = None

    @property
    def json(self) -> dict[str, Any]:
        """The contract's object."""
        return {
            "rows": self.rows,
            "agreement": asdict(self.agreement),
            "kappa": None if self.kappa is None else asdict(self.kappa),
            "constant": {"answer": self.constant, "agreement": self.constant_agreement, "kappa": 0.0},
            "divergence": self.divergence,
            "overlap": self.overlap,
        }


def answers_of(task: Task, rows: Sequence[Row], taught: Sequence[Taught]) -> list[str]:
    """A teacher's answers as texts."""
    if task.writes:
        return [one.text for one in taught]
    return [str(label) for label in judge.read(task, rows, probabilities(taught)).given]


def compare(solver: PromptedBase, rows: Sequence[Row], taught: Sequence[Taught], *, seed: int = 0) -> Fidelity:
    """A student's answers to these rows beside the teacher's."""
    task = solver.task
    theirs = answers_of(task, rows, taught)
    constant, count = Counter(theirs).most_common(1)[0]
    common: dict[str, Any] = {"rows": len(rows), "constant": constant, "constant_agreement": count / len(rows)}
    if task.writes:
        ours = solver.outputs(rows)
        overlap = float(np.mean(metrics.rouge_l_rows(ours, [(text,) for text in theirs])))
        return Fidelity(agreement=metrics.agreement(theirs, ours), kappa=None, overlap=overlap, **common)
    found = solver.probabilities(rows)
    ours = [str(label) for label in judge.read(task, rows, found).given]
    told = probabilities(taught)
    apart = (told * (np.log(np.maximum(told, 1e-30)) - np.log(np.maximum(found, 1e-30)))).sum(1)
    return Fidelity(
        agreement=metrics.agreement(theirs, ours),
        kappa=metrics.kappa(theirs, ours, seed=seed),
        divergence=float(apart.mean()),
        **common,
    )


@dataclass(frozen=True, kw_only=True)
class Lost:
    """teacher − student in the metric ``metric`` on the same ``rows`` texts, with its paired interval; above 0: lost."""

    difference: Interval
    metric: str
    rows: int

    @property
    def json(self) -> dict[str, Any]:
        """The contract's object."""
        return asdict(self.difference) | {"metric": self.metric, "rows": self.rows}


def lost_of(
    task: Task, rows: Sequence[Row], student: Scores | None, teacher: Scores | None, *, seed: int = 0
) -> Lost | None:
    """What was lost on these labelled rows; None where there are none. Metrics that are not compared row by row: accuracy."""
    if student is None or teacher is None:
        return None
    references = judge.references_of(rows)
    metric = task.metric if task.metric in COMPARED else "accuracy"
    ours, theirs = (row_metric(metric, one.truth, one.predicted, references) for one in (student, teacher))
    return Lost(difference=metrics.paired_bootstrap(ours, theirs, len(rows), seed=seed), metric=metric, rows=len(rows))


def score_teacher(task: Task, rows: Sequence[Row], taught: Sequence[Taught], *, split: str, seed: int) -> Scores:
    """The teacher's scores on labelled rows."""
    if task.writes:
        return score_outputs(rows, [one.text for one in taught], split=split, seed=seed)

    @dataclass(frozen=True)
    class Told:
        task: Task

        def probabilities(self, _rows: Sequence[Row]) -> Any:
            return probabilities(taught)

        def outputs(self, _rows: Sequence[Row]) -> list[str]:
            raise AssertionError("labels are not written")

    return score_labels(Told(task), rows, probabilities(taught), split=split, seed=seed)


def seconds_a_request(asked: Mapping[str, Callable[[Row], None]], rows: Sequence[Row]) -> dict[str, float]:
    """The median seconds of one request alone, for each of ``asked``, which take turns."""
    found: dict[str, list[float]] = {name: [] for name in asked}
    for turn in range(REQUESTS + WARM_UP):
        for name, ask in asked.items():
            started = time.perf_counter()
            ask(rows[turn % len(rows)])
            if turn >= WARM_UP:
                found[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in found.items()}


def how_timed(rows: Sequence[Row], seconds: Mapping[str, float]) -> str:
    """How tokens and seconds of a request were measured, in words."""
    prefix = "; prefix kept: what stands before every text was read before" if "before_prefix_kept" in seconds else ""
    return (
        f"tokens: mean over {len(rows)} of the texts measured on; seconds: median of {REQUESTS} requests, one at a time and all sorts in "
        f"turn, after {WARM_UP} to warm up, nothing of a text kept{prefix}"
    )


def costs_of(solver: PromptedBase, rows: Sequence[Row]) -> tuple[float, Callable[[Row], None]]:
    """Tokens that a request of this solver reads, and how to make one whose text was never read before."""
    own = alone(solver)
    return tokens_read(solver, rows), lambda row: ask_alone(own, row)


def alone(solver: PromptedBase, *, prefix_kept: bool = False) -> PromptedBase:
    """The same on an engine that keeps nothing; with ``prefix_kept`` what stands before every row is not read anew."""
    other = copy(solver)
    other.engine = Engine(solver.engine.base, keep=False)
    return with_prefix_read(other) if prefix_kept else other
