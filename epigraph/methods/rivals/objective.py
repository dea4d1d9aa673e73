"""What a rival lowers: the house's own losses, by the stock forward over rows padded on the right.

    classification   mean over rows of w[label] · Σ over the branching nodes of the label's path of −log p(child)
    generation       mean over answer tokens of −log p(token)

Logits are computed at the positions that carry loss only; for labels over the rows of the head that some branching node
needs. Padding on the right is exact in a causal model, with no mask at all. Sources: as ``tasks/trie.py`` and
``tuning/objective.py`` have it; the losses of every method are the same.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from epigraph.base import Base
from epigraph.engine import Tree
from epigraph.engine.assembly import Prompts
from epigraph.methods.solver import PromptedBase
from epigraph.methods.watched import WATCHED_OUTPUTS, Watched, watch_answers, watch_labels
from epigraph.prompts import Form
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row


@runtime_checkable
class Trainee(Protocol):
    """What is asked of a rival: its base, its encoded task, logits with gradient, and a solver to be watched."""

    @property
    def base(self) -> Base: ...
    @property
    def solver(self) -> PromptedBase: ...
    def logits_at(self, ids: Tensor, row: Tensor, column: Tensor, tokens: Sequence[int] | None = None) -> Tensor: ...
    def scoring(self) -> AbstractContextManager[PromptedBase]: ...


class LabelLoss:
    """Classification over the label trie."""

    def __init__(self, rival: Trainee, train: Sequence[Row], validation: Sequence[Row]) -> None:
        solver, task = rival.solver, rival.solver.task
        self.rival, self.tree, self.metric = rival, solver.tree, task.metric
        rows, self.held = solver.encode(train), solver.encode(validation)
        self.truth = [row.target or "" for row in validation]
        self.labels = [self.tree.trie.index(row.target or "") for row in train]
        spoken = [self.tree.trie.spoken(label) for label in self.labels]
        self.texts = [[*row.segments[-1], *words] for row, words in zip(rows, spoken, strict=True)]
        self.decisions = [decisions(row, label, self.tree) for row, label in zip(rows, self.labels, strict=True)]
        self.lengths = [len(text) for text in self.texts]
        weights = task.class_weights() if task.skewed else {}
        self.weights = torch.tensor([weights.get(label, 1.0) for label in self.tree.trie.labels], device=rival.base.device)

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Prompts) -> list[Float[Tensor, ""]]:  # noqa: ARG002
        """The weighted mean over the rows of the one rival there is, in nats."""
        (rows,) = chosen
        losses = self.each(rows)
        weights = self.weights[torch.tensor([self.labels[i] for i in rows], device=losses.device)]
        return [(losses * weights).sum() / weights.sum()]

    def weight(self, rows: Sequence[int]) -> float:
        """The sum of the rows' class weights."""
        return float(sum(self.weights[self.labels[i]] for i in rows))

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:  # noqa: ARG002
        """All of them: a practitioner chooses a batch that fits."""
        return len(rows)

    def each(self, chosen: Sequence[int]) -> Float[Tensor, "B"]:
        """−log p(label) of every row in nats."""
        device, tree = self.rival.base.device, self.tree
        places = [(b, *decision) for b, i in enumerate(chosen) for decision in self.decisions[i]]
        row, column, node, child = torch.tensor(places, device=device).T
        ids = pad_right([self.texts[i] for i in chosen], device)
        logits = self.rival.logits_at(ids, row, column, tree.trie.tokens)
        taken = tree.children(logits, node).gather(1, child[:, None])[:, 0]
        return -torch.zeros(len(chosen), device=device).index_add(0, row, taken)

    def watch(self, forms: Sequence[Form]) -> Watched:  # noqa: ARG002 (the rival has them)
        """The metric on validation, and the mean loss there."""
        with self.rival.scoring() as solver:
            return watch_labels(solver, self.held, self.truth)


class AnswerLoss:
    """Generation of the target after the template."""

    def __init__(self, rival: Trainee, train: Sequence[Row], validation: Sequence[Row]) -> None:
        solver = rival.solver
        self.rival, self.metric = rival, solver.task.metric
        self.rows = solver.encode(train, answers=True)
        self.held = solver.encode(validation, answers=True)
        self.asked = solver.encode(validation[:WATCHED_OUTPUTS])
        self.references = [row.references or (row.target or "",) for row in validation[:WATCHED_OUTPUTS]]
        self.lengths = [row.length for row in self.rows]

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Prompts) -> list[Float[Tensor, ""]]:  # noqa: ARG002
        """The mean over the answer tokens of the one rival's rows, in nats."""
        (numbers,) = chosen
        rows, device = [self.rows[i] for i in numbers], self.rival.base.device
        places = [
            (b, len(row.segments[-1]) - 1 + at, token) for b, row in enumerate(rows) for at, token in enumerate(row.answer)
        ]
        row, column, token = torch.tensor(places, device=device).T
        ids = pad_right([[*row.segments[-1], *row.answer[:-1]] for row in rows], device)
        return [cross_entropy(self.rival.logits_at(ids, row, column), token)]

    def weight(self, rows: Sequence[int]) -> float:
        """The rows' answer tokens."""
        return float(sum(len(self.rows[i].answer) for i in rows))

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:  # noqa: ARG002
        """All of them: a practitioner chooses a batch that fits."""
        return len(rows)

    def watch(self, forms: Sequence[Form]) -> Watched:  # noqa: ARG002 (the rival has them)
        """The metric of greedy outputs of at most 64 validation rows, and the mean loss of all."""
        with self.rival.scoring() as solver:
            return watch_answers(solver, self.held, self.asked, self.references)


Loss = LabelLoss | AnswerLoss


def make_loss(rival: Trainee, train: Sequence[Row], validation: Sequence[Row]) -> Loss:
    """The objective of this task's kind."""
    kind = LabelLoss if rival.solver.task.has_labels else AnswerLoss
    return kind(rival, train, validation)


def decisions(row: Encoded, label: int, tree: Tree) -> list[tuple[int, int, int]]:
    """For every branching node on the label's path: the column whose state decides, the node's number, the child's."""
    trie, start = tree.trie, len(row.segments[-1]) - 1
    return [
        (start + trie.nodes[node].depth, trie.branching.index(node), list(trie.nodes[node].children).index(token))
        for node, token in trie.decisions(label)
    ]


def pad_right(texts: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, "B T"]:
    """Token ids padded to the longest; what stands in the padding is never read."""
    width = max(map(len, texts))
    return torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=device)
