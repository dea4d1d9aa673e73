"""One task among several that share a pass: where its loss stands, what its teacher said there.

    L_k = −log p(target)  +  λ · (KL(p_teacher ‖ p_student) + ‖h_student − h_teacher‖² / ‖h_teacher‖²)

summed over the places of a row where something is decided (branching nodes of its label, or tokens of its answer), meaned over
rows. Source: Wang et al. 2023, section 3.2, https://arxiv.org/abs/2303.02861. Differs: h is the base's last state at these places,
in units of the teacher's; the teacher never changes, so its states are computed once for every row and kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.engine import Tree
from epigraph.engine.engine import Pass
from epigraph.engine.stream import Tail
from epigraph.methods import PromptedBase
from epigraph.prompts import AnyForm
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row
from epigraph.tuning.objective import AnswerObjective, LabelObjective, make_objective

TEACHER_ROWS = 32


@dataclass(frozen=True)
class Places:
    """Where rows decide: row of the batch, tokens behind the row's last segment, and what is right there."""

    row: Tensor
    behind: Tensor
    node: Tensor
    right: Tensor


class Lesson:
    """A task with its rows, its objective, and its teacher's states."""

    def __init__(self, name: str, solver: PromptedBase, train: Sequence[Row], validation: Sequence[Row]) -> None:
        self.name, self.solver = name, solver
        found = make_objective(solver, train, validation)
        assert isinstance(found, (LabelObjective, AnswerObjective))
        self.objective = found
        self.taught: list[Float[Tensor, "X H"]] = []

    @property
    def rows(self) -> Sequence[Encoded]:
        """The training rows."""
        return self.objective.rows

    @property
    def tree(self) -> Tree | None:
        """The labels' trie; None where answers are written."""
        return self.solver.tree if isinstance(self.objective, LabelObjective) else None

    def tail(self, i: int) -> Sequence[int]:
        """What row i reads behind its last segment."""
        if isinstance(self.objective, LabelObjective):
            return self.solver.tree.trie.spoken(self.objective.labels[i])
        return self.rows[i].answer[:-1]

    def places(self, chosen: Sequence[int]) -> Places:
        """Where these rows decide."""
        found = [(b, *decision) for b, i in enumerate(chosen) for decision in self._decisions(i)]
        row, behind, node, right = torch.tensor(found).T
        return Places(row, behind, node, right)

    def _decisions(self, i: int) -> list[tuple[int, int, int]]:
        if not isinstance(self.objective, LabelObjective):
            return [(at, 0, token) for at, token in enumerate(self.rows[i].answer)]
        trie = self.solver.tree.trie
        return [
            (trie.nodes[node].depth, trie.branching.index(node), list(trie.nodes[node].children).index(token))
            for node, token in trie.decisions(self.objective.labels[i])
        ]

    def log_probabilities(self, hidden: Float[Tensor, "X H"], places: Places) -> Float[Tensor, "X M"]:
        """Of every child of each place's node, or of every token."""
        trunk, tree = self.solver.engine.trunk, self.tree
        if tree is None:
            return torch.log_softmax(trunk.logits(hidden), -1)
        return tree.children(trunk.logits(hidden, tree.trie.tokens, tree.rows), places.node.to(hidden.device))

    def loss(self, hidden: Float[Tensor, "X H"], chosen: Sequence[int], places: Places, distil: float) -> Float[Tensor, ""]:
        """L_k from the states at its places."""
        device = hidden.device
        logs = self.log_probabilities(hidden, places)
        each = torch.zeros(len(chosen), device=device).index_add(
            0, places.row.to(device), -logs.gather(1, places.right.to(device)[:, None])[:, 0]
        )
        if isinstance(self.objective, LabelObjective):
            weights = self.objective.weights[torch.tensor([self.objective.labels[i] for i in chosen], device=device)]
            task = (each * weights).sum() / weights.sum()
        else:
            task = each.sum() / len(places.row)
        if not distil or not self.taught:
            return task
        theirs = torch.cat([self.taught[i] for i in chosen]).to(device, hidden.dtype)
        return task + distil * (self._divergence(logs, theirs, places) + _apart(hidden, theirs))

    def _divergence(self, logs: Float[Tensor, "X M"], theirs: Float[Tensor, "X H"], places: Places) -> Float[Tensor, ""]:
        with torch.no_grad():
            told = self.log_probabilities(theirs, places)
        there = torch.isfinite(told)
        ours = torch.where(there, logs, 0.0)
        return (told.exp() * (torch.where(there, told, 0.0) - ours)).sum(1).mean()

    @torch.no_grad()
    def learn_from(self, teacher: Sequence[AnyForm]) -> None:
        """Keep the states that a plain prompt leaves at every place of every training row."""
        self.taught = []
        for start in range(0, len(self.rows), TEACHER_ROWS):
            chosen = list(range(start, min(start + TEACHER_ROWS, len(self.rows))))
            places = self.places(chosen)
            done = self.solver.engine.forward([self.rows[i] for i in chosen], teacher, Tail([self.tail(i) for i in chosen]))
            hidden = states_at(done, places, 0)
            counts = torch.bincount(places.row, minlength=len(chosen)).tolist()
            self.taught += list(torch.split(hidden.float().cpu(), counts))


def states_at(done: Pass, places: Places, first: int) -> Float[Tensor, "X H"]:
    """The states at the places of rows that begin at row ``first`` of a pass."""
    row = places.row + first
    column = done.stream.ends[row] - 1 + places.behind
    device = done.hidden.device
    return done.at(row.to(device), column.to(device))


def losses_together(
    lessons: Sequence[Lesson], chosen: Sequence[Sequence[int]], prompts: Sequence[Sequence[AnyForm]], distil: float
) -> list[Float[Tensor, ""]]:
    """Every task's loss over its rows, by one pass for all of them; each task has equally many rows and its own prompt."""
    rows = [lesson.rows[i] for lesson, some in zip(lessons, chosen, strict=True) for i in some]
    tails = [lesson.tail(i) for lesson, some in zip(lessons, chosen, strict=True) for i in some]
    done = lessons[0].solver.engine.forward_side_by_side(rows, prompts, Tail(tails))
    found, first = [], 0
    for lesson, some in zip(lessons, chosen, strict=True):
        places = lesson.places(some)
        found.append(lesson.loss(states_at(done, places, first), some, places, distil))
        first += len(some)
    return found


def _apart(ours: Float[Tensor, "X H"], theirs: Float[Tensor, "X H"]) -> Float[Tensor, ""]:
    return (ours - theirs).pow(2).mean() / theirs.pow(2).mean().clamp(min=1e-12)
