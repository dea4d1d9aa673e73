"""``distill``: from a teacher and unlabelled texts to a student prompt that answers alike.

texts → train | validation | held out      teacher → answers, once      start → loop → best student      held out → fidelity

The student is trained by the house's own loop; only what it lowers is another: ``objective``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from epigraph.base import Base
from epigraph.cost import Meter, peak_memory
from epigraph.distilling.answers import ask_all, identity_hash, row_key
from epigraph.distilling.choices import Choices, choose
from epigraph.distilling.fidelity import (
    Fidelity,
    alone,
    compare,
    costs_of,
    how_timed,
    lost_of,
    score_teacher,
    seconds_a_request,
)
from epigraph.distilling.mapping import Carried, carry, difference
from epigraph.distilling.matching import MOST_ROWS, match
from epigraph.distilling.objective import AnswerImitation, LabelImitation
from epigraph.distilling.pieces import cut
from epigraph.distilling.result import DistillResult
from epigraph.distilling.runs import create, resume
from epigraph.distilling.settings import START_MAPPED, START_MATCHED, DistillConfig
from epigraph.distilling.start import begin
from epigraph.distilling.taught import Taught, check_kind
from epigraph.distilling.teacher import BaseTeacher, Teacher, check_fields, hard_prompt_teacher, prompt_teacher
from epigraph.distilling.written import draw
from epigraph.engine import Engine
from epigraph.errors import DataError
from epigraph.evaluation import Scores, evaluate
from epigraph.library import Card, Lineage, StoredPrompt
from epigraph.methods.solver import DEFAULT_OUTPUT_TOKENS, PromptedBase
from epigraph.model import Given, PromptModel, facts
from epigraph.prompts import KeyValue, SoftPrompt, kept_numbers, plain_forms
from epigraph.tasks.row import Row
from epigraph.tasks.rows import row_of
from epigraph.tasks.split import head, split_validation
from epigraph.tasks.task import Task
from epigraph.tuning.diagnosis import repeated_rows
from epigraph.tuning.loop import Loop, Moment
from epigraph.tuning.result import TunedPrompt
from epigraph.tuning.run import Run, rows_hash
from epigraph.tuning.session import longest_output
from epigraph.tuning.state import load_states
from epigraph.tuning.surroundings import Surroundings

FEWEST_TEXTS = 8
MOST_VALIDATION = 256  # texts: of many, every validation read a seventh
Pairs = list[tuple[Row, Taught]]


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of one distilling with the teacher's answers. ``split`` says what the held-out ones are of, ``asked`` of how many the
    teacher was asked now: the answers to the others were kept."""

    train: Pairs
    validation: Pairs
    held: Pairs
    split: str
    asked: int

    @property
    def labelled(self) -> Pairs:
        """The held-out texts whose right answer is known."""
        return [(row, taught) for row, taught in self.held if row.target is not None]


