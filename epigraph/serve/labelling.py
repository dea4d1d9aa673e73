"""Rows of a classification: each is read once, its labels or choices behind it, and gives the probability of every one.

    p(label | row) = 1/S Σ_s p_s(label | row)        over the S members of a prompt that is an ensemble (``engine/voting.py``)

A reading has rows as well: nothing hangs behind them, and they give the mean of their states.
"""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.engine.decoding import Row
from epigraph.engine.trunk import Trunk
from epigraph.errors import Corrupt, EpigraphError
from epigraph.serve.beginnings import Beginning
from epigraph.serve.prompts import Ready
from epigraph.serve.request import Request
from epigraph.serve.tails import ChoiceTail, LabelTail, Tail
from epigraph.serve.work import Classification, EndEvent, Generation, Job, LabelEvent, QueryEvent, Reading, Reason
from epigraph.tasks.encode import Encoded


class LabelRow:
    """One row as one member reads it, and the states at the places that its tail reads."""

    def __init__(self, labelling: "Labelling", number: int, row: Encoded, member: int, tail: Tail | None) -> None:
        self.labelling = labelling
        self.number = number
        self.tail = tail
        ready = labelling.ready
        self.row = Row(row.segments, ready.members[member], tail, waits=ready.dependent is not None)
        before = self.row.last
        self.reads = [before if n < 0 else self.row.end + n for n in tail.reads] if tail else []
        self.beginning = Beginning(self.row, labelling.job, before, ready, member)
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

    def __init__(self, request: Request, ready: Ready) -> None:
        assert not isinstance(request.job, Generation)
        self.request = request
        self.job = request.job
        self.ready = ready
        self.rows = rows_of(self.job)
        tails = _tails(self.job, self.rows)
        self.waiting = deque(
            LabelRow(self, number, row, member, tail)
            for number, (row, tail) in enumerate(zip(self.rows, tails, strict=True))
            for member in range(len(ready.members))
        )
        self.left = len(self.waiting)
        self.found: dict[int, Tensor] = {}
        self.virtual = sum(row.row.virtual for row in self.waiting)
        self.tokens = sum(sum(map(len, row.segments)) for row in self.rows)
        self.reused = 0

    def take(self, row: LabelRow, found: Float[Tensor, " C"]) -> None:
        """A row is done, for one member."""
        share = found / len(self.ready.members)
        self.found[row.number] = self.found[row.number] + share if row.number in self.found else share
        self.left -= 1
        self.reused += row.reused

    @property
    def complete(self) -> bool:
        """Whether every row is done."""
        return not self.left

    def finish(self) -> None:
        """Report all rows."""
        found = [self.found[n] for n in range(len(self.rows))]
        if isinstance(self.job, Reading):
            self.request.tell(QueryEvent(torch.stack(found)))
        else:
            self.request.tell(LabelEvent(tuple(tuple(one.tolist()) for one in found)))
        self.end("stop")

    def end(self, reason: Reason, error: EpigraphError | None = None) -> None:
        """It is over."""
        self.waiting.clear()
        self.request.end(EndEvent(0, reason, None, self.tokens, 0, error, self.virtual, self.reused))


def rows_of(job: Classification | Reading) -> Sequence[Encoded]:
    """The rows that are read."""
    return job.rows if isinstance(job, Classification) else [Encoded((text,)) for text in job.texts]


def segments_of(job: Job) -> list[tuple[tuple[int, ...], ...]]:
    """The segments of everything that is read."""
    return [job.segments] if isinstance(job, Generation) else [row.segments for row in rows_of(job)]


def takes(job: Classification | Reading, ready: Ready) -> Iterator[tuple[int, int, int]]:
    """Of every row and member: the positions of its longest branch, those of them that the prompt takes, and all positions.

    Counted without making a row, whose mask is as large as the square of what hangs behind it.
    """
    rows = rows_of(job)
    members = [sum(form.length for form in forms) for forms in ready.members]
    for row, tail in zip(rows, _tails(job, rows), strict=True):
        deepest, behind = (max(tail.fed_depths, default=0), len(tail.fed_tokens)) if tail else (0, 0)
        text = sum(map(len, row.segments))
        for virtual in members:
            yield text + virtual + deepest, virtual, text + virtual + behind


def _tails(job: Classification | Reading, rows: Sequence[Encoded]) -> list[Tail | None]:
    if isinstance(job, Reading):
        return [None] * len(rows)
    if job.tree is None:
        return [ChoiceTail(row.choices) for row in rows]
    return [LabelTail(job.tree, job.verdicts)] * len(rows)


def answers_of(trunk: Trunk, rows: Sequence[LabelRow]) -> Iterator[tuple[LabelRow, Float[Tensor, " C"] | Corrupt]]:
    """What rows give that are read, those of one tail together; for a row whose states are no numbers, its error."""
    groups: dict[Hashable, list[LabelRow]] = {}
    for row in rows:
        if row.tail is None:
            yield row, row.beginning.query().cpu()
        else:
            groups.setdefault(row.tail.group, []).append(row)
    for own in groups.values():
        tail = own[0].tail
        assert tail is not None
        states = torch.stack([torch.stack([row.states[i] for i in row.reads]) for row in own])
        found = tail.probabilities(trunk, states).cpu()
        right = ((found >= 0) & (found <= 1.0001)).all(1).tolist()
        for row, one, ok in zip(own, found, right, strict=True):
            yield row, one if ok else not_numbers(row.request)


def not_numbers(request: Request) -> Corrupt:
    """What to say of a request whose states are not finite."""
    name = f"prompt {request.job.prompt.name!r}" if request.job.prompt else "the base without a prompt"
    return Corrupt(f"{name} gives states that are not finite on this input.", "Tune the prompt again, or try another dtype.")
