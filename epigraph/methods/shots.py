"""Few-shot with k examples drawn at random or with labels in turn; the best k on validation.

    [instruction] [example 1] … [example k] [row] [cue]        Brown et al. 2020, https://arxiv.org/abs/2005.14165

The examples are the same for every row, so their keys and values are computed once and every row goes on from them.
"""

import random
import time
from collections.abc import Callable, Sequence

import torch

from epigraph.engine import Engine
from epigraph.errors import InputError
from epigraph.methods.choice import CHOOSING_ROWS, Chosen
from epigraph.methods.hard import SHARE_OF_CONTEXT, draw_examples, few_shot, fits
from epigraph.methods.ranking import rank_method
from epigraph.methods.solver import PromptedBase
from epigraph.metrics import upward
from epigraph.prompts import plain_forms
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

COUNTS = (2, 4, 8, 16, 32)
Draw = Callable[[Engine, Task, Sequence[Row], int, int], list[Row]]


def draw_random(engine: Engine, task: Task, rows: Sequence[Row], shots: int, seed: int) -> list[Row]:
    """``shots`` rows at random, as many as fit into half of the base's context."""
    drawn = random.Random(seed).sample(list(rows), min(shots, len(rows)))
    room = SHARE_OF_CONTEXT * engine.base.context
    while drawn and (not fits(engine, task, drawn, 1) or few_shot(engine, task, drawn, 1).forms[0].length > room):
        drawn.pop()
    return drawn


def draw_balanced(engine: Engine, task: Task, rows: Sequence[Row], shots: int, seed: int) -> list[Row]:
    """``shots`` rows with labels in turn, as many as fit into half of the base's context."""
    return draw_examples(engine, task, rows, seed=seed, shots=shots)


DRAWS: dict[str, Draw] = {"random": draw_random, "balanced": draw_balanced}


def best_count(
    engine: Engine,
    task: Task,
    train: Sequence[Row],
    validation: Sequence[Row],
    output_tokens: int,
    *,
    draw: Draw,
    seed: int = 0,
    seconds: float | None = None,
) -> Chosen:
    """The k that is best on validation, each tried with one draw, fewest first, until ``seconds`` are spent.

    InputError where not even two examples fit beside a row.
    """
    rows, until = list(validation)[:CHOOSING_ROWS], None if seconds is None else time.monotonic() + seconds
    methods: dict[str, PromptedBase] = {}
    scores: dict[str, float] = {}
    for shots in COUNTS:
        examples = draw(engine, task, train, shots, seed)
        name = f"{len(examples)}-shot"
        if name in methods or not examples or not fits(engine, task, examples, output_tokens):
            continue
        methods[name] = with_prefix_read(few_shot(engine, task, examples, output_tokens))
        scores[name] = rank_method(methods[name], rows)[0]
        if until is not None and time.monotonic() > until:
            break
    if not methods:
        raise InputError(f"not one example fits beside a row into the {engine.base.context} tokens that the base reads.")
    best = max(scores, key=lambda name: scores[name])
    tried = ", ".join(f"{name}: {upward(task.metric, score):.3f}" for name, score in scores.items())
    return Chosen(name=best, method=methods[best], reason=f"best on {len(rows)} validation rows ({tried})")


@torch.no_grad()
def with_prefix_read(solver: PromptedBase) -> PromptedBase:
    """The same with what stands before every row as keys and values, computed once instead of once a batch."""
    first = not solver.template.segments[0] and len(solver.forms) == 1 and solver.forms[0].length > 0
    if solver.engine.plain or not first:
        return solver
    return solver.with_forms([solver.engine.key_values(form) for form in plain_forms(solver.forms, "a prefix")])
