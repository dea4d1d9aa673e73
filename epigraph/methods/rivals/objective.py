"""What a rival lowers: the house's own losses, by the stock forward over rows padded on the right.

    classification   mean over rows of w[label] · Σ over the branching nodes of the label's path of −log p(child)
    ordinal          the same and the ranked probability score
    choice           mean over rows of −log softmax(likelihood a token of every choice)[right]
    multilabel       mean over rows and labels of −log p(verdict)
    generation       mean over answer tokens of −log p(token)

Where several answers hang on a row, it is read anew with each, as stock attention knows no tree. Logits are computed at
the positions that carry loss only; for labels over the rows of the head that some branching node needs. Padding on the
right is exact in a causal model, with no mask at all. Sources: as ``tasks/trie.py`` and ``tuning/objective.py`` have it;
the losses of every method are the same.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from epigraph import metrics
from epigraph.base import Base
from epigraph.engine import Tree
from epigraph.engine.assembly import Asked
from epigraph.engine.concatenation import label_chains
from epigraph.methods.scale import far_loss
from epigraph.methods.solver import PromptedBase
from epigraph.methods.watched import WATCHED_OUTPUTS, Watched, watch_answers, watch_choices, watch_labels, watch_sets
from epigraph.prompts import AnyForm
from epigraph.tasks.encode import Encoded
from epigraph.tasks.kinds import Kind
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

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Asked) -> list[Float[Tensor, ""]]:  # noqa: ARG002
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

    def watch(self, forms: Sequence[AnyForm]) -> Watched:  # noqa: ARG002 (the rival has them)
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

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Asked) -> list[Float[Tensor, ""]]:  # noqa: ARG002
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

    def watch(self, forms: Sequence[AnyForm]) -> Watched:  # noqa: ARG002 (the rival has them)
        """The metric of greedy outputs of at most 64 validation rows, and the mean loss of all."""
        with self.rival.scoring() as solver:
            return watch_answers(solver, self.held, self.asked, self.references)


class ScaleLoss(LabelLoss):
    """Labels with an order: the probabilities of all of them."""

    def __init__(self, rival: Trainee, train: Sequence[Row], validation: Sequence[Row]) -> None:
        super().__init__(rival, train, validation)
        self.encoded = rival.solver.encode(train)

    def each(self, chosen: Sequence[int]) -> Float[Tensor, "B"]:
        """−log p(label) and the ranked probability score of every row."""
        nodes = node_scores(self.rival, [self.encoded[i] for i in chosen], self.tree)
        return far_loss(self.tree.labels(nodes), [self.labels[i] for i in chosen])


class ChoiceLoss:
    """The right one of a row's own choices."""

    def __init__(self, rival: Trainee, train: Sequence[Row], validation: Sequence[Row]) -> None:
        solver = rival.solver
        self.rival, self.metric, self.validation = rival, solver.task.metric, list(validation)
        self.rows, self.held = solver.encode(train), solver.encode(validation)
        self.right = [row.choices.index(row.target or "") for row in train]
        self.lengths = [row.length for row in self.rows]

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Asked) -> list[Float[Tensor, ""]]:  # noqa: ARG002
        """The mean over the one rival's rows, in nats."""
        (numbers,) = chosen
        rows, device = [self.rows[i] for i in numbers], self.rival.base.device
        pairs = [(b, number, tokens) for b, row in enumerate(rows) for number, tokens in enumerate(row.choices)]
        places = [
            (i, len(rows[b].segments[-1]) - 1 + at, token, i)
            for i, (b, _, tokens) in enumerate(pairs)
            for at, token in enumerate(tokens)
        ]
        row, column, token, pair = torch.tensor(places, device=device).T
        ids = pad_right([[*rows[b].segments[-1], *tokens[:-1]] for b, _, tokens in pairs], device)
        said = -cross_entropy(self.rival.logits_at(ids, row, column), token, reduction="none")
        counts = torch.tensor([float(len(tokens)) for _, _, tokens in pairs], device=device)
        means = torch.zeros(len(pairs), device=device).index_add(0, pair, said) / counts
        scores = torch.full((len(rows), max(len(r.choices) for r in rows)), float("-inf"), device=device)
        at_row, at_choice = (torch.tensor([pair[i] for pair in pairs], device=device) for i in (0, 1))
        scores = scores.index_put((at_row, at_choice), means)
        return [cross_entropy(scores, torch.tensor([self.right[i] for i in numbers], device=device))]

    def weight(self, rows: Sequence[int]) -> float:
        """All rows count alike."""
        return float(len(rows))

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:  # noqa: ARG002
        """All of them: a practitioner chooses a batch that fits."""
        return len(rows)

    def watch(self, forms: Sequence[AnyForm]) -> Watched:  # noqa: ARG002 (the rival has them)
        """The accuracy on validation, and the mean loss there."""
        with self.rival.scoring() as solver:
            return watch_choices(solver, self.held, self.validation)


