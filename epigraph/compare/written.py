"""Methods of words alone: hard prompts as written or generated, few-shot in three ways, hard prompts searched for.

Nothing is trained. What they cost is tokens: each one before the row is read for every task, most of them once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from epigraph.compare.method import Fitted, Job
from epigraph.compare.tokens import added_tokens
from epigraph.methods.nearest_shots import MOST_ROWS, best_nearest
from epigraph.methods.proposed import Proposer, propose
from epigraph.methods.search import Found, HardPromptSearch, SearchLimits
from epigraph.methods.shots import DRAWS, best_count, with_prefix_read
from epigraph.methods.solver import PromptedBase
from epigraph.methods.wording import best_wording
from epigraph.tasks.task import Task

CANDIDATES_A_TRIAL = 8


@dataclass(frozen=True, kw_only=True)
class HardPrompt:
    """One hard prompt, zero-shot, placed where it is best on validation."""

    name: str
    title: str
    text: str
    family: str = "hard"
    seeded: bool = False
    curved: bool = False
    trained: bool = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """The text itself."""
        return {"text": self.text}

    def rates(self, job: Job) -> list[float]:  # noqa: ARG002 (the contract of every method)
        """None: nothing is trained by steps."""
        return []

    def fit(self, job: Job) -> Fitted:
        """Choose its place."""
        found = best_wording(job.engine, job.task, self.text, job.validation, job.output_tokens)
        method = with_prefix_read(found.method)
        said = {"place": f"{found.name}: {found.reason}"}
        return _worded(job, method, {"text": self.text, "placed": found.name}, said, (self.text,))


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """Examples before the row, the same for all rows."""

    draw: str
    family: str = "few-shot"
    seeded: bool = True
    curved: bool = True
    trained: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As it is asked for."""
        return f"few-shot-{self.draw}"

    @property
    def title(self) -> str:
        """As the report says it."""
        return f"few-shot, {self.draw} examples"

    def rates(self, job: Job) -> list[float]:  # noqa: ARG002 (the contract of every method)
        """None: nothing is trained by steps."""
        return []

    def fit(self, job: Job) -> Fitted:
        """Choose k."""
        found = best_count(
            job.engine,
            job.task,
            job.train,
            job.validation,
            job.output_tokens,
            draw=DRAWS[self.draw],
            seed=job.seed,
            seconds=job.budget.seconds,
        )
        return _worded(job, found.method, {"examples": found.name}, {"examples": found.reason}, ())


@dataclass(frozen=True, kw_only=True)
class NearestFewShot:
    """Examples chosen anew for every row."""

    name: str = "few-shot-nearest"
    title: str = f"few-shot, nearest examples (at most 8; {MOST_ROWS} test rows)"
    family: str = "few-shot"
    seeded: bool = True
    curved: bool = True
    trained: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def rates(self, job: Job) -> list[float]:  # noqa: ARG002 (the contract of every method)
        """None: nothing is trained by steps."""
        return []

    def fit(self, job: Job) -> Fitted:
        """Read the training rows and choose k."""
        found, reason = best_nearest(
            job.engine, job.task, job.train, job.validation, job.output_tokens, seconds=job.budget.seconds
        )
        texts = sum(len(shown.encode()) for shown in found.shown)
        return Fitted(
            method=found,
            settings={"examples": f"{found.shots} nearest"},
            reasons={"examples": reason},
            kept_parameters=int(found.index.size),
            kept_bytes=texts + 4 * int(found.index.size),
            held_bytes=texts + int(found.index.nbytes),
            added_tokens=found.added_tokens(list(job.validation)[:32]),
            most_tests=MOST_ROWS,
        )


@dataclass(frozen=True, kw_only=True)
class Optimised:
    """A hard prompt searched for on the frozen base."""

    name: str = "optimised"
    title: str = "optimised hard prompt"
    family: str = "optimised"
    seeded: bool = True
    curved: bool = True
    trained: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def rates(self, job: Job) -> list[float]:  # noqa: ARG002 (the contract of every method)
        """None: nothing is trained by steps."""
        return []

    def fit(self, job: Job) -> Fitted:
        """Search within the budget."""
        return _searched(job, _search(job, job.task))


@dataclass(frozen=True, kw_only=True)
class Proposed:
    """The same search over instructions that a stronger model wrote, by DSPy."""

    model: str
    address: str
    name: str = "dspy"
    title: str = "hard prompt written by a stronger model (DSPy)"
    family: str = "optimised"
    seeded: bool = True
    curved: bool = False
    trained: bool = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """Who writes."""
        return {"prompt_model": self.model, "prompt_address": self.address}

    def rates(self, job: Job) -> list[float]:  # noqa: ARG002 (the contract of every method)
        """None: nothing is trained by steps."""
        return []

    def fit(self, job: Job) -> Fitted:
        """Ask the model; Unsupported where there is none."""
        proposer = Proposer(model=self.model, address=self.address)
        limits = SearchLimits(candidates=CANDIDATES_A_TRIAL * job.budget.trials, seconds=job.budget.seconds)
        return _searched(job, propose(proposer, _search_of(job, job.task), limits))


def _search_of(job: Job, task: Task) -> HardPromptSearch:
    return HardPromptSearch(job.engine, task, job.train, job.validation, output_tokens=job.output_tokens, seed=job.seed)


def _search(job: Job, task: Task) -> Found:
    limits = SearchLimits(candidates=CANDIDATES_A_TRIAL * job.budget.trials, seconds=job.budget.seconds)
    return _search_of(job, task).run(limits)


def _searched(job: Job, found: Found) -> Fitted:
    best, method = found.best.candidate, found.method
    settings = {
        "instruction": best.instruction,
        "in_place": best.in_place,
        "label_words": dict(best.words),
        "examples": len(best.examples),
        "calibrated": found.best.calibrated,
        "tried": len(found.tried),
    }
    return _worded(job, method, settings, {"choice": found.reason}, (best.instruction,))


def _worded(
    job: Job, method: PromptedBase, settings: Mapping[str, Any], reasons: Mapping[str, str], texts: Sequence[str]
) -> Fitted:
    """A fitted hard prompt: what stands before the row is its cost."""
    tokens = added_tokens(job, method)
    numbers = method.engine.store.shape.numbers(method.forms[0].length if method.forms else 0)
    return Fitted(
        method=method,
        settings=settings,
        reasons=reasons,
        kept_bytes=sum(len(text.encode()) for text in texts) or 4 * max(0, tokens),
        held_bytes=numbers * method.engine.base.dtype.itemsize,
        added_tokens=tokens,
    )
