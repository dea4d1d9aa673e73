"""Drafts of hard prompts: each one scored on rows at once, and every version kept with its score.

    text → zero-shot on rows of the training file → score, wrong answers → one line of LIBRARY/.hard_prompts.jsonl

Test rows are never used: a prompt that is rewritten until it scores well has been trained on what it was scored on.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from epigraph.compare.material import set_apart
from epigraph.engine import Engine
from epigraph.errors import Corrupt, DataError, TaskError
from epigraph.evaluation import Scores, evaluate
from epigraph.library.disk import storing
from epigraph.methods.hard import instruction_first
from epigraph.methods.judge import references_of
from epigraph.methods.shots import with_prefix_read
from epigraph.methods.solver import PromptedBase
from epigraph.methods.wording import is_template, template_prompt
from epigraph.metrics import exact_rows, matches, right, upward
from epigraph.tasks.row import Row
from epigraph.tasks.split import head
from epigraph.tasks.task import Task
from epigraph.tuning.run import rows_hash
from epigraph.tuning.session import longest_output

FILE = ".hard_prompts.jsonl"
ROWS = 100


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One version of a hard prompt and what it scored. ``data`` is a hash of the rows: other rows, other scores."""

    number: int
    task: str
    text: str
    metric: str
    score: dict[str, float]
    rows: int
    data: str
    base: str
    when: str


@dataclass(frozen=True, kw_only=True)
class WrongAnswer:
    """A row that was answered wrong."""

    line: int
    fields: dict[str, str]
    truth: str
    predicted: str


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A draft just scored, its wrong answers, and the best earlier draft on the same rows."""

    draft: Draft
    scores: Scores = field(repr=False)
    wrong: Sequence[WrongAnswer]
    best_before: Draft | None

    @property
    def json(self) -> dict[str, Any]:
        """As ``--json`` has it."""
        return {
            "draft": asdict(self.draft),
            "scores": self.scores.json,
            "wrong": [asdict(one) for one in self.wrong],
            "best_before": None if self.best_before is None else asdict(self.best_before),
        }


class DraftBook:
    """All drafts beside a library, oldest first."""

    def __init__(self, library: Path) -> None:
        self.path = library / FILE

    def all(self, task: str = "") -> list[Draft]:
        """Every draft, of one task if it is named. Corrupt where a line is none."""
        if not self.path.is_file():
            return []
        found = []
        for number, line in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                found.append(Draft(**json.loads(line)))
            except (ValueError, TypeError) as error:
                where = f"line {number} of {self.path}"
                raise Corrupt(f"{where} is no tried hard prompt: {error}.", "Delete that line.") from None
        return [draft for draft in found if not task or draft.task == task]

    def add(self, draft: Draft) -> None:
        """Keep a draft: one line more, written at once."""
        with storing("a tried hard prompt", self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(handle, (json.dumps(asdict(draft), ensure_ascii=False) + "\n").encode())
                os.fsync(handle)
            finally:
                os.close(handle)


def check_draft(task: Task, text: str) -> None:
    """What can be wrong with a hard prompt without the base. TaskError, DataError."""
    if not text.strip():
        raise TaskError("the hard prompt is empty.", "Write at least a few words.")
    if not task.train.rows:
        raise DataError(f"{task.train.source or 'the task'} has no usable rows to score on.")


def trying_rows(task: Task) -> Sequence[Row]:
    """The training rows, without those that a comparison would test on."""
    rest, _, _ = set_apart(task)
    return rest or task.train.rows


def try_draft(engine: Engine, task: Task, text: str, *, rows: int, book: DraftBook) -> Tried:
    """Score a hard prompt on so many training rows and keep it. It stands before the row, or says itself where the row is."""
    check_draft(task, text)
    chosen = head(trying_rows(task), rows, seed=0)
    scored = evaluate(_method(engine, task, text, chosen), chosen, split="train")
    before = book.all(task.name)
    draft = Draft(
        number=len(before) + 1,
        task=task.name,
        text=text,
        metric=task.metric,
        score=dict(scored.values[task.metric]),
        rows=len(chosen),
        data=rows_hash(chosen)[:16],
        base=engine.base.name,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    same = [old for old in before if (old.data, old.metric, old.base) == (draft.data, draft.metric, draft.base)]
    book.add(draft)
    best = max(same, key=lambda old: upward(old.metric, old.score["value"]), default=None)
    return Tried(draft=draft, scores=scored, wrong=_wrong(task, chosen, scored), best_before=best)


def _method(engine: Engine, task: Task, text: str, rows: Sequence[Row]) -> PromptedBase:
    room = longest_output(engine.base, task, rows)
    if is_template(task, text):
        return template_prompt(engine, task, text, room)
    return with_prefix_read(instruction_first(engine, replace(task, instruction=text.strip()), room))


def _wrong(task: Task, rows: Sequence[Row], scored: Scores) -> list[WrongAnswer]:
    """The rows answered wrong: sets of labels in whatever order, outputs as exact match takes them."""
    if scored.sets is not None:
        fine = exact_rows(*scored.sets)
    elif task.writes:
        fine = matches(scored.predicted, references_of(rows))
    else:
        fine = right(scored.truth, scored.predicted)
    return [
        WrongAnswer(line=row.line, fields=dict(row.fields), truth=truth, predicted=said)
        for row, truth, said, good in zip(rows, scored.truth, scored.predicted, fine, strict=True)
        if not good
    ]
