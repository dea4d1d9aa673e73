"""Soft or hard: whether validation prefers the tuned prompt to the best hard prompt.

    keep the soft prompt, unless the best hard prompt is better by ``noise``
    gain = metric(soft) − metric(hard), turned so that + is better        interval: paired bootstrap over the rows

The hard prompts are the instruction before the row or in the prompt's place and, with few rows, two to sixteen examples before
the row. Each is the form it would be stored as, the embedded text, so what is judged is what is kept. A hard prompt was
chosen among few and learned nothing, the soft one was chosen for its validation: where the two are within a standard error,
the loss decides, and at equal loss the soft one stays. In a cross-validation each fold's examples are drawn from the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from epigraph.engine import Engine
from epigraph.errors import ConfigError, EpigraphError, Unsupported
from epigraph.methods import PromptedBase, judge
from epigraph.methods.choice import CHOOSING_ROWS, zero_shots
from epigraph.methods.hard import draw_examples, few_shot, fits, instruction_in_place
from epigraph.methods.remembered import Book
from epigraph.methods.solver import Scorable
from epigraph.methods.threshold import with_best_threshold
from epigraph.methods.watched import WATCHED_OUTPUTS, Watched, forgiving_loss, standard_error
from epigraph.methods.wording import worded
from epigraph.metrics import LOWER_IS_BETTER, Interval, upward
from epigraph.metrics.paired import bounds, resample, seeded_difference
from epigraph.prompts import Embedded, Form, plain_forms
from epigraph.tasks.encode import opening
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.data import FEW_ROWS, Parts
from epigraph.tuning.noise import rank
from epigraph.tuning.search import CrossValidated

SHOTS = (2, 4, 8, 16)
LEAST = 1e-12
Build = Callable[[Sequence[Row]], PromptedBase]
Finish = Callable[[PromptedBase], PromptedBase]
"""What is done to a prompt before it answers: its calibration."""


@dataclass(frozen=True, kw_only=True)
class HardPrompt:
    """A hard prompt as it would be stored; ``judged`` answers the rows of the verdict, each once. ``holds_texts``: of training
    rows."""

    name: str
    method: PromptedBase
    judged: Scorable
    holds_texts: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """``keeps`` is "soft" or "hard"; ``gain`` is how much better the soft prompt is on ``rows`` rows, in the task's ``metric``:
    + is better, also where less is (mae).

    ``truth`` and ``given`` are the right answers of these rows and those of the soft prompt, as texts; ``tried`` says which hard
    prompts there were.
    """

    keeps: str
    reason: str
    hard: HardPrompt
    gain: Interval
    metric: str
    rows: int
    split: str
    truth: Sequence[str]
    given: Sequence[str]
    tried: str

    @property
    def json(self) -> dict[str, object]:
        """The gain, for the contract's object."""
        bounds = {"value": self.gain.value, "low": self.gain.low, "high": self.gain.high}
        return bounds | {"metric": self.metric, "rows": self.rows, "split": self.split, "hard_prompt": self.hard.name}


@dataclass(frozen=True, kw_only=True)
class Wordings:
    """The task in the words that hard prompts are made of: ``written`` as its user wrote it, ``tuned`` as it was tuned.

    In the prompt's place a hard prompt has what the soft one has, a second reading of the row included; before the row it
    stands as a person would write it.
    """

    written: Task
    tuned: Task

    def saying(self, instruction: str) -> "Wordings":
        """The same with another instruction."""
        return Wordings(
            written=replace(self.written, instruction=instruction), tuned=replace(self.tuned, instruction=instruction)
        )


