"""Whom a student imitates: a hard prompt, a stored prompt, or a model as it is, on a base that is here.

    rows → answers: log p(label), or the greedy text with the likeliest tokens at each place

A model that was fine-tuned for the task (all its weights, or with a LoRA merged into them) reads the task's template alone.
A model with a classification head of its own is in ``classifier``, one at an address in ``remote``.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from epigraph.distilling.objective import answer_logs
from epigraph.distilling.taught import Taught, of_logs, packed
from epigraph.distilling.written import HardPrompt
from epigraph.engine import Engine, before_stop, generate
from epigraph.errors import TaskError
from epigraph.methods.shots import with_prefix_read
from epigraph.methods.solver import PromptedBase
from epigraph.model import PromptModel
from epigraph.prompts import AnyForm, Dependent, Embedded, KeyValue
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

TOGETHER = {True: 64, False: 256}  # rows between two saves, by whether the task writes


@runtime_checkable
class Teacher(Protocol):
    """What distilling asks of a teacher.

    ``identity`` is all that its answers depend on, as plain values; ``text`` what it reads before every row ("" where that
    is not known in words); ``shown`` the labelled rows in it, whose answers it has before its eyes; ``together`` how many rows are
    asked at once; ``vocabulary`` the tokens its ids mean, if any.
    """

    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> Mapping[str, Any]: ...
    @property
    def text(self) -> str: ...
    @property
    def shown(self) -> Sequence[Row]: ...
    @property
    def together(self) -> int: ...
    @property
    def vocabulary(self) -> Mapping[str, int] | None: ...
    def teach(self, rows: Sequence[Row]) -> list[Taught]: ...
    def ask(self, row: Row) -> None: ...
    def tokens(self, rows: Sequence[Row]) -> float | None: ...


@dataclass(frozen=True, kw_only=True)
class BaseTeacher:
    """A prompted base as a teacher. ``labels`` is the student's order of them; ``top`` how many tokens are kept a place, ``states``
    whether the states are that its labels are read from."""

    name: str
    solver: PromptedBase
    labels: Sequence[str] = ()
    text: str = ""
    shown: Sequence[Row] = ()
    is_prompt: bool = False  # a stored prompt: its vectors can be carried to the student's base
    top: int = 32
    states: bool = False

    @property
    def together(self) -> int:
        """Rows that are asked at once: of many, those of a length share a pass."""
        return TOGETHER[self.solver.task.writes]

    @cached_property
    def reader(self) -> PromptedBase:
        """The solver with what stands before every row read, once for all rows."""
        return with_prefix_read(self.solver)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Base, template, prompt, labels and what else an answer depends on."""
        solver, base = self.solver, self.solver.engine.base
        task = solver.task
        return {
            "base": base.fingerprint,
            "precision": f"{base.precision.name} {base.device.type}",
            "template": solver.template.text,
            "forms": forms_hash(solver.forms),
            "labels": [[label, task.labels[label]] for label in self.labels],
            "answers": [task.kind, solver.members, solver.output_tokens, list(task.stop), self.top, task.chat],
            "shift": solver.shift.to_dict() if solver.shift else {},
        } | ({"states": True} if self.states else {})

    @property
    def vocabulary(self) -> Mapping[str, int] | None:
        """The base's tokens."""
        found: Mapping[str, int] = self.solver.engine.base.tokenizer.get_vocab()
        return found

    def teach(self, rows: Sequence[Row]) -> list[Taught]:
        """The answers to these rows."""
        solver = self.reader
        if solver.task.writes:
            return self._write(solver, solver.encode(rows))
        if self.states:
            return self._with_states(solver, solver.encode(rows))
        own = list(solver.task.labels)
        columns = [own.index(label) for label in self.labels]
        with np.errstate(divide="ignore"):
            found = np.log(solver.probabilities(rows).astype(np.float64))
        return [of_logs(one[columns].tolist()) for one in found]

    @torch.no_grad()
    def _with_states(self, solver: PromptedBase, rows: Sequence[Encoded]) -> list[Taught]:
        """Labels with the states that they are read from."""
        engine, tree = solver.engine, solver.tree
        found: dict[int, Taught] = {}
        for chosen in engine.batches(rows, len(tree.fed_tokens)):
            states = engine.node_states([rows[i] for i in chosen], [solver.forms], tree)
            logs = tree.labels(engine.scores_of(states, tree)).cpu().tolist()
            for i, some, told in zip(chosen, states.float().cpu().numpy(), logs, strict=True):
                found[i] = replace(of_logs(told), states=packed(some))
        return [found[i] for i in range(len(rows))]

    def with_states(self, engine: Engine, task: Task) -> "BaseTeacher":
        """The same, its states kept where a student on ``engine`` can have them too: one base, the same labels in the same words."""
        own = self.solver
        alike = own.engine.base.fingerprint == engine.base.fingerprint and list(own.task.labels.items()) == list(
            task.labels.items()
        )
        plain = own.members == 1 and own.shift is None and not own.engine.plain
        return replace(self, states=alike and plain and task.has_labels)

    @torch.no_grad()
    def _write(self, solver: PromptedBase, rows: Sequence[Encoded]) -> list[Taught]:
        """Greedy answers, read once more for the likeliest tokens at each place."""
        engine, base = solver.engine, solver.engine.base
        said = generate(engine, rows, solver.forms, solver.output_tokens, solver.task.stop)
        texts = [base.detokenize(ids) for ids in said]
        ended = [
            len(ids) < solver.output_tokens and before_stop(text, solver.task.stop) == text
            for ids, text in zip(said, texts, strict=True)
        ]
        answers = [
            Encoded(row.segments, (*ids, base.end) if end else tuple(ids), row.truncated, row.lead)
            for row, ids, end in zip(rows, said, ended, strict=True)
        ]
        tops: list[tuple[list[list[int]], list[list[float]]]] = [([], [])] * len(answers)
        for batch in engine.batches(answers):
            logs, row = answer_logs(solver, [answers[i] for i in batch], [solver.forms])
            found = logs.topk(min(self.top, logs.shape[1]))
            for place, i in enumerate(batch):
                here = row == place
                tops[i] = (found.indices[here].tolist(), found.values[here].tolist())
        return [
            Taught(
                text=before_stop(text, solver.task.stop).strip(),
                ids=answer.answer,
                top=tuple(map(tuple, ids)),
                top_logs=tuple(tuple(round(log, 6) for log in one) for one in logs),
            )
            for text, answer, (ids, logs) in zip(texts, answers, tops, strict=True)
        ]

    def ask(self, row: Row) -> None:
        """Answer one row as a request of its own."""
        ask_alone(self.solver, row)

    def tokens(self, rows: Sequence[Row]) -> float | None:
        """Tokens that one request reads, in the mean."""
        return tokens_read(self.solver, rows)


