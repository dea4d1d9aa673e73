"""OpenAI's own client against the server, sync and async, streaming and not; other clients: `make test-clients`."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from epigraph.serve.keys import new_key
from tests.serving.conftest import House, Running

USER: list[dict[str, str]] = [{"role": "user", "content": "some text"}]


@pytest.fixture(scope="module")
def sdk(running: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_completions_and_chats_whole_and_streamed(sdk: OpenAI, house: House) -> None:
    (meant,) = house.model("writer").predict(["some text"])
    asked = {"model": "writer", "temperature": 0}
    completion = sdk.completions.create(prompt="some text", **asked)  # type: ignore[call-overload]
    assert completion.choices[0].text == meant.output
    assert completion.usage.prompt_tokens_details.virtual_tokens == 3
    chat = sdk.chat.completions.create(messages=USER, **asked)  # type: ignore[call-overload]
    assert chat.choices[0].message.content == meant.output
    pieces = sdk.completions.create(prompt="some text", stream=True, **asked)  # type: ignore[call-overload]
    assert "".join(piece.choices[0].text for piece in pieces) == meant.output
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(sdk.chat.completions.create(messages=USER, **options, **asked))  # type: ignore[call-overload]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == meant.output
    assert chunks[-1].usage.completion_tokens == chat.usage.completion_tokens
    assert [c.choices[0].finish_reason for c in chunks[-2:-1]] == [chat.choices[0].finish_reason]


def test_the_async_client_does_the_same(running: Running, house: House) -> None:
    (meant,) = house.model("writer").predict(["some text"])

    async def ask() -> tuple[str, str, str]:
        async with AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
            whole, chat, stream = await asyncio.gather(
                client.completions.create(model="writer", prompt="some text", temperature=0),
                client.chat.completions.create(model="writer", messages=USER, temperature=0),  # type: ignore[arg-type]
                client.completions.create(model="writer", prompt="some text", temperature=0, stream=True),
            )
            pieces = [piece.choices[0].text async for piece in stream]
            return whole.choices[0].text, chat.choices[0].message.content or "", "".join(pieces)

    assert asyncio.run(ask()) == (meant.output,) * 3


def test_choices_stops_seeds_and_logprobs(sdk: OpenAI) -> None:
    drawn = [
        sdk.completions.create(model="base", prompt=["ab", "cde"], n=2, seed=9, stop=["q", "zz"], max_tokens=6, logprobs=5)
        for _ in range(2)
    ]
    assert [c.text for c in drawn[0].choices] == [c.text for c in drawn[1].choices]
    assert [c.index for c in drawn[0].choices] == [0, 1, 2, 3]
    logprobs = drawn[0].choices[0].logprobs
    assert logprobs is not None
    assert all(len(top) >= 5 for top in logprobs.top_logprobs or [])
    chat = sdk.chat.completions.create(
        model="base",
        messages=USER,  # type: ignore[arg-type]
        logprobs=True,
        top_logprobs=2,
        max_completion_tokens=3,
        extra_body={"ignore_eos": True, "top_k": 50},
    )
    content = chat.choices[0].logprobs and chat.choices[0].logprobs.content
    assert content
    assert len(content) == 3
    assert all(len(token.top_logprobs) == 2 and token.bytes for token in content)


def test_our_own_fields_go_in_the_extra_body(sdk: OpenAI, house: House) -> None:
    fields = {"premise": "a", "hypothesis": "b"}
    (meant,) = house.model("pair").predict([fields])
    chat = sdk.chat.completions.create(model="pair", messages=[], extra_body={"fields": fields})
    assert chat.choices[0].message.content == meant.label


def test_models_are_found(sdk: OpenAI) -> None:
    assert {"routing", "toy-llama"} <= {model.id for model in sdk.models.list()}
    assert sdk.models.retrieve("routing@prod").owned_by == "epigraph"
    with pytest.raises(openai.NotFoundError, match="there is no model 'nope'") as caught:
        sdk.models.retrieve("nope")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_faults_raise_the_right_class(sdk: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model"):
        sdk.completions.create(model="nope", prompt="x")
    with pytest.raises(openai.BadRequestError, match="virtual tokens") as caught:
        sdk.completions.create(model="writer", prompt="x" * 600)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="temperature"):
        sdk.completions.create(model="writer", prompt="x", temperature=-1)
    with pytest.raises(openai.BadRequestError, match="tools is not supported"):
        sdk.chat.completions.create(
            model="base",
            messages=USER,  # type: ignore[arg-type]
            tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        )


def test_a_fault_in_the_middle_of_a_stream_is_raised(house: House, run: Callable[..., Running]) -> None:
    running = run(house, timeout=0.2)
    with OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        extra = {"ignore_eos": True}
        stream = client.completions.create(model="base", prompt="x", max_tokens=400, stream=True, extra_body=extra)
        with pytest.raises(openai.APIError, match="took more than"):
            list(stream)


def test_a_key_is_a_key(house: House, run: Callable[..., Running], tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    token = new_key(file, "ann", prompts=("writer",))
    running = run(house, keys=str(file))
    with OpenAI(base_url=f"{running.url}/v1", api_key=token, max_retries=0) as client:
        assert client.completions.create(model="writer", prompt="x", max_tokens=1).choices
        with pytest.raises(openai.PermissionDeniedError, match="may not use"):
            client.completions.create(model="routing", prompt="x")
    with (
        OpenAI(base_url=f"{running.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="not known"),
    ):
        client.models.list()
