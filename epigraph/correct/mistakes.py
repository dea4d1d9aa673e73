"""``errors``: where a stored prompt is wrong, the worst first, in groups, with the labels that are likely wrong themselves.

    loss of a row = −log p(right answer), in nats; of several labels the sum over them; of a written answer the mean over its tokens

A written answer is a mistake where it is none of the references, and there is no other answer that could be right instead.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from epigraph import metrics
from epigraph.correct.answers import right_of
from epigraph.correct.corrections import Key, text_of
from epigraph.correct.similar import similar_rows
from epigraph.correct.suspicion import Suspicions, suspect_choices, suspect_labels, suspect_sets
from epigraph.errors import DataError, Unsupported
from epigraph.methods import judge
from epigraph.methods.solver import Probabilities, PromptedBase
from epigraph.model import PromptModel
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

TINY = 1e-30
WORST = 50


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A wrong answer. ``probability`` is that of the answer (None where it is written), ``loss`` in nats; ``instead`` is what a
    suspected label may be. ``trained`` says that the prompt was trained on this row."""

    row: Row
    truth: str
    answer: str
    loss: float
    probability: float | None = None
    suspicion: float = 0.0
    instead: str = ""
    trained: bool = False

    @property
    def json(self) -> dict[str, Any]:
        """As a command prints it."""
        found: dict[str, Any] = {
            "line": self.row.line,
            "fields": dict(self.row.fields),
            "truth": self.truth,
            "answer": self.answer,
            "loss": self.loss if np.isfinite(self.loss) else None,
            "suspicion": self.suspicion,
        }
        found |= {} if self.probability is None else {"probability": self.probability}
        found |= {"instead": self.instead} if self.instead else {}
        return found | ({"trained": True} if self.trained else {})


@dataclass(frozen=True, kw_only=True)
class Group:
    """Mistakes that belong together: how many, their mean loss, and the places of those among ``Mistakes.worst``.

    Similar texts have ``words`` that are their own, and their most typical one first.
    """

    name: str
    rows: int
    loss: float
    members: tuple[int, ...]
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """All mistakes on some rows. ``worst`` are those with the largest loss; groups count every mistake, not only these.

    ``pairs`` group by truth → answer, ``similar`` the worst by their texts. ``suspected`` counts likely label errors among all rows.
    """

    prompt: str
    rows: int
    wrong: int
    worst: Sequence[Mistake]
    pairs: Sequence[Group]
    similar: Sequence[Group]
    suspected: int | None
    trained: int
    warnings: Sequence[str] = ()
    source: str = ""

    @property
    def json(self) -> dict[str, Any]:
        """The command's object."""
        return {
            "prompt": self.prompt,
            "source": self.source,
            "rows": self.rows,
            "wrong": self.wrong,
            "trained_rows": self.trained,
            "suspected": self.suspected,
            "worst": [one.json for one in self.worst],
            "pairs": [_plain(group) for group in self.pairs],
            "similar": [_plain(group) for group in self.similar],
            "warnings": list(self.warnings),
        }


def errors_of(
    model: PromptModel, rows: Sequence[Row], *, worst: int = WORST, trained: Sequence[Row] = (), source: str = ""
) -> Mistakes:
    """The mistakes of a prompt on labelled rows. ``trained`` are the rows it was trained on, where they are known.

    Raises DataError where there are no labelled rows, or ``worst`` is less than 1.
    """
    if worst < 1:
        raise DataError(f"the worst {worst} mistakes were asked.", "Ask for 1 or more.")
    if not rows or any(row.target is None for row in rows):
        raise DataError("there are no labelled rows to find mistakes on.", "Give a file with labels under --data.")
    solver, task = model.method, model.task
    answers = judge.answer(solver, rows)
    loss = row_losses(solver, rows, answers.probabilities)
    wrong = [int(i) for i in np.flatnonzero(~right_of(task, rows, answers.given))]
    doubt = _suspicions(task, rows, answers.probabilities)
    seen = {text_of(row) for row in trained}
    everything = [_mistake(task, rows[i], answers, i, float(loss[i]), doubt, seen) for i in wrong]
    everything.sort(key=lambda one: (not np.isfinite(one.loss), -one.loss, one.row.line))
    shown = everything[:worst]
    similar, why_not = _similar(solver, task, shown)
    known = sum(text_of(row) in seen for row in rows)
    return Mistakes(
        prompt=model.card.reference,
        rows=len(rows),
        wrong=len(wrong),
        worst=shown,
        pairs=[] if task.writes else _pairs(everything, len(shown)),
        similar=similar,
        suspected=None if doubt is None else int(doubt.suspected.sum()),
        trained=known,
        warnings=_warnings(task, rows, known, doubt, why_not),
        source=source,
    )