def decide(
    soft: Scorable,
    engine: Engine,
    tasks: Wordings,
    parts: Parts,
    output_tokens: int,
    *,
    seed: int,
    soft_only: bool,
    book: Book,
    finish: Finish,
) -> Verdict:
    """The verdict on the validation rows, or on those that the folds hold out.

    ``soft_only`` says that the soft prompt is kept whatever comes out. ``book`` has what hard prompts answered before.
    ``finish`` is what was done to the soft prompt too: both are judged as they would be stored.
    """
    task = tasks.tuned
    rows = [parts.all[place] for fold in parts.folds for place in fold] or list(parts.validation)
    rows = rows[:WATCHED_OUTPUTS] if task.writes else rows
    hards = hard_prompts(engine, tasks, parts, output_tokens, seed=seed, book=book, finish=finish)
    hard, tried = best_hard(hards, rows[:CHOOSING_ROWS])
    ours, theirs = (_answers(method, rows) for method in (soft, hard.judged))
    prefers_hard = rank([ours.watched, theirs.watched])[0] == 1
    truth = [_truth(row) for row in rows]
    gain = _gain(task, rows, theirs.answers, ours.answers, seed)
    split = "crossval" if parts.folds else "validation"
    clear = theirs.watched.score - theirs.watched.error > ours.watched.score
    difference = "hard − soft" if task.metric in LOWER_IS_BETTER else "soft − hard"
    measured = f"{difference} is {_said(gain)} {task.metric} on {len(rows)} {split} rows"
    if not prefers_hard:
        reason = f"the soft prompt: against {hard.name}, {measured}"
    else:
        reason = f"keep the hard prompt ({hard.name}): {measured}" + (
            "" if clear else ", and the soft prompt's loss is higher"
        )
        reason += "; the soft prompt is stored, as asked" if soft_only else ""
        reason += "; it holds the texts of training rows, as embedded examples" if hard.holds_texts and not soft_only else ""
    return Verdict(
        keeps="hard" if prefers_hard and not soft_only else "soft",
        reason=reason,
        hard=hard,
        gain=gain,
        metric=task.metric,
        rows=len(rows),
        split=split,
        truth=truth,
        given=ours.given,
        tried=tried,
    )


@dataclass(frozen=True)
class Answered:
    """A method's answers to the rows of the verdict, as texts too, and what they show."""

    answers: Sequence[judge.Answer]
    given: Sequence[str]
    watched: Watched


def best_hard(hards: Sequence[HardPrompt], rows: Sequence[Row]) -> tuple[HardPrompt, str]:
    """The best of these on a few rows, and what was tried in words."""
    seen = [_answers(hard.judged, rows).watched for hard in hards]
    metric = hards[0].method.task.metric
    tried = ", ".join(f"{hard.name}: {upward(metric, one.score):.3f}" for hard, one in zip(hards, seen, strict=True))
    best = hards[rank(seen)[0]]
    return best, f"{best.name}: best on {len(rows)} validation rows ({tried})"


def hard_prompts(
    engine: Engine, tasks: Wordings, parts: Parts, output_tokens: int, *, seed: int, book: Book, finish: Finish
) -> list[HardPrompt]:
    """Every hard prompt that may be kept instead."""
    task, found = tasks.written, list[HardPrompt]()
    for name, written in zero_shots_that_fit(engine, tasks, output_tokens).items():
        method = _kept(written, parts, finish)
        found.append(HardPrompt(name=name, method=method, judged=book.of(method), holds_texts=False))
    if len(parts.all) > FEW_ROWS or not (task.has_labels or task.writes):
        return found
    for shots in SHOTS:
        if shots < len(parts.train):
            shown = _shown(engine, task, shots, output_tokens, seed)
            try:
                found.append(_with_examples(f"{shots}-shot", shown, parts, book, finish))
            except EpigraphError:  # so many examples do not fit beside a row
                break
    return found


def zero_shots_that_fit(engine: Engine, tasks: Wordings, output_tokens: int) -> dict[str, PromptedBase]:
    """The hard prompts without examples that leave room for a row. ConfigError where none does."""
    found: dict[str, PromptedBase] = {}
    failure: EpigraphError | None = None
    for own, said in worded(tasks.written).items():
        both = tasks.saying(said.instruction)
        for name, build in zero_shots(engine, said).items():
            task = both.tuned if build is instruction_in_place else both.written
            try:
                found[name + own] = build(engine, task, output_tokens)
            except EpigraphError as error:
                failure = error
    if not found:
        base, tokens = engine.base, len(engine.base.tokenize(tasks.written.instruction))
        raise ConfigError(
            f"the instruction of {tokens} tokens leaves no room for a row: {base.name} reads {base.context} tokens.",
            "Shorten the instruction, or the words of the labels.",
        ) from failure
    return found