def distill(
    base: Base,
    task: Task,
    texts: Sequence[Given],
    teacher: Teacher | PromptModel | str,
    config: DistillConfig | None = None,
    *,
    name: str = "prompt",
    tests: Sequence[Given] = (),
    output_tokens: int | None = None,
    engine: Engine | None = None,
    around: Surroundings | None = None,
    describe: Mapping[str, Any] | None = None,
    parents: Sequence[str] = (),
) -> DistillResult:
    """Teach a student prompt on ``base`` to answer the task's rows as ``teacher`` does.

    The teacher is a hard prompt (read by the same base, before ``config.shots`` examples of the task), a stored prompt on its
    own base, or any ``Teacher``. ``texts`` need no labels; those that the teacher has as examples before its eyes are left out. ``tests``
    are the rows to measure on, by default a part of the texts that is held out. ``describe`` is what a run folder shall remember besides.

    Raises DataError for too few texts, Unsupported for a task or a teacher that cannot be imitated, Diverged if no rate keeps the
    loss finite. Ctrl-C leaves the run that ``around.resume`` goes on with; the teacher's answers are kept in any case.
    """
    config, around, meter = config or DistillConfig(), around or Surroundings(), Meter()
    check_kind(task)
    engine = engine or Engine(base)
    tokens = output_tokens or room_for_outputs(base, task)
    teacher = as_teacher(teacher, engine, task, config, tokens)
    learned, held = [_row(task, one) for one in texts], [_row(task, one) for one in tests]
    learned, findings = _unshown(learned, held, teacher.shown)
    train, stopping, held = divide(learned, held, config)
    more = cut(train, config.pieces, seed=config.seed, but=[*stopping, *held, *teacher.shown])
    parts = [*train, *more], stopping, held
    findings += repeated_rows([*parts[0], *parts[1]], parts[2], "test") if tests else []
    for finding in findings:
        around.note(f"warning: {finding}")
    carried, stays = _carried(teacher, base, config)
    settle = partial(choose, config, task, len(parts[0]), plain=engine.plain, carried=carried, stays=stays)
    choices, found = _settled(settle, _read_before(teacher, engine), engine, parts[0], tokens, around)
    if choices.states and isinstance(teacher, BaseTeacher):
        teacher = teacher.with_states(engine, task)
    student = begin(
        engine,
        choices.task,
        kind=choices.kind,
        length=choices.length,
        text=teacher.text,
        carried=carried if choices.start == START_MAPPED else None,
        found=found,
        seed=config.seed,
    )
    solver = PromptedBase(engine, choices.task, student.fold(), output_tokens=tokens)
    data = {"rows": rows_hash([row for part in parts for row in part]), "teacher": identity_hash(teacher.identity)}
    run = _run(solver, choices, around, name, {**(describe or {}), "data": data})
    if run is not None:
        around.started(run)
    taught = _taught(teacher, parts, solver, around, "test" if tests else "holdout")
    asked_seconds = meter.seconds
    _freeze(solver, taught, run, around)
    at_start = compare(solver, *_apart(taught.held), seed=config.seed)
    loop = _train(solver, student, taught, choices, run, around)
    return _finish(
        _Made(
            solver=solver.with_forms(student.fold()),
            teacher=teacher,
            texts=taught,
            choices=choices,
            loop=loop,
            run=run,
            around=around,
            name=name,
            start=at_start,
            seconds=(meter.seconds, asked_seconds),
            meter=meter,
            parents=parents,
            findings=findings,
        )
    )


def divide(texts: Sequence[Row], tests: Sequence[Row], config: DistillConfig) -> tuple[list[Row], list[Row], list[Row]]:
    """Texts to learn from, to stop by, and to measure on. DataError for too few."""
    rows = list(texts)
    if len(rows) < FEWEST_TEXTS:
        raise DataError(
            f"{len(rows)} texts were given; distilling needs {FEWEST_TEXTS} or more.",
            "Give a file of texts with --texts; they need no labels.",
        )
    held = list(tests)
    if not held:
        rows, held, _ = split_validation(rows, share=config.holdout, seed=config.seed, labels=False)
    share = min(config.validation, MOST_VALIDATION / len(rows)) if rows else config.validation
    train, validation, _ = split_validation(rows, share=share, seed=config.seed + 1, labels=False)
    if not held or not validation:
        raise DataError(
            f"of {len(texts)} texts none is left to {'stop by' if held else 'measure on'}.",
            "Give more texts that differ, or a --test file.",
        )
    return train, validation, held


