"""What tuning lowers and what it watches, for each kind of task.

classification   loss: mean over rows of w[label] · −log p(label)      watched: accuracy, or macro-F1 where skewed
ordinal          the same and Σ_k (P(rank ≤ k) − [y ≤ k])², k < C − 1  watched: accuracy, mean absolute error, kappa …
choice           loss: mean over rows of −log softmax(scores)[right]   watched: accuracy; a score is a likelihood a token
multilabel       loss: mean over rows and labels of −log p(verdict)    watched: F1 at the threshold that is best for it
generation       loss: mean over answer tokens of −log p(token)        watched: BLEU, exact match … of greedy outputs

The second term for labels with an order is the ranked probability score (Epstein 1969; squared earth mover's distance in
Hou et al. 2016, https://arxiv.org/abs/1611.05916): a far mistake costs more than a near one. It is a proper score, as
−log p is, so the true distribution is still what lowers their sum; the expected distance alone would draw all probability
to the median. ``OBJECTIVES`` has one entry a kind.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from epigraph import metrics
from epigraph.engine import choice_scores
from epigraph.engine.assembly import Asked
from epigraph.engine.choosing import rows_at_once as rows_with_choices
from epigraph.methods.scale import far_loss
from epigraph.methods.solver import PromptedBase
from epigraph.methods.watched import WATCHED_OUTPUTS, Watched, watch_answers, watch_choices, watch_labels, watch_sets
from epigraph.prompts import AnyForm
from epigraph.tasks.encode import Encoded
from epigraph.tasks.kinds import Kind
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
    def losses(self, chosen: Sequence[Sequence[int]], prompts: Asked) -> list[Tensor]: ...
    def weight(self, rows: Sequence[int]) -> float: ...
    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int: ...
    def watch(self, forms: Sequence[AnyForm]) -> Watched: ...


@runtime_checkable
class Divisible(Objective, Protocol):
    """An objective that can watch some of its validation rows only: what the folds of a cross-validation ask."""

    def watch_some(self, forms: Sequence[AnyForm], held: Sequence[int]) -> Watched: ...


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
        return self.solver.engine.rows_a_step([self.rows[i] for i in rows], prompts)

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Asked) -> list[Tensor]:
        """For each prompt the weighted mean over its rows, in nats: one pass for all of them."""
        rows = [self.rows[i] for each in chosen for i in each]
        labels = [self.labels[i] for each in chosen for i in each]
        losses = self._each(rows, labels, prompts)
        weights = self.weights[torch.tensor(labels, device=losses.device)]
        parts = zip((losses * weights).chunk(len(prompts)), weights.chunk(len(prompts)), strict=True)
        return [part.sum() / weight.sum() for part, weight in parts]

    def _each(self, rows: Sequence[Encoded], labels: Sequence[int], prompts: Asked) -> Tensor:
        return self.solver.engine.label_loss(rows, labels, prompts, self.solver.tree)

    def watch(self, forms: Sequence[AnyForm]) -> Watched:
        """The metric on validation, and the mean loss there."""
        return self.watch_some(forms, range(len(self.held)))

    def watch_some(self, forms: Sequence[AnyForm], held: Sequence[int]) -> Watched:
        """The same on some of the validation rows."""
        some, truth = [self.held[i] for i in held], [self.truth[i] for i in held]
        return watch_labels(self.solver.with_forms(forms), some, truth)


class ScaleObjective(LabelObjective):
    """Labels with an order: all their probabilities in one tree-masked pass."""

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:
        """How many rows of each prompt fit into one pass, the tree included."""
        return self.solver.engine.rows_a_step([self.rows[i] for i in rows], prompts, len(self.solver.tree.fed_tokens))

    def _each(self, rows: Sequence[Encoded], labels: Sequence[int], prompts: Asked) -> Tensor:
        tree = self.solver.tree
        return far_loss(tree.labels(self.solver.engine.node_scores(rows, prompts, tree)), labels)


class ChoiceObjective:
    """The right one of a row's own choices."""

    def __init__(self, solver: PromptedBase, train: Sequence[Row], validation: Sequence[Row]) -> None:
        self.solver, self.validation = solver, list(validation)
        self.metric = solver.task.metric
        self.rows, self.held = solver.encode(train), solver.encode(validation)
        self.right = [row.choices.index(row.target or "") for row in train]
        self.lengths = [row.length for row in self.rows]

    def weight(self, rows: Sequence[int]) -> float:
        """All rows count alike."""
        return float(len(rows))

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:
        """How many rows of each prompt fit into one pass, their choices' logits included."""
        return rows_with_choices(self.solver.engine, [self.rows[i] for i in rows], prompts)

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Asked) -> list[Tensor]:
        """For each prompt the mean over its rows, in nats: one pass for all of them."""
        scores = choice_scores(self.solver.engine, [self.rows[i] for each in chosen for i in each], prompts)
        right = torch.tensor([self.right[i] for each in chosen for i in each], device=scores.device)
        losses = torch.nn.functional.cross_entropy(scores, right, reduction="none")
        return [part.mean() for part in losses.chunk(len(prompts))]

    def watch(self, forms: Sequence[AnyForm]) -> Watched:
        """The accuracy on validation, and the mean loss there."""
        return self.watch_some(forms, range(len(self.held)))

    def watch_some(self, forms: Sequence[AnyForm], held: Sequence[int]) -> Watched:
        """The same on some of the validation rows."""
        some, rows = [self.held[i] for i in held], [self.validation[i] for i in held]
        return watch_choices(self.solver.with_forms(forms), some, rows)


