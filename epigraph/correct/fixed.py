"""What a correction gives back: the counts, the verdict by the tolerance, and the card of the new version.

    loss elsewhere = max(share of kept answers that changed, share of held-out answers that were right and are wrong now)

A labelled answer that becomes right is no loss; of an unlabelled one nobody knows, so every change counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from epigraph import metrics
from epigraph.correct.answers import Changes, changes, right_of
from epigraph.correct.between import Tried
from epigraph.correct.settings import FixConfig
from epigraph.errors import InputError
from epigraph.evaluation import Scores, evaluate
from epigraph.library import Card, Library, Lineage, StoredPrompt
from epigraph.library.card import package_version, utc_now
from epigraph.methods import judge
from epigraph.methods.solver import PromptedBase
from epigraph.metrics import Interval
from epigraph.prompts import Form
from epigraph.tasks.row import Row

SECONDS = ("seconds", "train_seconds", "trained_parameters", "flops", "joules", "joules_source")


@dataclass(frozen=True, kw_only=True)
class Mastered:
    """Of ``rows`` corrections: how many are right now and were before, how many of them were learned by heart (they hold for
    these very texts), the lines of those that are not right, and how many of these were given up, since learning them
    would have changed more elsewhere than tolerated."""

    rows: int
    mastered: int
    already: int
    missed: tuple[int, ...]
    given_up: int = 0
    by_heart: int = 0


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Both prompts on labelled rows that nothing was learned from. ``change`` is of the share of right answers, ``p`` McNemar's."""

    changes: Changes
    before: Scores
    after: Scores
    change: Interval
    p: float

    @property
    def json(self) -> dict[str, Any]:
        """As a command prints it."""
        return {
            **self.changes.json,
            "before": self.before.json,
            "after": self.after.json,
            "change": asdict(self.change),
            "p_mcnemar": self.p,
        }


def compare_scores(old: PromptedBase, new: PromptedBase, rows: Sequence[Row]) -> HeldOut:
    """Two prompts of one task on the same labelled rows."""
    was, now = judge.answer(old, rows), judge.answer(new, rows)
    right_then, right_now = right_of(old.task, rows, was.given), right_of(new.task, rows, now.given)
    return HeldOut(
        changes=changes(old.task, rows, was.given, now.given),
        before=judged(old, rows, was),
        after=judged(new, rows, now),
        change=metrics.paired_bootstrap(metrics.mean_metric(right_then), metrics.mean_metric(right_now), len(rows)),
        p=metrics.mcnemar(right_then, right_now),
    )


def judged(method: PromptedBase, rows: Sequence[Row], answers: judge.Answers) -> Scores:
    """Scores of answers that are there already."""
    return evaluate(_Answered(method, answers), rows, split="test")


@dataclass(frozen=True)
class _Answered:
    """A method whose answers to the rows at hand are known."""

    method: PromptedBase
    answers: judge.Answers

    @property
    def task(self) -> Any:
        """The method's."""
        return self.method.task

    def probabilities(self, rows: Sequence[Row]) -> Any:  # noqa: ARG002 (the contract of what can be scored)
        """Those that are known."""
        return self.answers.probabilities

    def outputs(self, rows: Sequence[Row]) -> list[str]:  # noqa: ARG002 (the contract of what can be scored)
        """Those that are known."""
        return [str(text) for text in self.answers.given]


