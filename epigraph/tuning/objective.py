"""What tuning lowers and what it watches, for each kind of task.

classification   loss: mean over rows of w[label] · −log p(label)      watched: accuracy, or macro-F1 where skewed
generation       loss: mean over answer tokens of −log p(token)        watched: BLEU, exact match or ROUGE-L of greedy outputs
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from epigraph.engine.assembly import Prompts
from epigraph.methods.solver import PromptedBase
from epigraph.methods.watched import WATCHED_OUTPUTS, Watched, watch_answers, watch_labels
from epigraph.prompts import Form
from epigraph.tasks.row import Row


@runtime_checkable
class Objective(Protocol):
    """What the loop asks: lengths for the order, the loss of some training rows, the watched score of a prompt.

    ``weight`` is what the mean loss over rows divides by; ``rows_at_once`` how many of the rows of ``prompts`` prompts side
    by side one pass may take of each.
    """

    @property
    def lengths(self) -> Sequence[int]: ...
    @property
    def metric(self) -> str: ...
    def losses(self, chosen: Sequence[Sequence[int]], prompts: Prompts) -> list[Tensor]: ...
    def weight(self, rows: Sequence[int]) -> float: ...
    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int: ...
    def watch(self, forms: Sequence[Form]) -> Watched: ...


class LabelObjective:
    """Classification over the label trie."""

    def __init__(self, solver: PromptedBase, train: Sequence[Row], validation: Sequence[Row]) -> None:
        task = solver.task
        self.solver = solver
        self.metric = task.metric
        self.rows, self.held = solver.encode(train), solver.encode(validation)
        self.labels = [solver.tree.trie.index(row.target or "") for row in train]
        self.truth = [row.target or "" for row in validation]
        weights = task.class_weights() if task.skewed else {}
        self.weights = torch.tensor(
            [weights.get(label, 1.0) for label in solver.tree.trie.labels], device=solver.engine.base.device
        )
        self.lengths = [len(row.segments[0]) for row in self.rows]

    def weight(self, rows: Sequence[int]) -> float:
        """The sum of the rows' class weights."""
        return float(sum(self.weights[self.labels[i]] for i in rows))

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:
        """How many rows of each prompt fit into one pass."""
        return self.solver.engine.rows_at_once([self.rows[i] for i in rows], prompts)

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Prompts) -> list[Tensor]:
        """For each prompt the weighted mean over its rows, in nats: one pass for all of them."""
        rows = [self.rows[i] for each in chosen for i in each]
        labels = [self.labels[i] for each in chosen for i in each]
        losses = self.solver.engine.label_loss(rows, labels, prompts, self.solver.tree)
        weights = self.weights[torch.tensor(labels, device=losses.device)]
        parts = zip((losses * weights).chunk(len(prompts)), weights.chunk(len(prompts)), strict=True)
        return [part.sum() / weight.sum() for part, weight in parts]

    def watch(self, forms: Sequence[Form]) -> Watched:
        """The metric on validation, and the mean loss there."""
        return watch_labels(self.solver.with_forms(forms), self.held, self.truth)


class AnswerObjective:
    """Generation of the target after the template."""

    def __init__(self, solver: PromptedBase, train: Sequence[Row], validation: Sequence[Row]) -> None:
        self.solver = solver
        self.metric = solver.task.metric
        self.rows = solver.encode(train, answers=True)
        self.held = solver.encode(validation, answers=True)
        self.asked = solver.encode(validation[:WATCHED_OUTPUTS])
        self.references = [row.references or (row.target or "",) for row in validation[:WATCHED_OUTPUTS]]
        self.lengths = [row.length for row in self.rows]

    def weight(self, rows: Sequence[int]) -> float:
        """The rows' answer tokens."""
        return float(sum(len(self.rows[i].answer) for i in rows))

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:
        """How many rows of each prompt fit into one pass."""
        return self.solver.engine.rows_at_once([self.rows[i] for i in rows], prompts)

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Prompts) -> list[Tensor]:
        """For each prompt the mean over its rows' answer tokens, in nats: one pass for all of them."""
        sums, tokens = self.solver.engine.answer_loss([self.rows[i] for each in chosen for i in each], prompts)
        parts = zip(sums.chunk(len(prompts)), tokens.chunk(len(prompts)), strict=True)
        return [part.sum() / count.sum() for part, count in parts]

    def watch(self, forms: Sequence[Form]) -> Watched:
        """The metric of greedy outputs of at most 64 validation rows, and the mean loss of all."""
        return watch_answers(self.solver.with_forms(forms), self.held, self.asked, self.references)


def make_objective(solver: PromptedBase, train: Sequence[Row], validation: Sequence[Row]) -> Objective:
    """The objective of this task's kind."""
    kind = LabelObjective if solver.task.has_labels else AnswerObjective
    return kind(solver, train, validation)
