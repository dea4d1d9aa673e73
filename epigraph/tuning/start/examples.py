"""First values from training rows: the few-shot context that a hard prompt would be.

    [instruction] [example 1] [answer 1] … [example k] [answer k]        at most P tokens, whole examples only

Labels come in turn, so that none is missing that fits. Examples and answers are tokenised apart, as rows are, so that every
token is known as an answer's or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.methods.hard import GAP, draw_examples, shown_example
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

MOST_EXAMPLES = 64
INSTRUCTION_SHARE = 0.5  # of the tokens; a longer instruction is left out


@dataclass(frozen=True)
class Context:
    """The tokens of a few-shot context, and which of them are answers."""

    ids: list[int]
    answers: list[bool]


def draw_context(engine: Engine, task: Task, rows: Sequence[Row], *, length: int, seed: int) -> Context:
    """At most ``length`` tokens of examples drawn from ``rows``. ConfigError where not even one fits."""
    base = engine.base
    instruction = base.tokenize(task.instruction + GAP)
    ids = instruction if len(instruction) <= INSTRUCTION_SHARE * length else []
    answers = [False] * len(ids)
    shown = 0
    for row in draw_examples(engine, task, rows, seed=seed, shots=MOST_EXAMPLES):
        body, answer = (base.tokenize(text) for text in shown_example(task, row))
        gap = base.tokenize(GAP)
        if len(ids) + len(body) + len(answer) + len(gap) <= length:
            ids = [*ids, *body, *answer, *gap]
            answers += [False] * len(body) + [True] * len(answer) + [False] * len(gap)
            shown += 1
    if not shown:
        raise ConfigError(
            f"start 'examples' was asked, but no training row fits into {length} vectors.", "Ask for a larger --length."
        )
    return Context(ids, answers)
