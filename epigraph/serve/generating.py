"""A choice of a generation: its row, its generator, its text; from states to events."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.base import Base
from epigraph.engine.decoding import VECTOR, Row
from epigraph.errors import EpigraphError
from epigraph.serve.beginnings import Beginning
from epigraph.serve.prompts import Ready
from epigraph.serve.request import Request
from epigraph.serve.sampling import ROWS, Sampler, describe
from epigraph.serve.spelling import Speller
from epigraph.serve.work import EchoEvent, EndEvent, Generation, Reason, TokenEvent, Top

Described = tuple[float | None, Top]


class Echo:
    """The log probabilities of the input's tokens, gathered part by part."""

    def __init__(self, row: Row) -> None:
        self.elements = [i for i in range(row.end) if row.ids[i] >= 0]
        computed = [i for i in range(row.end) if row.ids[i] >= VECTOR]
        self.targets = {before: after for before, after in pairwise(computed) if row.ids[after] >= 0}
        self.found: dict[int, Described] = {}

    def read(self, row: Row, elements: Sequence[int], hidden: Float[Tensor, "n H"], base: Base, alternatives: int) -> None:
        """Note what these states say of the tokens behind them; over all of V, a few positions at once."""
        asked = [(n, self.targets[i]) for n, i in enumerate(elements) if i in self.targets]
        for start in range(0, len(asked), ROWS):
            part = asked[start : start + ROWS]
            logits = base.logits(hidden[torch.tensor([n for n, _ in part], device=hidden.device)])
            told = describe(logits, [row.ids[after] for _, after in part], [alternatives] * len(part))
            self.found.update(zip((after for _, after in part), told, strict=True))

    def event(self, choice: int, row: Row) -> EchoEvent:
        """All of it; the first token has none."""
        first = self.elements[:1]
        told = [(None, None) if [i] == first else self.found.get(i, (None, None)) for i in self.elements]
        return EchoEvent(
            choice, tuple(row.ids[i] for i in self.elements), tuple(p for p, _ in told), tuple(top for _, top in told)
        )


class Choice:
    """One of the n sequences of a generation."""

    def __init__(self, request: Request, number: int, ready: Ready, base: Base) -> None:
        job = request.job
        assert isinstance(job, Generation)
        self.order = 0  # of arrival
        self.request = request
        self.number = number
        self.sampling = job.sampling
        self.base = base
        self.row = Row(job.segments, ready.forms, waits=ready.dependent is not None)
        self.last = self.row.last if self.sampling.max_tokens else self.row.end - 1
        wants_echo = self.sampling.echo and self.sampling.logprobs is not None and number == 0  # the others wait for it
        self.echo = Echo(self.row) if wants_echo else None
        self.beginning = Beginning(self.row, job, 0 if wants_echo else self.last, ready)
        self.sampler = Sampler(self.sampling, number)
        self.speller = Speller(base.detokenize, self.sampling.stop)
        self.generated = 0
        self.reused = 0
        self.over = False
        self.siblings: list[Choice] = []  # which wait for what is read here

    @property
    def most(self) -> int:
        """Positions it may come to take."""
        return self.row.end + max(0, self.sampling.max_tokens - 1)

    @property
    def generating(self) -> bool:
        """Whether the input is read and one token is to be computed."""
        return self.row.done >= self.row.end and self.row.done == len(self.row.ids) - 1

    @property
    def alternatives(self) -> int | None:
        """How many to report with every token."""
        return self.sampling.logprobs

    def read(self, elements: Sequence[int], hidden: Float[Tensor, "n H"]) -> None:
        """Take the states of elements of the input."""
        if self.echo is not None:
            self.echo.read(self.row, elements, hidden, self.base, self.alternatives or 0)

    def tell_echo(self) -> None:
        """The input is read: report it, once, for those that wait for it as well."""
        if (echo := self.echo) is not None:
            told = echo.event(self.number, self.row)
            for choice in (self, *self.siblings):
                self.request.tell(replace(told, choice=choice.number))
            self.echo, self.beginning.limit = None, self.last

    def take(self, token: int, described: Described | None) -> None:
        """The next token was chosen: report it, and end where it ends."""
        self.generated += 1
        self.sampler.advance()
        reason: Reason | None
        matched: str | int | None
        reason, matched = self._ends(token)
        silent = reason == "stop"
        full = self.generated >= self.sampling.max_tokens
        text, stopped = self.speller.push(None if silent else token, last=silent or full)
        probability, top = described or (None, ())
        self.request.tell(TokenEvent(self.number, token, text, probability, top))
        if stopped is not None:
            reason, matched = "stop", stopped
        elif full and reason is None:
            reason = "length"
        if reason is not None:
            self.end(reason, matched)
        else:
            self.row.ids.append(token)

    def _ends(self, token: int) -> tuple[Reason | None, int | None]:
        if token in self.sampling.stop_tokens:
            return "stop", token
        if token == self.base.end and not self.sampling.ignore_end:
            return "stop", None
        return None, None

    def end(self, reason: Reason, matched: str | int | None = None, error: EpigraphError | None = None) -> None:
        """It is over."""
        self.over = True
        virtual = self.row.virtual
        event = EndEvent(
            choice=self.number,
            reason=reason,
            matched=matched,
            prompt_tokens=self.row.end - virtual,
            completion_tokens=self.generated,
            error=error,
            virtual_tokens=virtual,
            reused_tokens=self.reused,
        )
        self.request.end(event)
