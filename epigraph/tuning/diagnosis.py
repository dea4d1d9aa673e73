"""Known failures of a tuning, named in words, each with its cure.

before the first step: what the rows, the labels and the template show        ``diagnose_rows``
on the way: what the loss, the prompt's norm and the answers show             ``rate_failure``, ``collapse``, told by ``midway``
after the last: the same, and whether the gain is noise                       ``diagnose``

growth = ‖θ‖ / ‖θ₀‖, both in units of the start's rms, which for vectors is that of the embedding table's rows. Where offsets
from a start are trained, θ₀ = 0, and growth = 1 + ‖θ‖ / √n for n of them: what they add to a start of rms 1. A prompt that
learns grows to one and a half to four times its start; Lester et al. 2021 (section 7) and Bailey et al. 2023
(https://arxiv.org/abs/2310.03213) describe prompts that end far outside the table. What is seen once is no proof: each
finding says what it saw.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from epigraph.methods import PromptedBase
from epigraph.metrics import Interval
from epigraph.tasks.encode import answer_text
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.data import Parts
from epigraph.tuning.loop import Loop
from epigraph.tuning.verdict import Verdict

MOST_ROLLBACKS, MOST_GROWTH = 2, 2.0
LEAST_FALL, LEAST_GROWTH = 0.02, 0.01  # shares of the loss and of the norm
COLLAPSED, NOT_COLLAPSED, JUDGED_ROWS = 0.97, 0.85, 12
MANY_SHORTENED = 0.1
SPLIT_ODDLY, ODD_TOKENS, TOLD_APART_LATE = 2.0, 5, 4
SAMPLE = 50
FREE_TEXT, FREE_TEXT_ROWS = 0.6, 10
FEW = 5


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a training went: the mean loss between validations in nats, the prompt's growth, roll-backs, and the rate."""

    losses: Sequence[float]
    growth: float
    rollbacks: int
    rate: float

    @classmethod
    def of(cls, loop: Loop, *, norm: float | None = None) -> "Training":
        """What this loop shows; ``norm`` is the prompt's now, where the loop has not come to its end."""
        losses = [float(found[4]) for found in loop.state.history]
        growth = _growth(loop, loop.last_norm if norm is None else norm)
        return cls(losses=losses, growth=growth, rollbacks=loop.state.rollbacks, rate=loop.settings.rate)