def row_losses(solver: PromptedBase, rows: Sequence[Row], probabilities: Probabilities | None) -> Float[np.ndarray, " N"]:
    """−log p of what is right, in nats; infinite for a label that the prompt does not know."""
    task = solver.task
    if probabilities is None:
        return _answer_losses(solver, rows)
    found = np.asarray(probabilities, dtype=np.float64)
    if task.knows_labels and not task.has_labels:
        marks = metrics.set_marks([row.labels for row in rows], list(task.labels))
        return np.asarray(-np.log(np.maximum(np.where(marks, found, 1 - found), TINY)).sum(axis=1))
    right = _right_columns(task, rows)
    own = found[np.arange(len(rows)), right]
    return np.where(right >= 0, -np.log(np.maximum(own, TINY)), np.inf)


@torch.no_grad()
def _answer_losses(solver: PromptedBase, rows: Sequence[Row]) -> Float[np.ndarray, " N"]:
    encoded = solver.encode(rows, answers=True)
    found = np.zeros(len(rows))
    for chosen in solver.engine.batches(encoded):
        sums, tokens = solver.engine.answer_loss([encoded[i] for i in chosen], [solver.forms])
        found[chosen] = (sums / tokens.clamp(min=1)).cpu().numpy()
    return found


def _right_columns(task: Task, rows: Sequence[Row]) -> np.ndarray:
    """The column of what is right, −1 for a label that was never trained."""
    if not task.knows_labels:
        return np.array([row.choices.index(row.target or "") for row in rows], dtype=np.int64)
    place = {label: i for i, label in enumerate(task.labels)}
    return np.array([place.get(row.target or "", -1) for row in rows], dtype=np.int64)


def _suspicions(task: Task, rows: Sequence[Row], probabilities: Probabilities | None) -> Suspicions | None:
    """None where answers are written."""
    if probabilities is None:
        return None
    found = np.asarray(probabilities, dtype=np.float64)
    if task.knows_labels and not task.has_labels:
        return suspect_sets(found, metrics.set_marks([row.labels for row in rows], list(task.labels)))
    right = _right_columns(task, rows)
    return suspect_labels(found, right) if task.has_labels else suspect_choices(found, right)


def _mistake(
    task: Task, row: Row, answers: judge.Answers, i: int, loss: float, doubt: Suspicions | None, seen: Collection[Key]
) -> Mistake:
    given = answers.given[i]
    names = row.choices or tuple(task.labels)
    probability = None
    if answers.probabilities is not None and isinstance(given, str):
        probability = float(answers.probabilities[i][names.index(given)])
    instead = "" if doubt is None or doubt.instead[i] < 0 else names[int(doubt.instead[i])]
    if instead and isinstance(given, tuple):
        instead = f"{'without' if instead in row.labels else 'with'} {instead}"
    return Mistake(
        row=row,
        truth=row.target or "",
        answer=", ".join(given) if isinstance(given, tuple) else given,
        loss=loss,
        probability=probability,
        suspicion=0.0 if doubt is None else float(doubt.suspicion[i]),
        instead=instead,
        trained=text_of(row) in seen,
    )


def _pairs(mistakes: Sequence[Mistake], shown: int) -> list[Group]:
    counts = Counter((one.truth, one.answer) for one in mistakes)
    found = []
    for (truth, answer), _ in counts.most_common():
        own = [i for i, one in enumerate(mistakes) if (one.truth, one.answer) == (truth, answer)]
        group = _group(f"{truth or '(none)'} → {answer or '(none)'}", own, mistakes)
        found.append(replace(group, members=tuple(i for i in own if i < shown)))
    return found


def _similar(solver: PromptedBase, task: Task, worst: Sequence[Mistake]) -> tuple[list[Group], str]:
    try:
        clusters = similar_rows(solver.engine, task, [one.row for one in worst])
    except Unsupported as refused:
        return [], refused.message
    found = []
    for cluster in clusters:
        group = _group(" ".join(cluster.words) or f"line {worst[cluster.typical].row.line}", cluster.members, worst)
        typical = (cluster.typical, *(i for i in cluster.members if i != cluster.typical))
        found.append(replace(group, members=typical, words=cluster.words))
    return found, ""


def _group(name: str, members: Sequence[int], mistakes: Sequence[Mistake]) -> Group:
    losses = [mistakes[i].loss for i in members if np.isfinite(mistakes[i].loss)]
    mean = float(np.mean(losses)) if losses else 0.0
    return Group(name=name, rows=len(members), loss=mean, members=tuple(members))


def _warnings(task: Task, rows: Sequence[Row], trained: int, doubt: Suspicions | None, why_not: str) -> list[str]:
    found = []
    if trained:
        found.append(
            f"{trained} of {len(rows)} rows are ones that the prompt was trained on: it makes fewer mistakes there than elsewhere, "
            "and marks fewer labels as likely wrong"
        )
    unknown = Counter(row.target for row in rows if task.has_labels and row.target not in task.labels)
    for label, count in unknown.items():
        found.append(f"label {label!r} was never trained: its {count} rows count as wrong and have no loss")
    if doubt is None:
        found.append("label errors are marked where answers are labels or choices; here they are written")
    if why_not:
        found.append(f"similar texts are not grouped: {why_not}")
    return found


def _plain(group: Group) -> dict[str, Any]:
    found: dict[str, Any] = {"name": group.name, "rows": group.rows, "loss": group.loss, "members": list(group.members)}
    return found | ({"words": list(group.words)} if group.words else {})
