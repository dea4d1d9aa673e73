"""From a backend's events to pieces of answers, the same for both endpoints, streamed or whole.

A label is an answer of one piece. The text of a task's answer is trimmed as ``predict`` trims it, also while it streams.
"""

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Literal

from epigraph.model import Prediction
from epigraph.serve.faults import Refused
from epigraph.serve.flow import Flow
from epigraph.serve.pieces import Pieces
from epigraph.serve.rendering import Constrained, Rendered
from epigraph.serve.served import Served
from epigraph.serve.work import EchoEvent, EndEvent, Event, Generation, LabelEvent, QueryEvent, TokenEvent

Finish = Literal["stop", "length"]
LEAST = -9999.0


@dataclass(frozen=True, kw_only=True)
class Likely:
    """A token, or a label, with its logprob in nats."""

    text: str
    bytes: tuple[int, ...]
    logprob: float | None
    """Never below LEAST: JSON has no infinity."""


@dataclass(frozen=True, kw_only=True)
class Scored(Likely):
    """A token that stands in the answer, with what might have stood there."""

    top: tuple[Likely, ...] = ()
    given: int = 0
    """Characters of the answer that were given out with it: not always its own, since the end token has none, a character may
    take several, and white space is left away."""


@dataclass(frozen=True, kw_only=True)
class Delta:
    """What is new of one answer; ``finish`` on its last piece, with the tokens it took."""

    index: int
    text: str = ""
    scored: tuple[Scored, ...] = ()
    finish: Finish | None = None
    stop_reason: str | int | None = None
    tokens: int = 0
    reused: int = 0
    """Tokens of the input whose states were there already."""


@dataclass
class Trim:
    """Leaves away white space at both ends of a text that comes in pieces."""

    begun: bool = False
    held: str = ""

    def __call__(self, text: str) -> str:
        """What is certain not to be the end."""
        text = self.held + text if self.begun else text.lstrip()
        self.begun = self.begun or bool(text)
        sure = text.rstrip()
        self.held = text[len(sure) :]
        return sure


