"""POST /v1/chat/completions: from messages to a job, from pieces of answers to OpenAI's shape.

A task request's last user message fills the template's free field. Other messages belong to a conversation: the task must
allow it (``chat = true``), and they stand before the template's text as the base's own chat template writes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from epigraph.base import Base
from epigraph.serve.answers import LEAST, Delta, Likely, Scored
from epigraph.serve.auto import as_named, routable
from epigraph.serve.faults import bad
from epigraph.serve.names import ROUTER
from epigraph.serve.rendering import Asked, Fields, Rendered, Renderer
from epigraph.serve.served import Served
from epigraph.serve.service import Exchange, Question
from epigraph.serve.turns import tokens_before, tokens_of
from epigraph.serve.wire.chat import (
    Answer,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatRequest,
    ChunkChoice,
    TokenLogprob,
    TopLogprob,
)
from epigraph.serve.wire.chat import Delta as WireDelta
from epigraph.serve.wire.shape import Usage


def check(request: ChatRequest) -> None:
    """Refused (400) for what contradicts itself."""
    request.check_extras()
    if request.top_logprobs and not request.logprobs:
        raise bad("top_logprobs was given without logprobs: true.", param="top_logprobs")
    if 0 in (request.max_tokens, request.max_completion_tokens):
        raise bad("max_tokens is 0, so there is nothing to answer.", param="max_tokens")


def shows(request: ChatRequest) -> int | None:
    """How many likely tokens are asked for; None for no logprobs."""
    return (request.top_logprobs or 0) if request.logprobs else None


def texts(request: ChatRequest) -> list[str]:
    """What a router reads: the last user message, or the fields."""
    text = request.messages[-1].said if request.messages else None
    return [routable(text or None, request.fields, raw=request.raw)]


def render(request: ChatRequest, answering: Sequence[Served | None], renderer: Renderer) -> list[Rendered]:
    """The one job."""
    (served,) = answering
    fields: Fields | None = request.fields
    if request.model == ROUTER and served is not None:
        fields = as_named(None, fields, served)[1]
    most = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    asked = Asked(
        sampling=request.sampling(logprobs=shows(request), echo=False),
        most=most,
        raw=request.raw,
        prompt_at=request.places,
        fields=fields,
        special=False,
        truncate=request.truncate,
    )
    if served is None or request.raw:
        if request.fields:
            raise bad("fields were given, but this request is raw: it has no template.", param="fields")
        return [renderer.raw(served, tokens_of(request.messages or (), renderer.base), asked)]
    text, before = _turn(request, served, renderer.base)
    return [renderer.task(served, text, asked, before=before)]


def _turn(request: ChatRequest, served: Served, base: Base) -> tuple[str | None, list[int]]:
    """The last user message, and the tokens of what was said before."""
    if not request.messages:
        if request.fields:
            return None, []
        raise bad("messages is empty.", "Give a user message.", param="messages")
    *earlier, last = request.messages
    if last.role != "user":
        raise bad(f"the last message is by {last.role!r}; a task answers the user.", param="messages")
    if earlier and not served.task.chat:
        raise bad(
            f"prompt {served.reference!r} answers one user message; {len(earlier)} others were given "
            f"({', '.join(message.role for message in earlier[:5])}).",
            "Send the user message alone, send raw: true, or tune the task with chat = true.",
            param="messages",
        )
    said = last.said
    everything_given = request.fields and not [f for f in served.task.template.fields if f not in request.fields]
    before = tokens_before(earlier, base) if earlier else []
    return (None if everything_given and not said else said), before


def question(request: ChatRequest) -> Question:
    """The request as the service takes it."""
    return Question(
        prefix="chatcmpl",
        model=request.model,
        prompts=1,
        choices=request.n or 1,
        shows=shows(request),
        texts=partial(texts, request),
        render=partial(render, request),
    )


@dataclass
class Written:
    """One answer in the making."""

    text: str = ""
    scored: list[Scored] = field(default_factory=list)
    end: Delta | None = None


class Shape:
    """The answers of one request in OpenAI's shape."""

    def __init__(self, request: ChatRequest, exchange: Exchange) -> None:
        self.exchange = exchange
        self.shows = shows(request)
        self.written = [Written() for _ in range(exchange.total)]

    def opening(self) -> Sequence[ChatChunk]:
        """A stream begins by saying who speaks."""
        return [
            self._chunk([ChunkChoice(index=index, delta=WireDelta(role="assistant", content=""))])
            for index in range(self.exchange.total)
        ]

    def chunk(self, delta: Delta) -> ChatChunk:
        """A piece of a stream."""
        choice = ChunkChoice(
            index=delta.index,
            delta=WireDelta(content=delta.text) if delta.text or delta.scored else WireDelta(),
            logprobs=_logprobs(delta.scored) if self.shows is not None and delta.scored else None,
            finish_reason=delta.finish,
            stop_reason=delta.stop_reason,
        )
        return self._chunk([choice])

    def usage(self) -> ChatChunk:
        """The last piece of a stream."""
        return self._chunk([], self.exchange.usage)

    def add(self, delta: Delta) -> None:
        """Keep a piece for the whole."""
        written = self.written[delta.index]
        written.text += delta.text
        written.scored += delta.scored
        written.end = delta if delta.finish else written.end

    def whole(self) -> ChatCompletion:
        """All answers, in order."""
        exchange = self.exchange
        choices = [
            ChatChoice(
                index=index,
                message=Answer(content=written.text),
                logprobs=_logprobs(written.scored) if self.shows is not None else None,
                finish_reason=(written.end and written.end.finish) or "stop",
                stop_reason=written.end.stop_reason if written.end else None,
            )
            for index, written in enumerate(self.written)
        ]
        return ChatCompletion(
            id=exchange.id,
            created=exchange.created,
            model=exchange.model,
            choices=choices,
            usage=exchange.usage,
            routes=exchange.routes,
        )

    def _chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> ChatChunk:
        exchange = self.exchange
        return ChatChunk(
            id=exchange.id,
            created=exchange.created,
            model=exchange.model,
            choices=choices,
            usage=usage,
            routes=exchange.routes,
        )


def _logprobs(scored: Sequence[Scored]) -> ChatLogprobs:
    return ChatLogprobs(
        content=[
            TokenLogprob(**_likely(one), top_logprobs=[TopLogprob(**_likely(other)) for other in one.top]) for one in scored
        ]
    )


def _likely(one: Likely) -> dict[str, Any]:
    return {"token": one.text, "logprob": LEAST if one.logprob is None else one.logprob, "bytes": list(one.bytes)}