class SetLoss:
    """A verdict on every label of every row."""

    def __init__(self, rival: Trainee, train: Sequence[Row], validation: Sequence[Row]) -> None:
        solver = rival.solver
        names = list(solver.task.labels)
        self.rival, self.metric = rival, solver.task.metric
        self.rows, self.held = solver.encode(train), solver.encode(validation)
        marks = metrics.set_marks([row.labels for row in train], names)
        self.marks = torch.tensor(marks, dtype=torch.float32, device=rival.base.device)
        self.truth = metrics.set_marks([row.labels for row in validation], names)
        self.lengths = [row.length for row in self.rows]

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Asked) -> list[Float[Tensor, ""]]:  # noqa: ARG002
        """The mean over the one rival's rows and all labels, in nats."""
        (numbers,) = chosen
        solver = self.rival.solver
        odds = solver.log_odds(node_scores(self.rival, [self.rows[i] for i in numbers], solver.tree))
        return [binary_cross_entropy_with_logits(odds, self.marks[torch.tensor(list(numbers), device=odds.device)])]

    def weight(self, rows: Sequence[int]) -> float:
        """All rows count alike."""
        return float(len(rows))

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:  # noqa: ARG002
        """All of them: a practitioner chooses a batch that fits."""
        return len(rows)

    def watch(self, forms: Sequence[AnyForm]) -> Watched:  # noqa: ARG002 (the rival has them)
        """The metric on validation at its best threshold, and the mean loss there."""
        with self.rival.scoring() as solver:
            return watch_sets(solver, self.held, self.truth)


Loss = LabelLoss | AnswerLoss | ChoiceLoss | SetLoss
LOSSES: Mapping[Kind, Callable[[Trainee, Sequence[Row], Sequence[Row]], Loss]] = {
    "classification": LabelLoss,
    "ordinal": ScaleLoss,
    "choice": ChoiceLoss,
    "multilabel": SetLoss,
    "generation": AnswerLoss,
}


def make_loss(rival: Trainee, train: Sequence[Row], validation: Sequence[Row]) -> Loss:
    """The objective of this task's kind."""
    return LOSSES[rival.solver.task.kind](rival, train, validation)


def node_scores(rival: Trainee, rows: Sequence[Encoded], tree: Tree) -> Float[Tensor, "B X M"]:
    """log softmax over the children of every branching node for every row, rows × chains in one padded batch."""
    chains, device = label_chains(tree.trie), rival.base.device
    pairs = [(b, one) for b in range(len(rows)) for one in chains]
    places = [
        (i, len(rows[b].segments[-1]) - 1 + depth, b, node) for i, (b, one) in enumerate(pairs) for depth, node in one.reads
    ]
    at, column, row, node = torch.tensor(places, device=device).T
    ids = pad_right([[*rows[b].segments[-1], *one.tokens] for b, one in pairs], device)
    children = tree.children(rival.logits_at(ids, at, column, tree.trie.tokens), node)
    empty = torch.zeros(len(rows), *tree.columns.shape, device=device)
    return empty.index_put((row, node), children)


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