def _shown(engine: Engine, task: Task, shots: int, output_tokens: int, seed: int) -> Build:
    def build(rows: Sequence[Row]) -> PromptedBase:
        examples = draw_examples(engine, task, rows, seed=seed, shots=shots)
        if len(examples) < shots or not fits(engine, task, examples, output_tokens):
            raise Unsupported(f"{shots} examples do not fit beside a row.")
        return few_shot(engine, task, examples, output_tokens)

    return build


def _kept(hard: PromptedBase, parts: Parts, finish: Finish) -> PromptedBase:
    return with_best_threshold(finish(storable(hard)), parts.validation)


def _with_examples(name: str, build: Build, parts: Parts, book: Book, finish: Finish) -> HardPrompt:
    method = _kept(build(parts.train), parts, finish)
    judged: Scorable = book.of(method)
    if parts.folds:
        held = [set(fold) for fold in parts.folds]
        others = [[row for place, row in enumerate(parts.all) if place not in fold] for fold in held]
        judged = CrossValidated([finish(storable(build(rows))) for rows in others], parts.all, parts.folds)
    return HardPrompt(name=name, method=method, judged=judged, holds_texts=True)


def storable(hard: PromptedBase) -> PromptedBase:
    """A hard prompt as a stored prompt is: the text's vectors in a task's template, before the opening where it comes first."""
    forms: list[Form] = plain_forms(hard.forms, "a hard prompt")
    if not hard.encoder.bos and not hard.template.segments[0] and isinstance(forms[0], Embedded):
        head = len(opening(hard.engine.base, chat=hard.task.chat))
        forms = [Embedded(forms[0].vectors[head:]), *forms[1:]]
    forms = [Embedded(form.vectors.float().cpu()) if isinstance(form, Embedded) else form for form in forms]
    task = replace(hard.task, template=hard.template)
    return PromptedBase(hard.engine, task, forms, output_tokens=hard.output_tokens)


def _answers(method: Scorable, rows: Sequence[Row]) -> Answered:
    answers, task = judge.answer(method, rows), method.task
    score = judge.value(task, rows, answers.given)
    error = standard_error(task.metric, score, len(rows), len(task.labels))
    given = [answer if isinstance(answer, str) else ", ".join(sorted(answer)) for answer in answers.given]
    return Answered(answers.given, given, Watched(score, -_loss(task, rows, answers), error))


def _loss(task: Task, rows: Sequence[Row], answers: judge.Answers) -> float:
    """The mean loss as validation has it, in nats; 0 where a method only writes."""
    if answers.probabilities is None:
        return 0.0
    found = np.maximum(np.asarray(answers.probabilities, dtype=np.float64), LEAST)
    if task.knows_labels and not task.has_labels:
        marks = np.array([[label in row.labels for label in task.labels] for row in rows])
        return float(-np.log(np.where(marks, found, np.maximum(1 - found, LEAST))).mean())
    names = [list(task.labels) if task.has_labels else list(row.choices) for row in rows]
    chosen = [(i, one.index(row.target)) for i, (one, row) in enumerate(zip(names, rows, strict=True)) if row.target in one]
    if not chosen:
        return 0.0
    known, right = (np.array(side) for side in zip(*chosen, strict=True))
    return forgiving_loss(np.log(found[known]), right)


def _gain(
    task: Task, rows: Sequence[Row], hard: Sequence[judge.Answer], soft: Sequence[judge.Answer], seed: int
) -> Interval:
    """How much better the soft prompt is by the task's metric, paired."""
    least, most = bounds(task.metric, len(task.labels))
    both = [resample([judge.metric_of(task, rows, given)], len(rows), seed=seed) for given in (hard, soft)]
    found = seeded_difference(*both, span=most - least)
    if task.metric in LOWER_IS_BETTER:
        return Interval(-found.value, -found.high, -found.low)
    return Interval(found.value, found.low, found.high)


def _truth(row: Row) -> str:
    return ", ".join(sorted(row.labels)) if row.target is None else row.target


def _said(gain: Interval) -> str:
    return f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
