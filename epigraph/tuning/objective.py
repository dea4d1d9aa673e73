"""What tuning lowers and what it watches, for each kind of task.

classification   loss: mean over rows of w[label] · −log p(label)      watched: accuracy, or macro-F1 where skewed
generation       loss: mean over answer tokens of −log p(token)        watched: BLEU, exact match or ROUGE-L of greedy outputs
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from epigraph import metrics
from epigraph.engine.assembly import Prompts
from epigraph.methods.solver import PromptedBase
from epigraph.prompts import Form
from epigraph.tasks.row import Row

WATCHED_OUTPUTS = 64


@dataclass(frozen=True, order=True)
class Watched:
    """A validation result; compared by score first, then by the lower loss."""

    score: float
    minus_loss: float


@runtime_checkable
class Objective(Protocol):
    """What the loop asks: lengths for the order, the loss of some training rows, the watched score of a prompt."""

    @property
    def lengths(self) -> Sequence[int]: ...
    @property
    def metric(self) -> str: ...
    def losses(self, chosen: Sequence[Sequence[int]], prompts: Prompts) -> list[Tensor]: ...
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
        scores = self.solver.engine.classify(self.held, forms, self.solver.tree).numpy()
        labels = self.solver.tree.trie.labels
        right = np.array([self.solver.tree.trie.index(t) for t in self.truth])
        predicted = [labels[i] for i in scores.argmax(1)]
        known = right >= 0
        loss = -scores[np.flatnonzero(known), right[known]].mean() if known.any() else 0.0
        return Watched(float(metrics.LABEL_SCORES[self.metric](self.truth, predicted)), -float(loss))


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

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Prompts) -> list[Tensor]:
        """For each prompt the mean over its rows' answer tokens, in nats: one pass for all of them."""
        sums, tokens = self.solver.engine.answer_loss([self.rows[i] for each in chosen for i in each], prompts)
        parts = zip(sums.chunk(len(prompts)), tokens.chunk(len(prompts)), strict=True)
        return [part.sum() / count.sum() for part, count in parts]

    @torch.no_grad()
    def watch(self, forms: Sequence[Form]) -> Watched:
        """The metric of greedy outputs of at most 64 validation rows, and the mean loss of all."""
        solver = self.solver
        batches = [[self.held[i] for i in batch] for batch in solver.engine.batches(self.held)]
        found = [solver.engine.answer_loss(batch, [forms]) for batch in batches]
        loss = float(sum(float(s.sum()) for s, _ in found) / max(1.0, sum(float(n.sum()) for _, n in found)))
        watched = PromptedBase(
            solver.engine, solver.task, forms, template=solver.template, output_tokens=solver.output_tokens
        )
        outputs = watched.encoded_outputs(self.asked)
        return Watched(float(metrics.ANSWER_SCORES[self.metric](outputs, self.references)), -loss)


def make_objective(solver: PromptedBase, train: Sequence[Row], validation: Sequence[Row]) -> Objective:
    """The objective of this task's kind."""
    kind = LabelObjective if solver.task.kind == "classification" else AnswerObjective
    return kind(solver, train, validation)
