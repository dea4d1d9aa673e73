"""POST /v1/completions."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from epigraph.serve.wire.sampled import MOST_LOGPROBS, Sampled
from epigraph.serve.wire.shape import (
    LIST_OF_SOME,
    Count,
    Fields,
    RouteTaken,
    Text,
    Token,
    Usage,
    Wire,
    absent,
    by_first,
)

DEFAULT_TOKENS = 16
Tokens = Annotated[list[Token], Field(min_length=1, max_length=1_000_000, fail_fast=True)]
Prompt = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[list[Text], LIST_OF_SOME, Tag("texts")]
    | Annotated[Tokens, Tag("numbers")]
    | Annotated[list[Tokens], LIST_OF_SOME, Tag("numberss")],
    by_first("text", "texts", "numbers", "numberss"),
]


class CompletionRequest(Sampled):
    """A text, several, token ids, or several lists of them."""

    prompt: Prompt | None = None
    fields: Annotated[
        Annotated[
            Annotated[Fields, Tag("object")] | Annotated[list[Fields], LIST_OF_SOME, Tag("objects")],
            by_first("object", "objects"),
        ]
        | None,
        Field(description="the template's fields by name"),
    ] = None
    max_tokens: Count | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    echo: bool | None = None
    add_special_tokens: bool | None = None


class CompletionLogprobs(Wire):
    """One entry a token in each list; the first token of an echo has no logprob."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None] | None


Finish = Literal["stop", "length"]


class CompletionChoice(Wire):
    """One answer."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Finish | None
    stop_reason: str | int | None = None


class Completion(Wire):
    """All answers; as a chunk of a stream, what came since the last one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
    routes: list[RouteTaken] | None = absent('model: "auto": where each prompt went')