@dataclass
class Answers:
    """The answers of one request. ``shows`` says how many likely tokens are asked for, None for no logprobs."""

    rendered: Sequence[Rendered]
    pieces: Pieces
    choices: int
    shows: int | None
    _trims: dict[int, Trim] = field(default_factory=dict)
    _said: dict[int, str] = field(default_factory=dict)
    _echoing: set[int] = field(default_factory=set)
    _echoes: dict[int, tuple[Scored, ...]] = field(default_factory=dict)

    async def deltas(self, flow: Flow) -> AsyncIterator[Delta]:
        """Every piece as it comes; answer j of prompt i has index i · choices + j."""
        events = flow.events()
        try:
            async for number, event in events:
                for delta in self._deltas(number, event):
                    yield delta
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    def _deltas(self, number: int, event: Event) -> list[Delta]:
        rendered, first = self.rendered[number], number * self.choices
        if isinstance(event, LabelEvent):
            delta = self._label(rendered, event)
            return [replace(delta, index=first + choice) for choice in range(self.choices)]
        if isinstance(rendered.job, Constrained):
            return self._constrained(rendered.job, first, event)
        if not isinstance(rendered.job, Generation) or isinstance(event, QueryEvent):
            return []
        index = first + event.choice
        scored: tuple[Scored, ...] = ()
        if isinstance(event, EchoEvent):  # of all choices of a prompt it is the same
            if number not in self._echoes:
                self._echoes[number] = self._echoed(event, len(rendered.text))
            scored = self._echoes[number]
        echoed = rendered.job.sampling.echo and index not in self._echoing
        self._echoing.add(index)
        deltas = [Delta(index=index, text=rendered.text, scored=scored)] if echoed else []
        if isinstance(event, EndEvent):
            return [*deltas, _end(event, index)]
        return [*deltas, *self._token(rendered, index, event)] if isinstance(event, TokenEvent) else deltas

    def _token(self, rendered: Rendered, index: int, event: TokenEvent) -> list[Delta]:
        text = self._trims.setdefault(index, Trim())(event.text) if rendered.trimmed else event.text
        scored = () if self.shows is None else (self._scored(event.token, event.logprob, event.top, len(text)),)
        return [Delta(index=index, text=text, scored=scored)] if text or scored else []

    def _constrained(self, job: Constrained, first: int, event: Event) -> list[Delta]:
        if isinstance(event, TokenEvent):
            self._said[first] = self._said.get(first, "") + event.text
            return []
        assert isinstance(event, EndEvent)
        said = {words.strip(): label for words, label in job.words.items()}
        label = said.get(self._said.get(first, "").strip())
        if label is None:
            raise Refused(502, "the server behind this one did not answer with a label.", code="upstream")
        return [
            Delta(index=first + choice, text=label, finish="stop", tokens=event.completion_tokens)
            for choice in range(self.choices)
        ]

    def _label(self, rendered: Rendered, event: LabelEvent) -> Delta:
        served, row = rendered.served, rendered.row
        assert served is not None
        assert row is not None
        (answer,) = served.answers([row], event.probabilities)
        scored: tuple[Scored, ...] = ()
        if self.shows is not None:
            shares = answer.probabilities or {}
            top = sorted(shares, key=shares.__getitem__, reverse=True)[: self.shows]
            one = _label_text(said_of(answer), probability_of(answer))
            others = tuple(_label_text(label, shares[label]) for label in top)
            scored = (Scored(text=one.text, bytes=one.bytes, logprob=one.logprob, top=others),)
        return Delta(index=0, text=said_of(answer), scored=scored, finish="stop", tokens=_tokens_of(served, answer))

    def _echoed(self, event: EchoEvent, length: int) -> tuple[Scored, ...]:
        """The tokens of a text of so many characters; what they do not account for comes with the last."""
        if self.shows is None:
            return ()
        ends = [min(end, length) for end in accumulate(self.pieces.lengths(event.tokens))]
        places = pairwise([0, *ends[:-1], length])
        return tuple(
            self._scored(token, logprob, top or (), end - start)
            for token, logprob, top, (start, end) in zip(event.tokens, event.logprobs, event.top, places, strict=True)
        )

    def _scored(self, token: int, logprob: float | None, top: Sequence[tuple[int, float]], given: int) -> Scored:
        one = self._likely(token, logprob)
        others = tuple(self._likely(other, value) for other, value in top)
        return Scored(text=one.text, bytes=one.bytes, logprob=one.logprob, top=others, given=given)

    def _likely(self, token: int, logprob: float | None) -> Likely:
        value = None if logprob is None else max(logprob, LEAST)
        return Likely(text=self.pieces.text(token), bytes=tuple(self.pieces.bytes_of(token)), logprob=value)


def said_of(answer: Prediction) -> str:
    """The answer as text: a label, a choice, or all labels of several."""
    return answer.label or "" if answer.labels is None else ", ".join(answer.labels)


def probability_of(answer: Prediction) -> float:
    """The probability of the whole answer: of several labels that just these are given."""
    shares = answer.probabilities or {}
    if answer.labels is None:
        return shares.get(answer.label or "", 0.0)
    return math.prod(p if label in answer.labels else 1 - p for label, p in shares.items())


def _tokens_of(served: Served, answer: Prediction) -> int:
    """The tokens that the answer's words take; where it is no label, one a word."""
    if served.task.has_labels and served.trie is not None:
        return len(served.trie.paths[served.trie.labels.index(answer.label or "")])
    return len(said_of(answer).split())


def _label_text(label: str, probability: float) -> Likely:
    logprob = max(math.log(probability), LEAST) if probability > 0 else LEAST
    return Likely(text=label, bytes=tuple(label.encode()), logprob=logprob)


def _end(event: EndEvent, index: int) -> Delta:
    finish: Finish = "length" if event.reason == "length" else "stop"
    return Delta(
        index=index, finish=finish, stop_reason=event.matched, tokens=event.completion_tokens, reused=event.reused_tokens
    )


def prompt_tokens(rendered: Sequence[Rendered]) -> tuple[int, int]:
    """The tokens of all prompts of a request, and the virtual ones."""
    return sum(one.tokens for one in rendered), sum(one.virtual for one in rendered)