def hard_prompt_teacher(
    engine: Engine, task: Task, text: str, *, examples: Sequence[Row] = (), output_tokens: int = 64, top: int = 32
) -> BaseTeacher:
    """A base under a hard prompt, with examples before the row or without. TaskError where it leaves no room for a text."""
    hard = HardPrompt(task=task, text=text, examples=examples)
    shown = f" with {len(examples)} examples" if examples else ""
    return BaseTeacher(
        name=f"{engine.base.name} under a hard prompt{shown}",
        solver=hard.on(engine, output_tokens),
        labels=tuple(task.labels),
        text=hard.before,
        shown=tuple(examples),
        top=top,
    )


def prompt_teacher(model: PromptModel, task: Task, *, top: int = 32) -> BaseTeacher:
    """A stored prompt on its base. TaskError where it answers with other labels than the task has."""
    name = f"{model.card.reference} on {model.card.base.name}"
    check_same_labels(task, model.task, name)
    return BaseTeacher(name=name, solver=model.method, labels=tuple(task.labels), is_prompt=True, top=top)


def model_teacher(engine: Engine, task: Task, *, output_tokens: int = 64, top: int = 32) -> BaseTeacher:
    """A model that was fine-tuned for the task, as it is."""
    solver = bare(engine, task, output_tokens)
    return BaseTeacher(name=f"{engine.base.name} as it is", solver=solver, labels=tuple(task.labels), top=top)


def ask_alone(solver: PromptedBase, row: Row) -> None:
    """Answer one row; nothing of a text is kept for the next."""
    if solver.task.writes:
        solver.outputs([row])
    else:
        solver.probabilities([row])
    solver.engine.store.forget()


def tokens_read(solver: PromptedBase, rows: Sequence[Row]) -> float:
    """Positions of prompt and text that one request takes, in the mean over these rows."""
    prompt = sum(form.length for form in solver.forms)
    return prompt + float(np.mean([encoded.length for encoded in solver.encode(rows)]))


def bare(engine: Engine, task: Task, output_tokens: int) -> PromptedBase:
    """A model that was fine-tuned for the task: it reads the task's template and no prompt."""
    nothing = Embedded(torch.zeros(0, engine.base.hidden))
    return PromptedBase(engine, task, [nothing], template=task.template.placed("first"), output_tokens=output_tokens)


def check_same_labels(student: Task, teacher: Task, name: str) -> None:
    """Raise TaskError, naming them, where the teacher answers with other labels or in another way."""
    if student.kind != teacher.kind and student.writes != teacher.writes:
        raise TaskError(f"teacher {name} solves a task of kind {teacher.kind!r}, but this one is of kind {student.kind!r}.")
    missing, more = (
        sorted(set(a) - set(b)) for a, b in ((student.labels, teacher.labels), (teacher.labels, student.labels))
    )
    if missing or more:
        parts = [
            *([f"it has no {', '.join(map(repr, missing[:5]))}"] if missing else []),
            *([f"the task has no {', '.join(map(repr, more[:5]))}"] if more else []),
        ]
        raise TaskError(
            f"teacher {name} answers with other labels than the task: {'; '.join(parts)}.",
            "Choose a teacher of the same labels, or name them alike under [labels] in the task TOML.",
        )


def check_fields(teacher: PromptedBase, rows: Sequence[Row], name: str) -> None:
    """Raise TaskError where the teacher's template has fields that the texts lack."""
    missing = [field for field in teacher.template.fields if rows and field not in rows[0].fields]
    if missing:
        raise TaskError(
            f"teacher {name} reads the fields {', '.join(teacher.template.fields)}, but the texts have "
            f"{', '.join(rows[0].fields)}.",
            "Name the columns alike, or map them under [columns] in the task TOML.",
        )


def forms_hash(forms: Sequence[AnyForm]) -> str:
    """sha256 of all numbers of a prompt."""
    digest = hashlib.sha256()
    for form in forms:
        if isinstance(form, Dependent):
            tensors = list(form.prompt.state_dict().values())
        elif isinstance(form, KeyValue):
            tensors = [form.keys, form.values]
        else:
            tensors = [form.vectors]
        for tensor in tensors:
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
