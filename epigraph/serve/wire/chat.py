"""POST /v1/chat/completions."""

from typing import Annotated, Literal

from pydantic import Field, Tag, model_serializer

from epigraph.serve.faults import bad
from epigraph.serve.wire.completions import Finish
from epigraph.serve.wire.sampled import MOST_LOGPROBS, Sampled
from epigraph.serve.wire.shape import LIST, Count, Fields, Request, RouteTaken, Text, Usage, Wire, absent, by_first


class Part(Request):
    """A part of a message. Only texts are understood."""

    type: Annotated[str, Field(max_length=100)]
    text: Text | None = None


class Message(Request):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: (
        Annotated[
            Annotated[Text, Tag("text")] | Annotated[list[Part], LIST, Tag("objects")],
            by_first("text", "objects"),
        ]
        | None
    ) = None

    @property
    def said(self) -> str:
        """The message's text. Refused (400) where it holds something else."""
        calls = self.model_extra or {}
        if calls.get("tool_calls") or calls.get("function_call"):
            raise bad("a message calls a tool; this server has none.", "Send its text alone.", param="messages")
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        for part in self.content:
            if part.type != "text" or part.text is None:
                raise bad(f"a message has a part of type {part.type!r}; only texts are understood.", param="messages")
        return "".join(part.text or "" for part in self.content)


class ChatRequest(Sampled):
    """A conversation."""

    messages: Annotated[list[Message], LIST] | None = None
    fields: Annotated[Fields | None, Field(description="the template's fields by name")] = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None


class TopLogprob(Wire):
    """A token that might have stood there."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """A token that stands there."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Wire):
    """One entry a token."""

    content: list[TokenLogprob]
    refusal: None = None


class Answer(Wire):
    """The assistant's turn."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Wire):
    """One answer."""

    index: int
    message: Answer
    logprobs: ChatLogprobs | None
    finish_reason: Finish
    stop_reason: str | int | None = None


class ChatCompletion(Wire):
    """All answers."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    routes: list[RouteTaken] | None = absent('model: "auto": where the message went')


class Delta(Wire):
    """What came since the last chunk."""

    role: Literal["assistant"] | None = None
    content: str | None = None

    @model_serializer
    def _said(self) -> dict[str, str]:
        """Without what is not new: clients add up what they get."""
        return {name: value for name, value in (("role", self.role), ("content", self.content)) if value is not None}


class ChunkChoice(Wire):
    """The same for one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: Finish | None = None
    stop_reason: str | int | None = None


class ChatChunk(Wire):
    """A chunk of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    routes: list[RouteTaken] | None = absent('model: "auto": where the message went')
