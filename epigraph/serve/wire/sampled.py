"""The fields by which completions and chats say how an answer is drawn, and where a prompt stands."""

from typing import Annotated

from pydantic import Field, Tag

from epigraph.serve.faults import bad
from epigraph.serve.wire.shape import Count, Request, Seed, Token, by_first
from epigraph.serve.work import Sampling

MOST_LOGPROBS = 20
Stop = Annotated[str, Field(min_length=1, max_length=1000)]


class StreamOptions(Request):
    """``include_usage`` asks for a last chunk with the usage."""

    include_usage: bool | None = None


class Sampled(Request):
    """What both have in common."""

    model: Annotated[str, Field(max_length=1000, examples=["routing", "routing@3", "routing@prod", "base"])]
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    seed: Seed | None = None
    stop: (
        Annotated[
            Annotated[Stop, Tag("text")] | Annotated[list[Stop], Field(max_length=32, fail_fast=True), Tag("texts")],
            by_first("text", "texts"),
        ]
        | None
    ) = None
    stop_token_ids: Annotated[list[Token], Field(max_length=32, fail_fast=True)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    ignore_eos: bool | None = None
    raw: Annotated[bool, Field(description="nothing of the task is added")] = False
    prompt_at: Annotated[
        Annotated[
            Annotated[Count, Tag("number")] | Annotated[list[Count], Field(max_length=1000, fail_fast=True), Tag("numbers")],
            by_first("number", "numbers"),
        ]
        | None,
        Field(description="raw requests: the token index at which the prompt stands"),
    ] = None
    truncate: Annotated[bool, Field(description="shorten a text that is too long, as predict does, instead of 400")] = False

    @property
    def places(self) -> tuple[int, ...] | None:
        """``prompt_at`` as one place a block."""
        if self.prompt_at is None or isinstance(self.prompt_at, int):
            return None if self.prompt_at is None else (self.prompt_at,)
        return tuple(self.prompt_at)

    def sampling(self, *, logprobs: int | None, echo: bool) -> Sampling:
        """The same for the engine; how many tokens is decided where the room is known."""
        if self.stream_options is not None and not self.stream:
            raise bad("stream_options was given without stream: true.", param="stream_options")
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(0, self.top_k or 0),
            seed=self.seed,
            stop=() if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop),
            stop_tokens=tuple(self.stop_token_ids or ()),
            logprobs=logprobs,
            echo=echo,
            n=self.n or 1,
            ignore_end=bool(self.ignore_eos),
        )

    def asks_nothing(self, name: str, value: object) -> bool:
        """The best n of n are all of them."""
        return (name == "best_of" and value == (self.n or 1)) or super().asks_nothing(name, value)

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)
