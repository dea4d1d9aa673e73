"""What all requests and answers share: strict fields, unknown ones allowed, options that are refused rather than ignored.

Lists have a bound and end at their first fault, and a union is decided by what its value begins with: a body full of wrong
items would otherwise make an error for each of them and every branch, millions of them, while nobody else is answered.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from epigraph.serve.faults import bad

MOST_ITEMS = 10_000
MOST_FIELDS = 1000
LIST = Field(max_length=MOST_ITEMS, fail_fast=True)
LIST_OF_SOME = Field(min_length=1, max_length=MOST_ITEMS, fail_fast=True)


def branch(value: object) -> str:
    """What a value begins with: a text, an object, or a list of such (in the plural); anything else is a number."""
    if isinstance(value, list):
        return f"{branch(value[0])}s" if value else "texts"
    return "text" if isinstance(value, str) else "object" if isinstance(value, dict | BaseModel) else "number"


def by_first(*tags: str) -> Discriminator:
    """Decides between the tagged branches of a union; what fits none goes to the first that is a list, or is none, as it is."""

    def tag(value: object) -> str:
        found, alike = branch(value), [tag for tag in tags if tag.endswith("s") == isinstance(value, list)]
        return found if found in tags else (alike or tags)[0]

    return Discriminator(tag)


def _few(value: object) -> object:
    if isinstance(value, dict) and len(value) > MOST_FIELDS:
        raise ValueError(f"at most {MOST_FIELDS} fields are read")
    return value


Text = Annotated[str, Field(max_length=10_000_000)]
Value = Annotated[
    Annotated[Text, Tag("text")] | Annotated[list[Text], Field(max_length=1000, fail_fast=True), Tag("texts")],
    by_first("text", "texts"),
]
Fields = Annotated[dict[str, Value], BeforeValidator(_few)]
"""The template's fields by name; a row's own ``choices`` are a list."""
Token = Annotated[int, Field(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "suffix": (None, ""),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "min_p": (None, 0),
    "min_tokens": (None, 0),
    "best_of": (None, 1),
    "use_beam_search": (None, False),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "structured_outputs": (None,),
    "guided_json": (None,),
    "guided_choice": (None,),
    "guided_regex": (None,),
    "guided_grammar": (None,),
    "allowed_token_ids": (None, []),
    "bad_words": (None, []),
    "prompt_logprobs": (None,),
    "length_penalty": (None, 1),
    "truncate_prompt_tokens": (None,),
    "echo": (None, False),
    "continue_final_message": (None, False),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prompt_embeds": (None,),
    "include_stop_str_in_output": (None, False),
    "skip_special_tokens": (None, True),
    "spaces_between_special_tokens": (None, True),
    "return_token_ids": (None, False),
    "return_tokens_as_token_ids": (None, False),
    "cache_salt": (None,),
    "add_generation_prompt": (None, True),
    "add_special_tokens": (None, False),
}
"""Options that would change an answer and that this server does not have, with the values that ask for nothing."""


class Wire(BaseModel):
    """Sent by us."""

    model_config = ConfigDict(extra="forbid")


class Request(BaseModel):
    """Sent by a client. Fields that nobody here knows are let through, as vLLM does: clients send many."""

    model_config = ConfigDict(strict=True, extra="allow")

    def check_extras(self) -> None:
        """Refused (400) for an option that would be ignored to the client's harm."""
        for name, value in (self.model_extra or {}).items():
            if not self.asks_nothing(name, value):
                raise bad(f"{name} is not supported by this server.", "Leave it out.", param=name, code="unsupported")

    def asks_nothing(self, name: str, value: object) -> bool:
        """Whether an option that is not had here would leave the answer as it is."""
        return name not in NEUTRAL or any(value == neutral for neutral in NEUTRAL[name])


class PromptTokensDetails(Wire):
    """``virtual_tokens`` are positions that the prompt's vectors take; they are in no other count.

    ``cached_tokens`` are prompt tokens whose states were there already, from requests of the same API key.
    """

    virtual_tokens: int
    cached_tokens: int = 0


class Usage(Wire):
    """Counts of tokens, all of the user's and the template's text, none of them virtual."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


def usage_of(prompt: int, completion: int, virtual: int, *, cached: int = 0) -> Usage:
    """The usage of a request."""
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(virtual_tokens=virtual, cached_tokens=cached),
    )


def _is_none(value: object) -> bool:
    return value is None


def absent(description: str) -> Any:
    """A field that is left out where there is nothing to say."""
    return Field(default=None, exclude_if=_is_none, description=description)


class RouteTaken(Wire):
    """Where model: "auto" sent a text: the prompt (null: to none), the probability that it belongs there, that of every task."""

    prompt: str | None
    confidence: float
    probabilities: dict[str, float]


class Fault(Wire):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class FaultBody(Wire):
    """Every answer that is no success."""

    error: Fault
