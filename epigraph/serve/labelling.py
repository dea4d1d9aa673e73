"""Rows of a classification: every row is read once, its label tree behind it, and gives the probability of every label."""

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.engine.decoding import Row
from epigraph.engine.trunk import Trunk
from epigraph.errors import Corrupt, EpigraphError
from epigraph.prompts import Form
from epigraph.serve.beginnings import Beginning
from epigraph.serve.request import Request
from epigraph.serve.work import Classification, EndEvent, LabelEvent, Reason
from epigraph.tasks.encode import Encoded


class LabelRow:
    """One row: what it reads, and the states at the branching nodes of its tree."""

    def __init__(self, labelling: "Labelling", number: int, row: Encoded, forms: Sequence[Form]) -> None:
        job = labelling.job
        self.labelling = labelling
        self.number = number
        self.row = Row(row.segments, forms, job.tree)
        before = self.row.last
        self.reads = [before if n < 0 else self.row.end + n for n in job.tree.reads]
        self.beginning = Beginning(self.row, job.prompt, before)
        self.states: dict[int, Tensor] = {}
        self.reused = 0

    @property
    def request(self) -> Request:
        """Who asked."""
        return self.labelling.request

    @property
    def most(self) -> int:
        """Positions it takes."""
        return len(self.row.ids)

    def read(self, elements: Sequence[int], hidden: Float[Tensor, "n H"]) -> None:
        """Keep the states that are read."""
        place = {element: n for n, element in enumerate(elements)}
        self.states |= {i: hidden[place[i]] for i in self.reads if i in place}


class Labelling:
    """A classification: its rows, those not begun yet, and what the others gave."""

    def __init__(self, request: Request, forms: Sequence[Form]) -> None:
        assert isinstance(request.job, Classification)
        self.request = request
        self.job = request.job
        self.waiting = deque(LabelRow(self, number, row, forms) for number, row in enumerate(self.job.rows))
        self.found: dict[int, tuple[float, ...]] = {}
        self.virtual = sum(row.row.virtual for row in self.waiting)
        self.tokens = sum(row.row.end for row in self.waiting) - self.virtual
        self.reused = 0

    @property
    def most(self) -> int:
        """Positions its longest row takes."""
        return max((row.most for row in self.waiting), default=0)

    def take(self, row: LabelRow, probabilities: tuple[float, ...]) -> None:
        """A row is done."""
        self.found[row.number] = probabilities
        self.reused += row.reused

    @property
    def complete(self) -> bool:
        """Whether every row is done."""
        return len(self.found) == len(self.job.rows)

    def finish(self) -> None:
        """Report all rows."""
        self.request.tell(LabelEvent(tuple(self.found[n] for n in range(len(self.job.rows)))))
        self.end("stop")

    def end(self, reason: Reason, error: EpigraphError | None = None) -> None:
        """It is over."""
        self.waiting.clear()
        self.request.end(EndEvent(0, reason, None, self.tokens, 0, error, self.virtual, self.reused))


def label_probabilities(trunk: Trunk, rows: Sequence[LabelRow]) -> Iterator[tuple[LabelRow, tuple[float, ...] | Corrupt]]:
    """The probabilities of rows that are read, those of one tree together; for a row whose states are no numbers, its error."""
    trees = {id(row.labelling.job.tree): row.labelling.job.tree for row in rows}
    for key, tree in trees.items():
        own = [row for row in rows if id(row.labelling.job.tree) == key]
        states = torch.stack([row.states[i] for row in own for i in row.reads])
        logits = trunk.logits(states, tree.trie.tokens, tree.rows).view(len(own), len(tree.reads), -1)
        node = torch.arange(len(tree.reads), device=logits.device)[None].expand(len(own), -1)
        found = tree.labels(tree.children(logits, node)).exp()
        for row, one in zip(own, found.tolist(), strict=True):
            yield row, tuple(one) if all(0 <= p <= 1.0001 for p in one) else not_numbers(row.request)


def not_numbers(request: Request) -> Corrupt:
    """What to say of a request whose states are not finite."""
    name = f"prompt {request.job.prompt.name!r}" if request.job.prompt else "the base without a prompt"
    return Corrupt(f"{name} gives states that are not finite on this input.", "Tune the prompt again, or try another dtype.")