class SetObjective:
    """A verdict on every label of every row."""

    def __init__(self, solver: PromptedBase, train: Sequence[Row], validation: Sequence[Row]) -> None:
        names = list(solver.task.labels)
        self.solver = solver
        self.metric = solver.task.metric
        self.rows, self.held = solver.encode(train), solver.encode(validation)
        marks = metrics.set_marks([row.labels for row in train], names)
        self.marks = torch.tensor(marks, dtype=torch.float32, device=solver.engine.base.device)
        self.truth = metrics.set_marks([row.labels for row in validation], names)
        self.lengths = [len(row.segments[0]) for row in self.rows]

    def weight(self, rows: Sequence[int]) -> float:
        """All rows count alike."""
        return float(len(rows))

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:
        """How many rows of each prompt fit into one pass, the questions included."""
        return self.solver.engine.rows_a_step([self.rows[i] for i in rows], prompts, len(self.solver.tree.fed_tokens))

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Asked) -> list[Tensor]:
        """For each prompt the mean over its rows and all labels, in nats: one pass for all of them."""
        numbers = [i for each in chosen for i in each]
        nodes = self.solver.engine.node_scores([self.rows[i] for i in numbers], prompts, self.solver.tree)
        marks = self.marks[torch.tensor(numbers, device=self.marks.device)]
        losses = binary_cross_entropy_with_logits(self.solver.log_odds(nodes), marks, reduction="none").mean(1)
        return [part.mean() for part in losses.chunk(len(prompts))]

    def watch(self, forms: Sequence[AnyForm]) -> Watched:
        """The metric on validation at its best threshold, and the mean loss there."""
        return self.watch_some(forms, range(len(self.held)))

    def watch_some(self, forms: Sequence[AnyForm], held: Sequence[int]) -> Watched:
        """The same on some of the validation rows."""
        return watch_sets(self.solver.with_forms(forms), [self.held[i] for i in held], self.truth[list(held)])


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
        return self.solver.engine.rows_a_step([self.rows[i] for i in rows], prompts)

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Asked) -> list[Tensor]:
        """For each prompt the mean over its rows' answer tokens, in nats: one pass for all of them."""
        sums, tokens = self.solver.engine.answer_loss([self.rows[i] for each in chosen for i in each], prompts)
        parts = zip(sums.chunk(len(prompts)), tokens.chunk(len(prompts)), strict=True)
        return [part.sum() / count.sum() for part, count in parts]

    def watch(self, forms: Sequence[AnyForm]) -> Watched:
        """The metric of greedy outputs of at most 64 validation rows, and the mean loss of all."""
        return self.watch_some(forms, range(len(self.held)))

    def watch_some(self, forms: Sequence[AnyForm], held: Sequence[int]) -> Watched:
        """The same on some of the validation rows."""
        asked = [i for i in held if i < len(self.asked)] or list(held)[:1]
        some, references = [self.asked[i] for i in asked], [self.references[i] for i in asked]
        return watch_answers(self.solver.with_forms(forms), [self.held[i] for i in held], some, references)


OBJECTIVES: Mapping[Kind, Callable[[PromptedBase, Sequence[Row], Sequence[Row]], Divisible]] = {
    "classification": LabelObjective,
    "ordinal": ScaleObjective,
    "choice": ChoiceObjective,
    "multilabel": SetObjective,
    "generation": AnswerObjective,
}


def make_objective(solver: PromptedBase, train: Sequence[Row], validation: Sequence[Row]) -> Divisible:
    """The objective of this task's kind."""
    return OBJECTIVES[solver.task.kind](solver, train, validation)