def _unshown(texts: list[Row], tests: Sequence[Row], shown: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The texts without those that the teacher reads as examples, and what there is to say of it.

    To an example the teacher gives the label that stands there: not what it would answer, so no measure of how it is imitated.
    """
    seen = {_told(row) for row in shown}
    kept = [row for row in texts if _told(row) not in seen]
    found = []
    if len(kept) < len(texts):
        found.append(
            f"{len(texts) - len(kept)} of {len(texts)} texts are examples that the teacher reads; they are left out"
        )
    if tested := sum(_told(row) in seen for row in tests):
        found.append(
            f"{tested} of {len(tests)} test rows are examples that the teacher reads with their labels: its scores are too good"
        )
    return kept, found


def _told(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, " ".join(text.casefold().split())) for name, text in row.fields.items()))


def as_teacher(
    given: Teacher | PromptModel | str, engine: Engine, task: Task, config: DistillConfig, output_tokens: int
) -> Teacher:
    """What was given as the teacher that it means."""
    if isinstance(given, str):
        examples = draw(engine, task, task.train.rows, config.shots, config.seed)
        return hard_prompt_teacher(engine, task, given, examples=examples, output_tokens=output_tokens, top=config.top)
    return prompt_teacher(given, task, top=config.top) if isinstance(given, PromptModel) else given


def room_for_outputs(base: Base, task: Task) -> int:
    """Tokens of an output: as the task says, as its rows have, or what the house gives where there are none."""
    if task.writes and task.output_tokens is None and not task.train.rows:
        return DEFAULT_OUTPUT_TOKENS
    return longest_output(base, task, task.train.rows)


def _row(task: Task, given: Given) -> Row:
    if isinstance(given, Row):
        return given
    names = task.template.fields
    return Row(fields={names[0]: given}) if isinstance(given, str) else row_of(given, task.columns, names)


def _carried(teacher: Teacher, base: Base, config: DistillConfig) -> tuple[Carried | None, str]:
    """The first values that a stored prompt gives, where they are wanted and can be had, and else why they cannot."""
    if config.start not in ("", START_MAPPED) or not isinstance(teacher, BaseTeacher) or not teacher.is_prompt:
        return None, ""
    solver = teacher.solver
    forms, old = plain_forms(solver.forms, "carrying a prompt to another base"), solver.engine.base
    if found := carry(old, forms[: solver.template.blocks], base):
        return found, ""
    why = "the old prompt could not be carried over: it is keys and values, which go to a fine-tuned copy of their base only"
    return None, f"{why}, and {difference(old, base)}"


def _read_before(teacher: Teacher, engine: Engine) -> KeyValue | None:
    """What the teacher reads before every text, where it is this base and reads it before all else."""
    if not isinstance(teacher, BaseTeacher) or engine.plain or teacher.solver.members > 1:
        return None
    own = teacher.reader
    first = own.template.blocks == 1 and not own.template.segments[0]
    form = own.forms[0]
    alike = own.engine.base.fingerprint == engine.base.fingerprint
    return form if first and alike and isinstance(form, KeyValue) else None


def _settled(
    settle: Callable[..., Choices],
    whole: KeyValue | None,
    engine: Engine,
    rows: Sequence[Row],
    output_tokens: int,
    around: Surroundings,
) -> tuple[Choices, KeyValue | None]:
    """All settings, and the first values by what these rows find in ``whole``, where that was chosen and can be."""
    if whole is None:
        return settle(), None
    choices = settle(before=whole.length)
    if choices.start != START_MATCHED:
        return choices, None
    seed = choices.loop.seed
    some = PromptedBase(engine, choices.task, [whole], output_tokens=output_tokens).encode(head(rows, MOST_ROWS, seed))
    found = match(engine, whole, some, choices.length, seed, partial(around.stage, "matching what the texts find"))
    if found is None:
        return settle(), None
    said = f"{choices.reasons['start']}; {found.missed:.1%} of it is missed"
    return replace(choices, reasons={**choices.reasons, "start": said}), found.form


def _run(solver: PromptedBase, choices: Choices, around: Surroundings, name: str, describe: Mapping[str, Any]) -> Run | None:
    """The run folder to write or, on resume, the one to go on with."""
    base = solver.engine.base
    depends = {
        "task": choices.task.to_dict(),
        "settings": choices.to_dict(),
        "base": {"fingerprint": base.fingerprint, "dtype": base.precision.name, "device": base.device.type},
        "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__},
    }
    if around.resume is not None:
        return resume(around.resume, {**depends, "data": describe["data"]})
    return None if around.runs is None else create(around.runs, name, {**depends, **describe})


def _taught(
    teacher: Teacher, parts: tuple[list[Row], list[Row], list[Row]], solver: PromptedBase, around: Surroundings, split: str
) -> Texts:
    """The teacher's answers to all texts, as the student can learn from them."""
    rows = [row for part in parts for row in part]
    if isinstance(teacher, BaseTeacher):
        check_fields(teacher.solver, rows, teacher.name)
    asked = ask_all(teacher, rows, stage=around.stage)
    found = asked.answers
    if solver.task.writes and teacher.vocabulary != solver.engine.base.tokenizer.get_vocab():
        found = [one.plain for one in found]
    answered = iter(zip(rows, found, strict=True))
    train, validation, held = ([next(answered) for _ in part] for part in parts)
    return Texts(train=train, validation=validation, held=held, split=split, asked=asked.now)


def _freeze(solver: PromptedBase, taught: Texts, run: Run | None, around: Surroundings) -> None:
    """Read what stands before the student once; which texts those are is noted, for the same batches after a resume."""
    engine, rows = solver.engine, solver.encode([row for row, _ in (*taught.train, *taught.validation)])
    if any(row.segments[0] for row in rows):
        planned = run.planned(lambda: engine.missing(rows)) if run is not None else ()
        engine.freeze(rows, lambda done, total: around.stage("reading the texts once", done, total), planned=planned)


def _train(
    solver: PromptedBase, student: SoftPrompt, taught: Texts, choices: Choices, run: Run | None, around: Surroundings
) -> Loop:

    def listen(moment: Moment) -> None:
        if run is not None and (moment.score is not None or moment.note):
            run.record(moment)
        around.listener(moment)

    parts = taught.train, taught.validation
    writes = solver.task.writes
    objective = AnswerImitation(solver, *parts) if writes else LabelImitation(solver, *parts, states=choices.states)
    loop = Loop(student.to(solver.engine.base.device), objective, choices.loop, listen)
    state_file = run.state_file if run is not None else None
    if around.resume is not None and state_file is not None and state_file.exists():
        loop.resume(*load_states(state_file)[0])
    loop.run(state_file)
    return loop


def _apart(pairs: Pairs) -> tuple[list[Row], list[Taught]]:
    return [row for row, _ in pairs], [taught for _, taught in pairs]


# ---- the end -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Made:
    """Everything the end needs; ``seconds`` in all and of asking the teacher."""

    solver: PromptedBase
    teacher: Teacher
    texts: Texts
    choices: Choices
    loop: Loop
    run: Run | None
    around: Surroundings
    name: str
    start: Fidelity
    seconds: tuple[float, float]
    meter: Meter
    parents: Sequence[str]
    findings: Sequence[str]


def _finish(made: _Made) -> DistillResult:
    solver, texts = made.solver, made.texts
    rows, taught = _apart(texts.held)
    made.around.stage("comparing student and teacher", 0, len(rows))
    seed = made.choices.loop.seed
    found = compare(solver, rows, taught, seed=seed)
    scored, theirs = _scores(made)
    request = _request(made, rows)
    made.around.stage("comparing student and teacher", len(rows), len(rows))
    cost = _cost(made)
    settings = made.choices.to_dict() | {"output_tokens": solver.output_tokens, "dtype": solver.engine.base.precision.name}
    reasons = dict(made.choices.reasons) | {"stop": _stop_reason(made), "dtype": solver.engine.base.precision.reason}
    reasons["teacher"] = _asked(made)
    if solver.task.writes and not texts.train[0][1].top:
        reasons["answers"] = "the teacher's texts alone: its tokens are not the student's"
    card = Card(
        name=made.name,
        kind=made.choices.kind,
        place=made.choices.place,  # type: ignore[arg-type]
        portable=solver.template.blocks == 1 and not solver.template.segments[0],
        trained_parameters=made.loop.prompt.trained_parameters,
        base=facts(solver.engine.base),
        task=solver.task.to_dict(),
        scores=scored.json if scored is not None else {},
        hard_prompt=theirs.json if theirs is not None and _is_words(made.teacher) else {},
        cost=cost,
        settings=settings | {"teacher": made.teacher.name},
        reasons=reasons | {"fidelity": _said(found, texts.split)},
        lineage=Lineage(parents=tuple(made.parents), how=f"distilled from {made.teacher.name}"),
    )
    stored = StoredPrompt(card=card, forms=solver.forms)
    return DistillResult(
        prompt=TunedPrompt(stored=stored, metrics_file=made.run.metrics_file if made.run else None),
        model=PromptModel(stored, solver.engine.base, engine=solver.engine),
        teacher=made.teacher.name,
        fidelity=found,
        start=made.start,
        split=texts.split,
        scored=scored,
        teacher_scored=theirs,
        lost=lost_of(solver.task, [row for row, _ in texts.labelled], scored, theirs, seed=seed),
        request=request,
        cost=cost,
        settings=settings,
        reasons=reasons,
        warnings=_warnings(made, found),
    )


def _is_words(teacher: Teacher) -> bool:
    return isinstance(teacher, BaseTeacher) and bool(teacher.text)


def _scores(made: _Made) -> tuple[Scores | None, Scores | None]:
    """Of student and teacher, where right answers are known."""
    rows, taught = _apart(made.texts.labelled)
    if not rows:
        return None, None
    solver, split, seed = made.solver, made.texts.split, made.choices.loop.seed
    return (
        evaluate(solver, rows, split=split, seed=seed),
        score_teacher(solver.task, rows, taught, split=split, seed=seed),
    )


def _request(made: _Made, rows: Sequence[Row]) -> dict[str, Any]:
    """Tokens that are read and seconds of one request alone, of teacher and student."""
    some = list(rows[:32])
    after, ask = costs_of(made.solver, some)
    asked = {"after": ask, "before": made.teacher.ask}
    if isinstance(made.teacher, BaseTeacher):
        own = made.teacher.solver
        asked["before"] = replace(made.teacher, solver=alone(own)).ask
        if not own.template.segments[0] and own.forms[0].length:
            asked["before_prefix_kept"] = replace(made.teacher, solver=alone(own, prefix_kept=True)).ask
    before = made.teacher.tokens(some)
    saved = None if before is None else before - after
    seconds = seconds_a_request(asked, some)
    return {
        "tokens": {"before": before, "after": after, "saved": saved},
        "seconds": seconds,
        "how": how_timed(some, seconds),
    }


def _cost(made: _Made) -> dict[str, Any]:
    kept = kept_numbers(made.solver.forms)
    return {
        "seconds": round(made.seconds[0], 1),
        "teacher_seconds": round(made.seconds[1], 1),
        "teacher_asked": made.texts.asked,
        "train_seconds": round(made.loop.state.train_seconds, 1),
        "trained_parameters": made.loop.prompt.trained_parameters,
        "kept_parameters": kept,
        "kept_bytes": 4 * kept,
        **made.meter.energy(),
        "peak_memory_bytes": peak_memory(),
        "added_tokens": sum(form.length for form in made.solver.forms),
    }


def _stop_reason(made: _Made) -> str:
    state, rows = made.loop.state, len(made.texts.validation)
    ended = f"no gain in {made.choices.loop.patience} validations" if state.stopped else "all epochs done"
    best = f"smallest divergence {-state.best_score:.4f} nats on {rows} texts at step {state.best_step}"
    return f"{ended} after {state.step} steps; {best}"


def _asked(made: _Made) -> str:
    """Of whom and when the soft labels are."""
    texts = made.texts
    rows = len({row_key(row) for row, _ in (*texts.train, *texts.validation, *texts.held)})
    return f"{made.teacher.name}, asked {texts.asked} texts now; {rows - texts.asked} of its answers were kept from before"


def _said(found: Fidelity, split: str) -> str:
    beyond = f", kappa {found.kappa.value:.3f}" if found.kappa is not None else ""
    return f"agreement {found.agreement.value:.3f}{beyond} on {found.rows} {split} texts"


def _warnings(made: _Made, found: Fidelity) -> list[str]:
    solver, warnings = made.solver, list(made.findings)
    if found.constant_agreement == 1.0:
        warnings.append(
            f"the teacher answers {found.constant!r} to every text: agreement says nothing, and kappa is 0 by definition"
        )
    if isinstance(made.teacher, BaseTeacher):
        cut = sum(row.truncated for row in made.teacher.solver.encode([row for row, _ in made.texts.held]))
        if cut:
            warnings.append(f"{cut} of {found.rows} texts were shortened to fit beside what the teacher reads")
    if solver.engine.plain:
        warnings.append(solver.engine.warning)
    return warnings
