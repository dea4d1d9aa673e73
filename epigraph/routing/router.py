"""A router: which task a text belongs to, by the statistics of each task's frozen queries, with a calibrated confidence.

    d²_k(x) = (q − μ_k)ᵀ Σ⁻¹ (q − μ_k)        p(k | x) = softmax_k(−d²_k / 2T)        one more class, "none", at −d̂²/ 2T

μ_k is the mean query of task k; Σ the covariance within tasks, shared, its correlations shrunk towards none (OAS: Chen et al.
2010, section III.C, https://arxiv.org/abs/0907.4698). One mean a task and a shared covariance: linear discriminant analysis,
as Ke et al. 2023 (section 3, https://arxiv.org/abs/2306.12190) find enough where features are frozen. T makes the probability of the
right task that of being right on held-out rows; d̂² is the distance that 99 of 100 held-out rows of a task keep within, so
that a text like none of the tasks is more probably none of them.

Incremental: a task adds its mean, its number of rows and its scatter to the shared one; no text and no query is kept, and no
earlier task's data is asked for. T and d̂² are measured when a task is added, on its held-out rows against the tasks known
then: T is the largest one measured, since a task may be like another that came before it; d̂² is a mean weighted by the rows
known then, since the covariance grew better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from epigraph.errors import InputError

HELD = 0.2  # share of a task's rows on which T and d̂² are measured
FEWEST = 10  # rows from which any are held out
WITHIN = 0.99
UNKNOWN_RATIO = 2.0  # d̂² over the mean distance, where too few rows are there to measure it
TEMPERATURES = np.geomspace(0.5, 500.0, 80)
Queries = Float[np.ndarray, "N H"]


@dataclass(frozen=True)
class Route:
    """Where a text goes: the task, or None where it is probably none of them, and the probability of every task."""

    task: str
    confidence: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TaskStatistics:
    """What is kept of a task: the prompt that solves it, rows, mean query, and what was measured when it was added."""

    prompt: str
    rows: int
    mean: Float[np.ndarray, "H"]
    ratio: float = UNKNOWN_RATIO
    temperature: float = float("nan")
    known: int = 1


@dataclass(frozen=True, kw_only=True)
class Router:
    """The tasks known so far. Never changed: ``add`` gives another router."""

    fingerprint: str
    tasks: Mapping[str, TaskStatistics] = field(default_factory=dict)
    scatter: Float[np.ndarray, "H H"] | None = None
    count: int = 0

    @classmethod
    def fit(
        cls, queries: Mapping[str, Queries], *, fingerprint: str = "", prompts: Mapping[str, str] | None = None
    ) -> "Router":
        """A router of all these tasks, added one after another."""
        router = cls(fingerprint=fingerprint)
        for name, found in queries.items():
            router = router.add(name, found, prompt=(prompts or {}).get(name, name))
        return router

    def add(self, name: str, queries: Queries, *, prompt: str = "") -> "Router":
        """The router that knows this task as well; no data of the others is needed. InputError if its name is taken."""
        if name in self.tasks:
            raise InputError(
                f"the router has a task {name!r} already.", "Give the task another name, or remove the old one."
            )
        if not len(queries):
            raise InputError(f"task {name!r} has no rows to route by.", "Give its training rows.")
        order = np.random.default_rng(0).permutation(len(queries))
        held = order[: int(HELD * len(queries))] if len(queries) >= FEWEST else order[:0]
        rest = np.setdiff1d(order, held)
        known = self._with(name, queries[rest], prompt or name)
        ratio, temperature = known._measure(name, queries[held])
        whole = self._with(name, queries, prompt or name)
        measured = replace(whole.tasks[name], ratio=ratio, temperature=temperature, known=known.count)
        return replace(whole, tasks={**whole.tasks, name: measured})

    def without(self, name: str) -> "Router":
        """The router that routes nothing to this task any more; the shared covariance keeps what it learned from it."""
        return replace(self, tasks={other: said for other, said in self.tasks.items() if other != name})

    def _with(self, name: str, queries: Queries, prompt: str) -> "Router":
        mean = queries.mean(0)
        apart = queries - mean
        scatter = apart.T @ apart + (0.0 if self.scatter is None else self.scatter)
        tasks = {**self.tasks, name: TaskStatistics(prompt=prompt, rows=len(queries), mean=mean)}
        return replace(self, tasks=tasks, scatter=scatter, count=self.count + len(queries))

    def _measure(self, name: str, held: Queries) -> tuple[float, float]:
        """d̂² over the mean distance of rows to their own task, and the T under which held-out rows are likeliest."""
        if not len(held):
            return UNKNOWN_RATIO, float("nan")
        distances, names = self.distances(held), list(self.tasks)
        own = distances[:, names.index(name)]
        ratio = float(np.quantile(own, WITHIN) / self._spread())
        if len(names) < 2:
            return ratio, float("nan")
        losses = [-_log_softmax(-distances / (2 * t))[:, names.index(name)].mean() for t in TEMPERATURES]
        return ratio, float(TEMPERATURES[int(np.argmin(losses))])

    # ---- routing -----------------------------------------------------------------------------------------------------

    def route(self, queries: Queries) -> list[Route]:
        """Where each query goes: the likeliest task, and how probable it is that the text belongs there."""
        names = list(self.tasks)
        routes = []
        for row in self.probabilities(queries):
            best = int(row[:-1].argmax())
            found = {name: float(p) for name, p in zip(names, row, strict=False)}
            routes.append(Route(names[best], float(row[best]), found))
        return routes

    def probabilities(self, queries: Queries) -> Float[np.ndarray, "N K1"]:
        """p(task | x) of every task, and last that of none of them."""
        if not self.tasks:
            raise InputError("the router knows no task.", "Add one: epigraph library route NAME --data train.csv")
        distances = self.distances(queries)
        ratios, known = np.array([(said.ratio, said.known) for said in self.tasks.values()]).T
        none = np.full((len(queries), 1), self._spread() * float((ratios * known).sum() / known.sum()))
        found: np.ndarray = np.exp(_log_softmax(-np.concatenate([distances, none], 1) / (2 * self.temperature)))
        return found

    def task_probabilities(self, queries: Queries, names: Sequence[str]) -> Float[np.ndarray, "N K"]:
        """p(task | x, one of these tasks): what is known if the text does belong to one."""
        columns = [list(self.tasks).index(name) for name in names]
        found: np.ndarray = np.exp(_log_softmax(-self.distances(queries)[:, columns] / (2 * self.temperature)))
        return found

    @property
    def temperature(self) -> float:
        """T: the largest that was measured; from the distances alone where none was."""
        measured = [said.temperature for said in self.tasks.values() if np.isfinite(said.temperature)]
        return max(measured, default=max(1.0, self._spread() / 20))

    def distances(self, queries: Queries) -> Float[np.ndarray, "N K"]:
        """d² of every query to every task's mean."""
        precision = self._precision()
        apart = [queries - said.mean for said in self.tasks.values()]
        return np.stack([np.einsum("nh,hg,ng->n", a, precision, a, optimize=True) for a in apart], 1)

    def _spread(self) -> float:
        """The mean distance of the rows learned to their own task's mean."""
        assert self.scatter is not None
        return max(1e-6, float((self._precision() * self.scatter).sum() / max(1, self.count)))

    def _precision(self) -> Float[np.ndarray, "H H"]:
        """Σ⁻¹, of correlations shrunk towards none; computed once for a router."""
        if "_kept" not in self.__dict__:
            assert self.scatter is not None
            object.__setattr__(self, "_kept", np.linalg.inv(shrunk_covariance(self.scatter, self.count, len(self.tasks))))
        kept: np.ndarray = self.__dict__["_kept"]
        return kept


def shrunk_covariance(scatter: Float[np.ndarray, "H H"], rows: int, tasks: int) -> Float[np.ndarray, "H H"]:
    """Σ = D^½ ((1 − ρ) R + ρ I) D^½ with OAS's ρ for so many rows; R are the correlations, D the variances."""
    H, freedom = len(scatter), max(1, rows - tasks)
    covariance = scatter / freedom
    variances = np.diag(covariance).copy()
    variances[variances <= 0] = max(float(variances.max()), 1.0) * 1e-6
    scale = np.sqrt(variances)
    correlations = covariance / np.outer(scale, scale)
    np.fill_diagonal(correlations, 1.0)
    squared = float((correlations**2).sum())
    above = (1 - 2 / H) * squared + H**2
    below = (freedom + 1 - 2 / H) * (squared - H)
    rho = 1.0 if below <= 0 else min(1.0, above / below)
    rho = max(rho, 1e-3)
    mixed = (1 - rho) * correlations + rho * np.eye(H)
    found: np.ndarray = mixed * np.outer(scale, scale)
    return found


def _log_softmax(scores: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N K"]:
    apart = scores - scores.max(1, keepdims=True)
    found: np.ndarray = apart - np.log(np.exp(apart).sum(1, keepdims=True))
    return found
