"""The old prompt as the teacher of the new one: what it said to the texts whose answers shall stay.

    KL(p_old ‖ p_new) = Σ_c p_old(c) · (log p_old(c) − log p_new(c))        meaned over texts, in nats

    classification, ordinal   c: the labels           choice       c: the row's own choices
    multilabel                c: yes and no, meaned   generation   c: every token, meaned over those that the old prompt wrote

Source: Hinton et al. 2015, section 2, https://arxiv.org/abs/1503.02531, used on new inputs to keep old answers as Li & Hoiem 2016
do, section 3, https://arxiv.org/abs/1606.09282. Differs: temperature 1, since the answers themselves shall stay. What the old
prompt says is computed once; of written answers its last states are kept, which are smaller than their distributions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from epigraph.engine import Engine, choice_scores, generate
from epigraph.engine.choosing import choose
from epigraph.engine.choosing import rows_at_once as rows_with_choices
from epigraph.engine.stream import Tail
from epigraph.methods.solver import PromptedBase
from epigraph.prompts import AnyForm
from epigraph.tasks.encode import Encoded
from epigraph.tasks.kinds import Kind
from epigraph.tasks.row import Row

ROWS = 32  # whose states are computed at once
LOGITS = 4096  # rows of the whole vocabulary in one step


@runtime_checkable
class Teacher(Protocol):
    """What the old prompt said to some rows. ``at_once`` is how many of them one pass with gradient may take."""

    @property
    def lengths(self) -> Sequence[int]: ...
    @property
    def at_once(self) -> int: ...
    def divergence(self, chosen: Sequence[int], forms: Sequence[AnyForm]) -> Float[Tensor, ""]: ...


class LabelTeacher:
    """One label: the divergence over all of them."""

    def __init__(self, solver: PromptedBase, rows: Sequence[Row]) -> None:
        self.solver, self.rows = solver, solver.encode(rows)
        self.told = solver.engine.classify(self.rows, solver.forms, solver.tree)
        self.lengths = [row.length for row in self.rows]

    @property
    def at_once(self) -> int:
        """Rows a pass, the tree of labels included."""
        return self.solver.engine.rows_at_once(self.rows, 1, len(self.solver.tree.fed_tokens)) if self.rows else 1

    def divergence(self, chosen: Sequence[int], forms: Sequence[AnyForm]) -> Float[Tensor, ""]:
        """The mean over these rows, in nats."""
        tree = self.solver.tree
        ours = tree.labels(self.solver.engine.node_scores([self.rows[i] for i in chosen], [forms], tree))
        return _divergence(self.told[list(chosen)].to(ours), ours)


class SetTeacher:
    """Labels each by itself: the mean divergence of the verdicts."""

    def __init__(self, solver: PromptedBase, rows: Sequence[Row]) -> None:
        self.solver, self.rows = solver, solver.encode(rows)
        self.told = solver.log_odds(solver.engine.decide(self.rows, solver.forms, solver.tree))
        self.lengths = [row.length for row in self.rows]

    @property
    def at_once(self) -> int:
        """Rows a pass, the questions included."""
        return self.solver.engine.rows_at_once(self.rows, 1, len(self.solver.tree.fed_tokens)) if self.rows else 1

    def divergence(self, chosen: Sequence[int], forms: Sequence[AnyForm]) -> Float[Tensor, ""]:
        """The mean over these rows and all labels, in nats."""
        nodes = self.solver.engine.node_scores([self.rows[i] for i in chosen], [forms], self.solver.tree)
        ours = self.solver.log_odds(nodes)
        told = self.told[list(chosen)].to(ours)
        yes = torch.sigmoid(told)
        return binary_cross_entropy_with_logits(ours, yes) - binary_cross_entropy_with_logits(told, yes)


class ChoiceTeacher:
    """A row's own choices."""

    def __init__(self, solver: PromptedBase, rows: Sequence[Row]) -> None:
        self.solver, self.rows = solver, solver.encode(rows)
        self.told = torch.log_softmax(choose(solver.engine, self.rows, solver.forms), -1)
        self.lengths = [row.length for row in self.rows]

    @property
    def at_once(self) -> int:
        """Rows a pass, the logits of their choices included."""
        return rows_with_choices(self.solver.engine, self.rows, 1) if self.rows else 1

    def divergence(self, chosen: Sequence[int], forms: Sequence[AnyForm]) -> Float[Tensor, ""]:
        """The mean over these rows, in nats."""
        scores = choice_scores(self.solver.engine, [self.rows[i] for i in chosen], [forms])
        ours = torch.log_softmax(scores, -1)
        return _divergence(self.told[list(chosen), : ours.shape[1]].to(ours), ours)


