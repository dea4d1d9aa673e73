"""POST /tokenize, POST /detokenize, GET /tokenizer_info, as vLLM has them."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from epigraph.serve.wire.chat import Message
from epigraph.serve.wire.shape import LIST, Request, Text, Token, Wire


class TokenizeRequest(Request):
    """A text, or the messages of a chat."""

    model: str | None = None
    prompt: Text | None = None
    messages: Annotated[list[Message], LIST] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    return_token_strs: bool | None = None


class Tokenized(Wire):
    """Its token ids."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Request):
    """Token ids."""

    model: str | None = None
    tokens: Annotated[list[Token], Field(max_length=1_000_000, fail_fast=True)]


class Detokenized(Wire):
    """Their text."""

    prompt: str


class TokenizerInfo(Wire):
    """What a client needs to make the same tokens; entries of the tokenizer's configuration come along."""

    model_config = ConfigDict(extra="allow")

    tokenizer_class: str
    eos_token: str | None
    bos_token: str | None
    pad_token: str | None
    chat_template: Any = None
