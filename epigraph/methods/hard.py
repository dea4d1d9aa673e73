"""Hard prompts: the instruction in words, alone (zero-shot) or with examples before the row (few-shot).

    zero-shot   [instruction] [row] [cue]     or     [row] [instruction] [cue], whichever is better on validation
    few-shot    [instruction] [example 1] … [example k] [row] [cue]        Brown et al. 2020, https://arxiv.org/abs/2005.14165

The words before the row are the same for all rows: the engine computes them once.
"""

import random
from collections.abc import Sequence

from epigraph.engine import Engine
from epigraph.errors import EpigraphError
from epigraph.methods.solver import PromptedBase, text_forms
from epigraph.tasks.encode import answer_text, render
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tasks.template import Piece, Template
from epigraph.tasks.verdicts import NO, YES

GAP = "\n\n"
SHOTS = 8
SHARE_OF_CONTEXT = 0.5
MOST_VERDICTS = 8  # shown of an example whose labels are many


def instruction_first(engine: Engine, task: Task, output_tokens: int) -> PromptedBase:
    """The instruction before the row."""
    return _before(engine, task, task.instruction + GAP, output_tokens)


def instruction_in_place(engine: Engine, task: Task, output_tokens: int) -> PromptedBase:
    """The instruction where the template has its first ``{prompt}``: behind the row it shares the row's frozen states."""
    text = as_written(task.instruction, task.template.segments[0])
    starts = not task.template.segments[0]
    blank = text_forms(engine, "", bos=False) * (task.template.blocks - 1)
    forms = text_forms(engine, text, bos=starts, chat=task.chat) + blank
    return PromptedBase(engine, task, forms, bos=not starts, output_tokens=output_tokens)


def as_written(instruction: str, before: Sequence[Piece]) -> str:
    """The instruction as one writes it after these pieces: on a line of its own, or in brackets behind a word."""
    if not before:
        return instruction + "\n"
    last = before[-1]
    behind_word = not last.is_field and not last.text[-1:].isspace()
    return f" ({instruction.rstrip('.')})" if behind_word else "\n" + instruction


def few_shot(engine: Engine, task: Task, examples: Sequence[Row], output_tokens: int) -> PromptedBase:
    """The instruction and these examples before the row."""
    shown = [_shown(task, row) for row in examples]
    return _before(engine, task, GAP.join([task.instruction, *shown]) + GAP, output_tokens)


def draw_examples(engine: Engine, task: Task, rows: Sequence[Row], *, seed: int, shots: int = SHOTS) -> list[Row]:
    """``shots`` rows drawn at random, labels in turn, as many as fit into half of the base's context."""
    drawn = _in_turn(rows, random.Random(seed), shots)
    room = SHARE_OF_CONTEXT * engine.base.context
    kept: list[Row] = []
    for row in drawn:
        room -= len(engine.base.tokenize(_shown(task, row) + GAP))
        if room < 0:
            break
        kept.append(row)
    return kept


def _in_turn(rows: Sequence[Row], rng: random.Random, shots: int) -> list[Row]:
    """Shuffled rows, one of each label before the second of any (all rows count as one label in generation)."""
    by_target: dict[str | None, list[Row]] = {}
    shuffled = rng.sample(list(rows), len(rows))
    many = len({row.target for row in rows}) > len(rows) // 2
    for row in shuffled:
        by_target.setdefault(None if many else row.target, []).append(row)
    turns = [row for i in range(len(rows)) for group in by_target.values() for row in group[i : i + 1]][:shots]
    return rng.sample(turns, len(turns))


def _bare(task: Task) -> Template:
    """The task's template without its prompt blocks, behind a block that holds the words before the row."""
    return task.template.placed("first")


def _before(engine: Engine, task: Task, text: str, output_tokens: int) -> PromptedBase:
    forms = text_forms(engine, text, bos=True, chat=task.chat)
    return PromptedBase(engine, task, forms, template=_bare(task), bos=False, output_tokens=output_tokens)


def _shown(task: Task, row: Row) -> str:
    return "".join(shown_example(task, row))


def shown_example(task: Task, row: Row) -> tuple[str, str]:
    """A row as an example to read: what stands before its answer, and the answer."""
    template = _bare(task)
    return render(template.segments[-1], row.fields), answer_text(template, _said(task, row))


def _said(task: Task, row: Row) -> str:
    """The right answer in words; of several labels the verdicts on them, and on as many others as make up eight."""
    target = row.target or ""
    if task.has_labels:
        return task.labels.get(target, target)
    if not task.knows_labels:
        return target
    others = [label for label in task.labels if label not in row.labels]
    shown = {*row.labels, *others[: max(0, MOST_VERDICTS - len(row.labels))]}
    return ", ".join(f"{task.labels[label]}:{YES if label in row.labels else NO}" for label in task.labels if label in shown)


def fits(engine: Engine, task: Task, examples: Sequence[Row], output_tokens: int) -> bool:
    """Whether these examples leave room for a row."""
    try:
        few_shot(engine, task, examples, output_tokens)
    except EpigraphError:
        return False
    return True
