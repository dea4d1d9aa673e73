"""By how much a prompt gives a wanted answer: one number a row, positive where it does, whatever the kind of task.

    classification, ordinal   log p(wanted) − log p of the strongest other label
    ordinal by its median     the smaller of logit P(rank ≤ wanted) and −logit P(rank < wanted)
    choice                    score of the wanted choice − that of the strongest other one
    multilabel                the smallest of all labels' log odds, towards the wanted verdict, from the threshold on
    generation                the smallest over the wanted tokens of log p(token) − log p of the strongest other token

All in nats, with gradient, for prompts side by side: one prompt for all rows, or one for each.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph import metrics
from epigraph.engine import choice_scores, generate
from epigraph.engine.assembly import Asked
from epigraph.engine.choosing import rows_at_once as rows_with_choices
from epigraph.engine.stream import Tail
from epigraph.methods.judge import Answer
from epigraph.methods.solver import PromptedBase
from epigraph.prompts import Form
from epigraph.tasks.encode import Encoded
from epigraph.tasks.kinds import Kind
from epigraph.tasks.row import Row

MOST_ROWS = 64
LOGITS = 4096  # rows of the whole vocabulary in one pass
LEAST = 1e-6  # probability


@runtime_checkable
class Margins(Protocol):
    """Rows with wanted answers. ``at_once`` is how many of them one pass with gradient may take."""

    @property
    def rows(self) -> Sequence[Encoded]: ...
    @property
    def at_once(self) -> int: ...
    def of(self, chosen: Sequence[int], prompts: Asked) -> Float[Tensor, "B"]: ...


def parts(margins: Margins) -> list[range]:
    """The numbers of all rows, as many at a time as one pass with gradient may take."""
    everyone = range(len(margins.rows))
    return [everyone[i : i + margins.at_once] for i in range(0, len(everyone), margins.at_once)]


def margins_of_all(margins: Margins, forms: Sequence[Form]) -> Float[Tensor, "N"]:
    """The margin of every row with one prompt, with gradient."""
    return torch.cat([margins.of(part, [forms]) for part in parts(margins)])


class LabelMargins:
    """One label a row."""

    def __init__(self, solver: PromptedBase, rows: Sequence[Row], wanted: Sequence[Answer]) -> None:
        labels = list(solver.task.labels)
        self.solver, self.rows = solver, solver.encode(rows)
        self.wanted = torch.tensor([labels.index(str(answer)) for answer in wanted])
        self.bias = torch.tensor(solver.shift.bias if solver.shift is not None else [0.0] * len(labels))
        self.median = solver.task.metric in metrics.RANK_SCORES

    @property
    def at_once(self) -> int:
        """Rows a pass, the tree of labels included."""
        return _at_once(self.solver, self.rows)

    def of(self, chosen: Sequence[int], prompts: Asked) -> Float[Tensor, "B"]:
        """The margins of these rows."""
        tree = self.solver.tree
        scores = tree.labels(self.solver.engine.node_scores([self.rows[i] for i in chosen], prompts, tree))
        scores = torch.log_softmax(scores + self.bias.to(scores), -1)
        wanted = self.wanted[list(chosen)].to(scores.device)
        return _median_margin(scores, wanted) if self.median else _margin(scores, wanted)


class SetMargins:
    """Any number of labels a row."""

    def __init__(self, solver: PromptedBase, rows: Sequence[Row], wanted: Sequence[Answer]) -> None:
        labels = list(solver.task.labels)
        self.solver, self.rows = solver, solver.encode(rows)
        marks = metrics.set_marks([tuple(answer) if isinstance(answer, tuple) else () for answer in wanted], labels)
        self.towards = torch.tensor(marks, dtype=torch.float32) * 2 - 1
        self.bias = torch.tensor(solver.shift.bias if solver.shift is not None else [0.0] * len(labels))
        threshold = min(max(solver.task.threshold, LEAST), 1 - LEAST)
        self.from_here = math.log(threshold) - math.log1p(-threshold)

    @property
    def at_once(self) -> int:
        """Rows a pass, the questions included."""
        return _at_once(self.solver, self.rows)

    def of(self, chosen: Sequence[int], prompts: Asked) -> Float[Tensor, "B"]:
        """The margins of these rows."""
        nodes = self.solver.engine.node_scores([self.rows[i] for i in chosen], prompts, self.solver.tree)
        odds = self.solver.log_odds(nodes)
        found: Tensor = (odds + self.bias.to(odds) - self.from_here) * self.towards[list(chosen)].to(odds)
        return found.min(1).values


class ChoiceMargins:
    """A row's own choices."""

    def __init__(self, solver: PromptedBase, rows: Sequence[Row], wanted: Sequence[Answer]) -> None:
        self.solver, self.rows = solver, solver.encode(rows)
        self.wanted = torch.tensor([row.choices.index(str(answer)) for row, answer in zip(rows, wanted, strict=True)])

    @property
    def at_once(self) -> int:
        """Rows a pass, the logits of their choices included."""
        return max(1, min(MOST_ROWS, rows_with_choices(self.solver.engine, self.rows, 1))) if self.rows else 1

    def of(self, chosen: Sequence[int], prompts: Asked) -> Float[Tensor, "B"]:
        """The margins of these rows."""
        scores = choice_scores(self.solver.engine, [self.rows[i] for i in chosen], prompts)
        return _margin(scores, self.wanted[list(chosen)].to(scores.device))