def _growth(loop: Loop, norm: float) -> float:
    if loop.start_norm:
        return norm / loop.start_norm
    numbers = sum(parameter.numel() for parameter in loop.optimiser.parameters)
    return 1 + norm / math.sqrt(max(1, numbers))


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the soft prompt answered to the rows that validate, beside the right answers, and its gain over the hard prompt.

    ``split`` is validation or crossval; ``labels`` says that answers are one label each, ``kept`` that the soft prompt is kept.
    """

    given: Sequence[str]
    truth: Sequence[str]
    gain: Interval
    split: str
    labels: bool
    kept: bool

    @classmethod
    def of(cls, verdict: Verdict, task: Task) -> "Answers":
        """What this verdict saw."""
        return cls(
            given=verdict.given,
            truth=verdict.truth,
            gain=verdict.gain,
            split=verdict.split,
            labels=task.has_labels,
            kept=verdict.keeps == "soft",
        )


@runtime_checkable
class Speller(Protocol):
    """What is asked of a base to see how it splits words."""

    def tokenize(self, text: str) -> list[int]: ...
    def detokenize(self, ids: Sequence[int]) -> str: ...


def diagnose(training: Training, answers: Answers) -> list[str]:
    """What went wrong in training and in the answers, the most serious first; empty where nothing did."""
    fell = collapse(answers.given, answers.truth) if answers.labels else ""
    found = [fell, rate_failure(training), _noise(answers)]
    return [warning for warning in found if warning]


def diagnose_rows(solver: PromptedBase, parts: Parts) -> list[str]:
    """What is wrong with the rows, the labels or the template before anything is trained."""
    found = [*_repeated(parts), *_free_text(solver.task, parts), *_lost(solver, parts), *_odd_labels(solver, parts)]
    return list(found)


# ---- training --------------------------------------------------------------------------------------------------------


def rate_failure(training: Training) -> str:
    """What a learning rate that is too high or too low shows; "" where it is neither."""
    losses, growth, rate = training.losses, training.growth, training.rate
    if training.rollbacks >= MOST_ROLLBACKS:
        return (
            f"the learning rate is too high: {training.rollbacks} times the loss was not finite, at a rate of {rate:.2g}. "
            f"Tune with --rate {rate / 4:.2g}."
        )
    if len(losses) < 2:
        return ""
    if losses[-1] >= losses[0] and growth > MOST_GROWTH:
        return (
            f"the learning rate is too high: the training loss rose from {losses[0]:.2f} to {losses[-1]:.2f} while the prompt grew "
            f"to {growth:.1f} times its start, at a rate of {rate:.2g}. Tune with --rate {rate / 4:.2g}."
        )
    if losses[-1] > (1 - LEAST_FALL) * losses[0] and abs(growth - 1) < LEAST_GROWTH:
        return (
            f"the learning rate is too low: the training loss went from {losses[0]:.3f} to {losses[-1]:.3f} and the prompt hardly "
            f"moved from its start, at a rate of {rate:.2g}. Tune with --rate {rate * 10:.2g} or more --epochs."
        )
    return ""


# ---- answers ---------------------------------------------------------------------------------------------------------


def collapse(answered: Sequence[str], truth: Sequence[str]) -> str:
    """Whether labels fell back to one of them, which is not nearly always right; "" where they did not."""
    rows = len(truth)
    if rows < JUDGED_ROWS:
        return ""
    (label, given), right = Counter(answered).most_common(1)[0], Counter(truth)
    if given < COLLAPSED * rows or right[label] >= NOT_COLLAPSED * rows:
        return ""
    return (
        f"the soft prompt answers {label!r} to {given} of {rows} validation rows, of which {right[label]} are: it fell back to one "
        "label. Try another --rate or --start, more --epochs, or a larger --budget."
    )


def _noise(answers: Answers) -> str:
    gain = answers.gain
    if not answers.kept or gain.low > 0 or gain.value <= 0:
        return ""
    return (
        f"the gain over the hard prompt, {gain.value:+.3f}, is within the noise of {len(answers.truth)} {answers.split} rows "
        f"({gain.low:+.3f} to {gain.high:+.3f}). More labelled rows, or a larger --validation share, would tell."
    )


# ---- rows ------------------------------------------------------------------------------------------------------------


def _repeated(parts: Parts) -> Iterable[str]:
    return repeated_rows(parts.all, parts.final, parts.split) if parts.split in ("test", "holdout") else ()


def repeated_rows(learned: Sequence[Row], final: Sequence[Row], split: str) -> Iterable[str]:
    """Rows of the final score that training has seen, word by word or but for case and spaces."""
    exact = {_fields(row) for row in learned}
    loose = {_normal(row) for row in learned}
    same = [row for row in final if _fields(row) in exact]
    alike = [row for row in final if _normal(row) in loose and _fields(row) not in exact]
    for rows, how in ((same, "also train"), (alike, "also train but for case and spaces")):
        if rows:
            lines = [str(row.line) for row in rows if row.line][:FEW]
            where = f" (lines {', '.join(lines)}{' …' if len(rows) > FEW else ''})" if lines else ""
            yield (
                f"{len(rows)} of {len(final)} {split} rows {how}{where}: the score is too good. "
                f"Take them out of one of the two."
            )


def _fields(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(row.fields.items()))


def _normal(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple((name, " ".join(text.casefold().split())) for name, text in _fields(row))


def _free_text(task: Task, parts: Parts) -> Iterable[str]:
    rows = parts.all
    labels = {row.target for row in rows}
    if task.has_labels and len(rows) >= FREE_TEXT_ROWS and len(labels) > FREE_TEXT * len(rows):
        yield (
            f"the labels look like free text: {len(labels)} different ones in {len(rows)} rows. If they are texts to write, "
            "tune with --task-kind generation; else check which column is the label."
        )


def _lost(solver: PromptedBase, parts: Parts) -> Iterable[str]:
    """Rows that were shortened so that the answer is no longer in them, or so many that it may be."""
    rows = parts.each
    shortened = [(row, encoded) for row, encoded in zip(rows, solver.encode(rows), strict=True) if encoded.truncated]
    base, lost = solver.engine.base, 0
    for row, encoded in shortened:
        read = "".join(base.detokenize(ids) for ids in encoded.segments)
        target = row.target or ""
        lost += bool(target) and target not in read and any(target in text for text in row.fields.values())
    cure = "Shorten the texts to the part that holds the answer, or choose a base that reads more."
    if lost and (solver.task.writes or not solver.task.knows_labels):
        yield f"{lost} of {len(rows)} rows were shortened so that the answer is no longer in them. {cure}"
    elif len(shortened) > MANY_SHORTENED * len(rows):
        share = f"{len(shortened)} of {len(rows)} rows were shortened at their end"
        yield f"{share}: an answer that stands there is lost. {cure}"


def _odd_labels(solver: PromptedBase, parts: Parts) -> Iterable[str]:
    task = solver.task
    if not task.has_labels:
        return []
    spoken = {label: answer_text(solver.template, words) for label, words in task.labels.items()}
    texts = [text for row in parts.train[:SAMPLE] for text in row.fields.values() if text]
    return odd_labels(solver.engine.base, spoken, texts)


def odd_labels(base: Speller, spoken: Mapping[str, str], texts: Sequence[str]) -> Iterable[str]:
    """Labels (label → its words as they follow the template) that the base spells in far more pieces than ``texts``, that
    have no form behind a space, or that only their last pieces tell apart."""
    pieces = {label: base.tokenize(text) for label, text in spoken.items()}
    usual = sum(len(base.tokenize(text)) for text in texts) / max(1, sum(map(len, texts)))
    odd = [
        label
        for label, ids in pieces.items()
        if len(ids) >= ODD_TOKENS and len(ids) > SPLIT_ODDLY * usual * len(spoken[label])
    ]
    cure = "Give plainer words for them under [labels] in a task TOML."
    if odd:
        some = ", ".join(f"{label!r} in {len(pieces[label])}" for label in odd[:FEW])
        yield f"the base splits labels into many pieces: {some}. {cure}"
    bare = [label for label, ids in pieces.items() if len(ids) > 1 and not base.detokenize(ids[:1]).strip()]
    if 0 < len(bare) < len(pieces):
        yield f"the base has no form of these labels behind a space: {_few(bare)}. {cure}"
    late = _alike(pieces, usual)
    if late:
        yield f"labels begin with the same {TOLD_APART_LATE} pieces or more and differ only in their last: {_few(late)}. {cure}"


def _alike(pieces: Mapping[str, Sequence[int]], usual: float) -> list[str]:
    """Labels that share all but their last piece, with at least four before it; letters of a base of letters do not count."""
    if usual > 0.9:  # pieces a letter: the base reads letters
        return []
    begins = Counter(tuple(ids[:-1]) for ids in pieces.values())
    return [label for label, ids in pieces.items() if len(ids) > TOLD_APART_LATE and begins[tuple(ids[:-1])] > 1]


def _few(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels[:FEW])) + (" …" if len(labels) > FEW else "")
