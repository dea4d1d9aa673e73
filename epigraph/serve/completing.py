"""POST /v1/completions: from the request to jobs, from pieces of answers to OpenAI's shape."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from epigraph.serve.answers import Delta, Scored
from epigraph.serve.auto import as_named, routable
from epigraph.serve.faults import bad
from epigraph.serve.names import ROUTER
from epigraph.serve.rendering import Asked, Fields, Rendered, Renderer
from epigraph.serve.served import Served
from epigraph.serve.service import Exchange, Question
from epigraph.serve.wire.completions import (
    DEFAULT_TOKENS,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from epigraph.serve.wire.shape import Usage

Given = str | list[int] | None


def check(request: CompletionRequest) -> None:
    """Refused (400) for what contradicts itself."""
    request.check_extras()
    if request.max_tokens == 0 and not request.echo:
        raise bad("max_tokens is 0, so there is nothing to answer.", "Ask for one or more, or for echo.", param="max_tokens")


def texts(request: CompletionRequest) -> list[str]:
    """What a router reads of each prompt. Refused (400) where it is no text."""
    return [routable(given, fields, raw=request.raw) for given, fields in prompts_of(request)]


def render(request: CompletionRequest, answering: Sequence[Served | None], renderer: Renderer) -> list[Rendered]:
    """One job a prompt. The bare base is always asked raw, and so are token ids."""
    rendered = []
    for (given, fields), served in zip(prompts_of(request), answering, strict=True):
        if request.model == ROUTER:
            given, fields = as_named(given, fields, served)
        raw = request.raw or served is None or isinstance(given, list)
        if raw and fields:
            raise bad("fields were given, but this request is raw: it has no template.", param="fields")
        asked = Asked(
            sampling=request.sampling(logprobs=request.logprobs, echo=bool(request.echo)),
            most=DEFAULT_TOKENS if raw and request.max_tokens is None else request.max_tokens,
            raw=request.raw,
            prompt_at=request.places,
            fields=fields,
            special=request.add_special_tokens,
            truncate=request.truncate,
        )
        if not raw:
            assert served is not None
            assert not isinstance(given, list)
            rendered.append(renderer.task(served, given, asked))
        elif given is None:
            raise bad("prompt is missing.", "Give a text, or token ids.", param="prompt")
        else:
            rendered.append(renderer.raw(served, given, asked))
    return rendered


def prompts_of(request: CompletionRequest) -> list[tuple[Given, Fields | None]]:
    """Each prompt with its fields; one of the two may be given once for all."""
    prompt, fields = request.prompt, request.fields
    given: list[Given]
    if prompt is None or isinstance(prompt, str):
        given = [prompt]
    else:
        ids = [token for token in prompt if isinstance(token, int)]
        given = [ids] if ids else [one for one in prompt if not isinstance(one, int)]
    if not isinstance(fields, list):
        return [(one, fields) for one in given]
    if len(given) not in (1, len(fields)):
        raise bad(f"{len(given)} prompts and {len(fields)} fields were given.", "Give as many.", param="fields")
    return [(given[i if len(given) > 1 else 0], one) for i, one in enumerate(fields)]


def question(request: CompletionRequest) -> Question:
    """The request as the service takes it."""
    return Question(
        prefix="cmpl",
        model=request.model,
        prompts=len(prompts_of(request)),
        choices=request.n or 1,
        shows=request.logprobs,
        texts=partial(texts, request),
        render=partial(render, request),
    )


@dataclass
class Written:
    """One answer in the making: ``offset`` is where the next token's text begins."""

    offset: int = 0
    text: str = ""
    scored: list[Scored] = field(default_factory=list)
    end: Delta | None = None


class Shape:
    """The answers of one request in OpenAI's shape."""

    def __init__(self, request: CompletionRequest, exchange: Exchange) -> None:
        self.exchange = exchange
        self.shows = request.logprobs
        self.written = [Written() for _ in range(exchange.total)]

    def opening(self) -> Sequence[Completion]:
        """A stream begins with its first piece."""
        return ()

    def chunk(self, delta: Delta) -> Completion:
        """A piece of a stream."""
        return self._completion([self._choice(delta.index, delta.text, delta.scored, delta)])

    def usage(self) -> Completion:
        """The last piece of a stream."""
        return self._completion([], self.exchange.usage)

    def add(self, delta: Delta) -> None:
        """Keep a piece for the whole."""
        written = self.written[delta.index]
        written.text += delta.text
        written.scored += delta.scored
        written.end = delta if delta.finish else written.end

    def whole(self) -> Completion:
        """All answers, in order."""
        choices = [self._choice(i, one.text, one.scored, one.end) for i, one in enumerate(self.written)]
        return self._completion(choices, self.exchange.usage)

    def _completion(self, choices: list[CompletionChoice], usage: Usage | None = None) -> Completion:
        exchange = self.exchange
        return Completion(
            id=exchange.id,
            created=exchange.created,
            model=exchange.model,
            choices=choices,
            usage=usage,
            routes=exchange.routes,
        )

    def _choice(self, index: int, text: str, scored: Sequence[Scored], end: Delta | None) -> CompletionChoice:
        return CompletionChoice(
            index=index,
            text=text,
            logprobs=None if self.shows is None else self._logprobs(self.written[index], scored),
            finish_reason=end.finish if end else None,
            stop_reason=end.stop_reason if end else None,
        )

    def _logprobs(self, written: Written, scored: Iterable[Scored]) -> CompletionLogprobs:
        found = CompletionLogprobs(text_offset=[], token_logprobs=[], tokens=[], top_logprobs=[] if self.shows else None)
        for one in scored:
            found.text_offset.append(written.offset)
            found.token_logprobs.append(one.logprob)
            found.tokens.append(one.text)
            if found.top_logprobs is not None:
                found.top_logprobs.append(_top(one))
            written.offset += one.given
        return found


def _top(one: Scored) -> dict[str, float] | None:
    """The likeliest tokens and the one that stands there; equal texts keep the likelier."""
    found: dict[str, float] = {}
    for likely in (*one.top, one):
        if likely.logprob is not None:
            found[likely.text] = max(likely.logprob, found.get(likely.text, float("-inf")))
    return found or None