class AnswerMargins:
    """A text to be written; of the wanted one the weakest token."""

    def __init__(self, solver: PromptedBase, rows: Sequence[Row], wanted: Sequence[Answer]) -> None:
        self.solver = solver
        targets = [Row(fields=row.fields, target=str(answer)) for row, answer in zip(rows, wanted, strict=True)]
        self.rows = solver.encode(targets, answers=True)

    @property
    def at_once(self) -> int:
        """Rows a pass, the logits of their tokens included."""
        if not self.rows:
            return 1
        longest = max(len(row.answer) for row in self.rows)
        return max(1, min(MOST_ROWS, self.solver.engine.rows_at_once(self.rows, 1), LOGITS // longest))

    def of(self, chosen: Sequence[int], prompts: Asked) -> Float[Tensor, "B"]:
        """The margins of these rows."""
        rows, engine = [self.rows[i] for i in chosen], self.solver.engine
        done = engine.forward_side_by_side(rows, prompts, Tail([row.answer[:-1] for row in rows]))
        places = [
            (b, int(done.stream.ends[b]) - 1 + i, token) for b, row in enumerate(rows) for i, token in enumerate(row.answer)
        ]
        row, column, token = torch.tensor(places, device=done.hidden.device).T
        each = _margin(engine.trunk.logits(done.at(row, column)), token)
        return torch.stack([part.min() for part in torch.split(each, [len(one.answer) for one in rows])])


class WrittenMargins(AnswerMargins):
    """The text that the prompt itself writes, token by token as it wrote it."""

    def __init__(self, solver: PromptedBase, rows: Sequence[Row]) -> None:
        self.solver = solver
        asked, limit = solver.encode(rows), solver.output_tokens
        written = generate(solver.engine, asked, solver.forms, limit, solver.task.stop)
        ended = [tuple([*ids, solver.engine.base.end][:limit]) for ids in written]
        self.rows = [Encoded(row.segments, ids, row.truncated, row.lead) for row, ids in zip(asked, ended, strict=True)]


def _at_once(solver: PromptedBase, rows: Sequence[Encoded]) -> int:
    if not rows:
        return 1
    return max(1, min(MOST_ROWS, solver.engine.rows_at_once(rows, 1, len(solver.tree.fed_tokens))))


def _margin(scores: Float[Tensor, "B C"], wanted: Tensor) -> Float[Tensor, "B"]:
    own = torch.nn.functional.one_hot(wanted, scores.shape[1]).bool()
    found: Tensor = scores.gather(1, wanted[:, None])[:, 0] - scores.masked_fill(own, float("-inf")).max(1).values
    return found


def _median_margin(scores: Float[Tensor, "B C"], wanted: Tensor) -> Float[Tensor, "B"]:
    """How far the median is inside the wanted rank."""
    below = scores.exp().cumsum(1).clamp(LEAST, 1 - LEAST)
    odds = torch.nn.functional.pad(torch.logit(below), (1, 0), value=-math.log(1 / LEAST))
    odds = torch.cat([odds[:, :-1], odds.new_full((len(odds), 1), math.log(1 / LEAST))], 1)
    at_most, less = odds.gather(1, wanted[:, None] + 1)[:, 0], odds.gather(1, wanted[:, None])[:, 0]
    return torch.minimum(at_most, -less)


MARGINS: Mapping[Kind, Callable[[PromptedBase, Sequence[Row], Sequence[Answer]], Margins]] = {
    "classification": LabelMargins,
    "ordinal": LabelMargins,
    "choice": ChoiceMargins,
    "multilabel": SetMargins,
    "generation": AnswerMargins,
}


def wanted_margins(solver: PromptedBase, rows: Sequence[Row]) -> Margins:
    """Towards what the rows say is right."""
    sets = solver.task.knows_labels and not solver.task.has_labels
    return MARGINS[solver.task.kind](solver, rows, [row.labels if sets else row.target or "" for row in rows])


def kept_margins(solver: PromptedBase, rows: Sequence[Row], given: Sequence[Answer]) -> Margins:
    """Towards the answers that this prompt gives."""
    return WrittenMargins(solver, rows) if solver.task.writes else MARGINS[solver.task.kind](solver, rows, given)
