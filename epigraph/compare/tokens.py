"""How many tokens a method adds to a request: all that the base reads of a row, less what it reads of the bare row.

    added = mean over rows of (tokens of the encoded row + vectors of the prompt) − mean over rows of the bare template's tokens

The bare template is the task's own, so that a row that is read twice counts twice, and a shorter template of one's own may add
less than nothing.
"""

from collections.abc import Sequence

import torch

from epigraph.compare.method import Job
from epigraph.methods.solver import PromptedBase
from epigraph.prompts import Embedded
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

ROWS = 32


def added_tokens(job: Job, method: PromptedBase) -> int:
    """The tokens that this method adds, rounded; the mean over some validation rows."""
    rows = list(job.validation)[:ROWS]
    vectors = sum(form.length for form in method.forms)
    return round(_mean_length(method, rows) + vectors - _mean_length(without_prompt(job, job.task), rows))


def without_prompt(job: Job, task: Task) -> PromptedBase:
    """The base that reads a row as this task's template says it, with nothing where the prompt stands."""
    empty = Embedded(torch.zeros(0, job.engine.base.hidden))
    return PromptedBase(job.engine, task, [empty] * task.template.blocks, output_tokens=job.output_tokens)


def _mean_length(method: PromptedBase, rows: Sequence[Row]) -> float:
    return sum(row.length for row in method.encode(rows)) / max(1, len(rows))
