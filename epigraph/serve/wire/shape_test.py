"""A body of wrong items costs one error: lists end at their first fault, unions are decided by what a value begins with."""

from typing import Any

import pytest
from pydantic import ValidationError

from epigraph.serve.faults import Refused
from epigraph.serve.wire.chat import ChatRequest
from epigraph.serve.wire.classify import ClassifyRequest
from epigraph.serve.wire.completions import CompletionRequest
from epigraph.serve.wire.shape import Request
from epigraph.serve.wire.tokens import DetokenizeRequest, TokenizeRequest

MANY = 20_000


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CompletionRequest, {"prompt": [None] * MANY}),
        (CompletionRequest, {"prompt": [1, *["x"] * MANY]}),
        (CompletionRequest, {"prompt": [["x"] * MANY]}),
        (CompletionRequest, {"prompt": ["x"] * MANY}),
        (CompletionRequest, {"prompt": "x", "fields": [1] * MANY}),
        (CompletionRequest, {"prompt": "x", "fields": {str(n): 1 for n in range(MANY)}}),
        (CompletionRequest, {"prompt": "x", "fields": {"a": [1] * MANY}}),
        (CompletionRequest, {"prompt": "x", "prompt_at": ["x"] * MANY}),
        (CompletionRequest, {"prompt": "x", "stop": [1] * MANY}),
        (ChatRequest, {"messages": [1] * MANY}),
        (ChatRequest, {"messages": [{"role": "user", "content": [1] * MANY}]}),
        (ClassifyRequest, {"input": [1] * MANY}),
        (ClassifyRequest, {"input": ["x"] * MANY}),
        (TokenizeRequest, {"messages": [1] * MANY}),
        (DetokenizeRequest, {"tokens": ["x"] * MANY}),
    ],
)
def test_one_error_for_any_number_of_wrong_items(kind: type[Request], body: dict[str, Any]) -> None:
    """8 MB of them made millions of errors on the event loop, in gigabytes, while nobody else was answered."""
    with pytest.raises(ValidationError, match="1 validation error"):
        kind.model_validate({"model": "x", **body})


@pytest.mark.parametrize("prompt", ["x", ["x", "y"], [1, 2], [[1], [2, 3]], None])
def test_every_branch_of_a_union_is_still_read(prompt: Any) -> None:
    assert CompletionRequest.model_validate({"model": "x", "prompt": prompt}).prompt == prompt


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("guided_json", {}),
        ("guided_choice", ["a"]),
        ("allowed_token_ids", [1]),
        ("bad_words", ["x"]),
        ("prompt_logprobs", 0),
        ("length_penalty", 0.5),
        ("truncate_prompt_tokens", 5),
        ("echo", True),
        ("continue_final_message", True),
        ("chat_template", "x"),
        ("chat_template_kwargs", {"a": 1}),
        ("best_of", 3),
        ("include_stop_str_in_output", True),
        ("skip_special_tokens", False),
        ("add_generation_prompt", False),
        ("cache_salt", "x"),
    ],
)
def test_what_would_change_an_answer_is_refused_and_what_asks_nothing_is_not(option: str, value: Any) -> None:
    """Answers were constrained, filtered or continued by none of these options, and the client was not told."""
    with pytest.raises(Refused, match=f"{option} is not supported"):
        ChatRequest.model_validate({"model": "x", "n": 2, option: value}).check_extras()
    ChatRequest.model_validate({"model": "x", "n": 2, "best_of": 2, "echo": False, option: None}).check_extras()