@dataclass(frozen=True, kw_only=True)
class FixResult:
    """A correction: ``forms`` at the step that was ``taken`` (the old ones where none was), and what was counted.

    ``kept`` says in words which texts the old answers were kept on. ``expected`` is the share of answers to other such texts that
    is expected to change, ``expected_of_all`` with no correction given up. ``tried`` are all steps of the backing off.
    """

    parent: Card
    forms: Sequence[Form]
    mastered: Mastered
    kept: str
    elsewhere: Changes
    expected: float
    expected_of_all: float
    held_out: HeldOut | None
    taken: Tried | None
    tried: Sequence[Tried]
    config: FixConfig
    cost: Mapping[str, Any]
    warnings: Sequence[str] = ()

    @property
    def loss_elsewhere(self) -> float:
        """What the tolerance is asked of: a share, 0 to 1."""
        return max(self.elsewhere.share, self.held_out.changes.broken_share if self.held_out else 0.0)

    @property
    def refused(self) -> tuple[str, str] | None:
        """Why no version may be stored and what to do; None where one may."""
        tolerance = self.config.tolerance
        if self.taken is None and not self.mastered.by_heart:
            useful = [one.changed for one in self.tried if one.mastered > self.mastered.already]
            least = f"changes at least {min(useful)} of {self.elsewhere.rows} other answers" if useful else "was not found"
            found = f"a step that masters a correction {least}"
        elif self.loss_elsewhere > tolerance + 1e-9:
            assert self.held_out is not None
            there = self.held_out.changes
            found = (
                f"{there.broken} of {there.rows} held-out answers ({there.broken_share:.1%}) were right and are wrong now"
            )
        else:
            return None
        return (
            f"nothing was stored: {found}; --tolerance {tolerance:g} was asked.",
            "Give more --keep texts like those that it serves, fewer corrections or a larger --tolerance, or tune again with the "
            "corrections among the training rows.",
        )

    @property
    def card(self) -> Card:
        """The new version's card: counts and settings, no texts. Scores of the old version are not claimed for the new one."""
        old, held = self.parent, self.held_out
        spent = {name: value for name, value in self.cost.items() if name in SECONDS}
        return replace(
            old,
            version=0,
            created=utc_now(),
            epigraph=package_version(),
            lengths=(),
            files={},
            scores=held.after.json if held is not None else {},
            hard_prompt={},
            cost={name: value for name, value in old.cost.items() if name.startswith(("kept", "added"))} | spent,
            settings={
                **old.settings,
                "fix": {**_set(self.config), "step": round(self.taken.step, 4) if self.taken else 0.0},
            },
            reasons={**old.reasons, "fix": self.reason},
            lineage=Lineage(
                parents=(old.reference, *old.lineage.parents),
                how=f"fixed: {self.mastered.rows} correction{'s' if self.mastered.rows > 1 else ''}",
            ),
        )

    @property
    def reason(self) -> str:
        """What was counted, in words."""
        m, e = self.mastered, self.elsewhere
        heart = f", {m.by_heart} of them by heart" if m.by_heart else ""
        return f"{m.mastered} of {m.rows} corrections mastered{heart}; {e.changed} of {e.rows} other answers changed on {self.kept}"

    @property
    def prompt(self) -> StoredPrompt:
        """The corrected prompt. InputError where it is refused."""
        if self.refused is not None:
            raise InputError(*self.refused)
        return StoredPrompt(card=self.card, forms=list(self.forms))

    def store(self, library: Library) -> Card:
        """Store it as the next version of its name. InputError where it is refused; nothing is written then."""
        stored = self.prompt
        return library.add(self.parent.name, stored.forms, stored.card)

    @property
    def json(self) -> dict[str, Any]:
        """The command's object, without the reference under which it was stored."""
        found: dict[str, Any] = {
            "parent": self.parent.reference,
            "corrections": asdict(self.mastered) | {"missed": list(self.mastered.missed)},
            "elsewhere": {**self.elsewhere.json, "source": self.kept},
            "expected": {"share": self.expected, "of_all": self.expected_of_all},
            "loss_elsewhere": self.loss_elsewhere,
            "step": self.taken.step if self.taken else 0.0,
            "tried": [asdict(one) for one in self.tried],
            "settings": _set(self.config),
            "cost": dict(self.cost),
            "warnings": list(self.warnings),
        }
        return found | ({"held_out": self.held_out.json} if self.held_out is not None else {})


def _set(config: FixConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if value is not None}