class AnswerTeacher:
    """Written answers: at every token of what the old prompt wrote, the divergence over the vocabulary."""

    def __init__(self, solver: PromptedBase, rows: Sequence[Row]) -> None:
        self.solver = solver
        asked = solver.encode(rows)
        limit, end = solver.output_tokens, solver.engine.base.end
        written = generate(solver.engine, asked, solver.forms, limit, solver.task.stop)
        self.rows = [
            Encoded(row.segments, tuple([*ids, end][:limit]), row.truncated, row.lead)
            for row, ids in zip(asked, written, strict=True)
        ]
        self.lengths = [row.length for row in self.rows]
        self.told = self._states(solver.forms)

    @property
    def at_once(self) -> int:
        """Rows a pass, the logits of their tokens included."""
        if not self.rows:
            return 1
        longest = max(len(row.answer) for row in self.rows)
        return max(1, min(self.solver.engine.rows_at_once(self.rows, 1), LOGITS // longest))

    @torch.no_grad()
    def _states(self, forms: Sequence[AnyForm]) -> list[Float[Tensor, "X H"]]:
        found: list[Float[Tensor, "X H"]] = []
        for start in range(0, len(self.rows), ROWS):
            rows = self.rows[start : start + ROWS]
            states = answer_states(self.solver.engine, rows, forms).float().cpu()
            found += list(torch.split(states, [len(row.answer) for row in rows]))
        return found

    def divergence(self, chosen: Sequence[int], forms: Sequence[AnyForm]) -> Float[Tensor, ""]:
        """The mean over these rows' tokens, in nats."""
        engine = self.solver.engine
        hidden = answer_states(engine, [self.rows[i] for i in chosen], forms)
        ours = torch.log_softmax(engine.trunk.logits(hidden), -1)
        with torch.no_grad():
            theirs = torch.cat([self.told[i] for i in chosen]).to(hidden)
            told = torch.log_softmax(engine.trunk.logits(theirs), -1)
        return _divergence(told, ours)


def answer_states(engine: Engine, rows: Sequence[Encoded], forms: Sequence[AnyForm]) -> Float[Tensor, "X H"]:
    """The last states from which each token of these rows' answers is said, one row's after another's."""
    done = engine.forward(rows, forms, Tail([row.answer[:-1] for row in rows]))
    places = [(b, int(done.stream.ends[b]) - 1 + i) for b, row in enumerate(rows) for i in range(len(row.answer))]
    row, column = torch.tensor(places, device=done.hidden.device).T
    return done.at(row, column)


def _divergence(told: Float[Tensor, "B C"], ours: Float[Tensor, "B C"]) -> Float[Tensor, ""]:
    """KL(told ‖ ours) from log probabilities; −inf in both where a row has no such choice."""
    there = torch.isfinite(told)
    apart = torch.where(there, told, 0.0) - torch.where(there, ours, 0.0)
    return (told.exp() * apart).sum(1).mean()


TEACHERS: Mapping[Kind, Callable[[PromptedBase, Sequence[Row]], Teacher]] = {
    "classification": LabelTeacher,
    "ordinal": LabelTeacher,
    "choice": ChoiceTeacher,
    "multilabel": SetTeacher,
    "generation": AnswerTeacher,
}


def ask_teacher(solver: PromptedBase, rows: Sequence[Row]) -> Teacher:
    """What this prompt says to these rows."""
    return TEACHERS[solver.task.kind](solver, rows)
