"""Answers over HTTP equal those of the prompt in this process, whatever shape they are asked in."""

import json
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from epigraph.engine.plain import plain_states
from epigraph.tasks.encode import Encoded
from tests.serving.conftest import LABELS, House

TEXTS = ["a dog", "some iron and more of it", "7"]
GREEDY = {"temperature": 0}


def ask(client: TestClient, path: str, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client: TestClient, path: str, status: int = 400, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


def streamed(client: TestClient, path: str, **body: Any) -> list[Any]:
    answer = client.post(path, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *lines, last = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert last == "[DONE]"
    return [json.loads(line) for line in lines]


# ---- classification --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["routing", "words", "routing@1", "routing@prod", "routing@latest"])
def test_labels_and_probabilities_equal_those_in_process(client: TestClient, house: House, name: str) -> None:
    found = ask(client, "/v1/classify", model=name, input=TEXTS)["data"]
    for one, meant in zip(found, house.model(name).predict(TEXTS), strict=True):
        assert one["label"] == meant.label
        assert one["probabilities"] == pytest.approx(meant.probabilities, abs=1e-5)
    assert [one["index"] for one in found] == [0, 1, 2]


def test_one_text_and_named_fields_can_be_classified(client: TestClient, house: House) -> None:
    assert len(ask(client, "/v1/classify", model="routing", input="a dog")["data"]) == 1
    fields = {"premise": "it rains", "hypothesis": "it is wet"}
    (meant,) = house.model("pair").predict([fields])
    (found,) = ask(client, "/v1/classify", model="pair", input=fields)["data"]
    assert found["probabilities"] == pytest.approx(meant.probabilities, abs=1e-5)


def test_a_classification_prompt_answers_its_label_everywhere(client: TestClient, house: House) -> None:
    (meant,) = house.model("routing").predict([TEXTS[0]])
    chat = [{"role": "user", "content": TEXTS[0]}]
    assert ask(client, "/v1/completions", model="routing", prompt=TEXTS[0])["choices"][0]["text"] == meant.label
    answer = ask(client, "/v1/chat/completions", model="routing", messages=chat, logprobs=True, top_logprobs=3, n=2)
    assert [choice["message"]["content"] for choice in answer["choices"]] == [meant.label] * 2
    (one,) = answer["choices"][0]["logprobs"]["content"]
    assert {top["token"] for top in one["top_logprobs"]} == set(LABELS)
    assert torch.tensor(one["logprob"]).exp().item() == pytest.approx(max(meant.probabilities.values()), abs=1e-5)
    chunks = streamed(client, "/v1/completions", model="routing", prompt=TEXTS[0])
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == meant.label
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


# ---- generation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["writer", "notes", "first", "two"])
def test_texts_equal_those_in_process_whole_and_streamed(client: TestClient, house: House, name: str) -> None:
    meant = [one.output for one in house.model(name).predict(TEXTS)]
    found = ask(client, "/v1/completions", model=name, prompt=TEXTS, **GREEDY)["choices"]
    assert [choice["text"] for choice in found] == meant
    pieces = streamed(client, "/v1/completions", model=name, prompt=TEXTS, **GREEDY)
    for index, text in enumerate(meant):
        assert "".join(c["text"] for piece in pieces for c in piece["choices"] if c["index"] == index) == text
    message = [{"role": "user", "content": TEXTS[0]}]
    assert (
        ask(client, "/v1/chat/completions", model=name, messages=message, **GREEDY)["choices"][0]["message"]["content"]
        == (meant[0])
    )
    chunks = streamed(client, "/v1/chat/completions", model=name, messages=message, **GREEDY)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == meant[0]


def test_usage_counts_tokens_and_apart_from_them_virtual_ones(client: TestClient, house: House) -> None:
    body = {"model": "writer", "prompt": TEXTS[:2], "max_tokens": 2, "ignore_eos": True, "n": 2, **GREEDY}
    usage = ask(client, "/v1/completions", **body)["usage"]
    rendered = [len(f"{text}\nOutput:") for text in TEXTS[:2]]  # a byte a token
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (sum(rendered), 8)
    assert usage["total_tokens"] == sum(rendered) + 8
    assert usage["prompt_tokens_details"]["virtual_tokens"] == 6
    last = streamed(client, "/v1/completions", **body, stream_options={"include_usage": True})[-1]
    assert last["choices"] == []
    assert {k: v for k, v in last["usage"].items() if k != "prompt_tokens_details"} == {
        k: v for k, v in usage.items() if k != "prompt_tokens_details"
    }


def test_a_seed_draws_the_same_again_and_choices_differ(client: TestClient) -> None:
    body = {"model": "writer", "prompt": "x", "n": 3, "seed": 11, "max_tokens": 8, "ignore_eos": True}
    first, again = (ask(client, "/v1/completions", **body)["choices"] for _ in range(2))
    assert first == again
    assert len({choice["text"] for choice in first}) > 1
    assert [choice["index"] for choice in first] == [0, 1, 2]


def test_a_stop_text_ends_and_is_left_out_also_while_it_streams(client: TestClient) -> None:
    body = {"model": "base", "prompt": "abc", "max_tokens": 12, "ignore_eos": True, "seed": 5, "top_k": 40}
    text = ask(client, "/v1/completions", **body)["choices"][0]["text"]
    stop = next(character for character in text[2:] if character != "�")
    (choice,) = ask(client, "/v1/completions", **body, stop=["never", stop])["choices"]
    assert choice["text"] == text[: text.index(stop)]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    pieces = streamed(client, "/v1/completions", **body, stop=stop)
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == choice["text"]


# ---- raw requests ----------------------------------------------------------------------------------------------------


def reference_logprobs(house: House, name: str | None, segments: list[list[int]]) -> torch.Tensor:
    """log p of every token but the first, by the stock forward; a prompt stands before the first token."""
    forms = house.library.get(name).forms if name else []
    rows = tuple(tuple(segment) for segment in segments)
    hidden = plain_states(house.base, Encoded(rows), forms)
    logs = torch.log_softmax(house.base.logits(hidden), -1)
    last = segments[-1]
    return logs[:-1].gather(1, torch.tensor(last[1:])[:, None])[:, 0]


@pytest.mark.parametrize(("name", "place"), [("base", None), ("first", None), ("first", 0), ("writer", 0), ("notes", 0)])
def test_echoed_logprobs_are_conditioned_on_the_prompt(
    client: TestClient, house: House, name: str, place: int | None
) -> None:
    """What lm-evaluation-harness reads: token ids in a batch, echo, one token more, virtual tokens in no list."""
    batch = [house.base.tokenize(text) for text in ("the sky is blue", "no")]
    extra = {} if place is None else {"prompt_at": place}
    body = {"model": name, "prompt": batch, "max_tokens": 1, "logprobs": 1, "echo": True, "seed": 1, **GREEDY, **extra}
    choices = sorted(ask(client, "/v1/completions", **body)["choices"], key=lambda choice: choice["index"])
    for ids, choice in zip(batch, choices, strict=True):
        logprobs = choice["logprobs"]
        lengths = {len(logprobs[key]) for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}
        assert lengths == {len(ids) + 1}
        assert logprobs["token_logprobs"][0] is None
        meant = reference_logprobs(house, None if name == "base" else name, [ids] if name == "base" else [[], ids])
        assert logprobs["token_logprobs"][1:-1] == pytest.approx(meant.tolist(), abs=1e-4)
        assert all(logprobs["top_logprobs"][1:])
        after = zip(logprobs["top_logprobs"][1:], logprobs["token_logprobs"][1:], strict=True)
        assert all(max(top.values()) >= value for top, value in after)
        assert choice["text"].startswith(house.base.detokenize(ids))


def test_echo_alone_reads_and_writes_nothing(client: TestClient) -> None:
    (choice,) = ask(client, "/v1/completions", model="base", prompt="abc", echo=True, max_tokens=0, logprobs=0)["choices"]
    assert choice["text"] == "abc"
    assert (choice["finish_reason"], len(choice["logprobs"]["tokens"])) == ("length", 3)
    assert choice["logprobs"]["top_logprobs"] is None
    (plain,) = ask(client, "/v1/completions", model="base", prompt="abc", echo=True, max_tokens=0)["choices"]
    assert (plain["text"], plain["logprobs"]) == ("abc", None)


def test_offsets_are_places_in_the_text(client: TestClient, house: House) -> None:
    """They were sums of the tokens' names: "bytes:\\xc3", the end token and the white space that is left away counted."""
    path, text = "/v1/completions", "né là"
    (echoed,) = ask(client, path, model="base", prompt=text, echo=True, max_tokens=0, logprobs=0)["choices"]
    offsets = echoed["logprobs"]["text_offset"]
    assert offsets == [len(text.encode()[:n].decode(errors="ignore")) for n in range(len(text.encode()))]
    for name, seed in (("writer", 1), ("base", 2)):
        body = {"model": name, "prompt": "abc", "max_tokens": 40, "logprobs": 0, "seed": seed}
        (choice,) = ask(client, path, **body)["choices"]
        found = choice["logprobs"]
        assert found["text_offset"] == sorted(found["text_offset"])
        assert found["text_offset"][-1] <= len(choice["text"])
        pieces = [c for piece in streamed(client, path, **body) for c in piece["choices"] if c["logprobs"]]
        said = ""
        for piece in pieces:
            assert set(piece["logprobs"]["text_offset"]) <= {len(said)}
            said += piece["text"]
        assert said == choice["text"]


def test_raw_adds_nothing_and_puts_the_prompt_where_it_was_asked(client: TestClient, house: House) -> None:
    def text(**body: Any) -> str:
        found = ask(client, "/v1/completions", max_tokens=6, ignore_eos=True, **GREEDY, **body)
        assert isinstance(found["choices"][0]["text"], str)
        return str(found["choices"][0]["text"])

    rendered = "abc\nOutput:"
    whole = text(model="writer", prompt="abc")
    split = house.library.get("writer").card.task["template"].partition("{prompt}")[0].replace("{text}", "abc")
    assert text(model="writer", prompt=rendered, raw=True, prompt_at=len(split)).strip() == whole
    assert text(model="writer", prompt=house.base.tokenize(rendered), prompt_at=len(split)).strip() == whole
    by_default = text(model="writer", prompt=rendered, raw=True)
    assert by_default == text(model="writer", prompt=rendered, raw=True, prompt_at=len(rendered))
    assert text(model="notes", prompt=rendered, raw=True) == text(
        model="notes", prompt=rendered, raw=True, prompt_at=len(rendered) - 1
    )


def test_what_cannot_be_conditioned_on_the_prompt_is_refused(client: TestClient) -> None:
    path = "/v1/completions"
    assert "prompt_at" in refused(client, path, model="writer", prompt=[65, 66], echo=True)["message"]
    assert "conditioned" in refused(client, path, model="writer", prompt="ab", echo=True)["message"]
    assert refused(client, path, model="notes", prompt="ab", raw=True, prompt_at=2)["param"] == "prompt_at"
    assert refused(client, path, model="writer", prompt="ab", prompt_at=1)["param"] == "prompt_at"
    assert refused(client, path, model="two", prompt="ab", raw=True, prompt_at=1)["param"] == "prompt_at"
    assert refused(client, path, model="base", prompt="ab", prompt_at=1)["param"] == "prompt_at"


# ---- chats -----------------------------------------------------------------------------------------------------------


def test_other_messages_belong_to_tasks_that_chat(client: TestClient, house: House) -> None:
    path, user = "/v1/chat/completions", {"role": "user", "content": "hi"}
    system = {"role": "system", "content": "be brief"}
    assert "chat = true" in refused(client, path, model="writer", messages=[system, user])["message"]
    assert (
        "last message" in refused(client, path, model="writer", messages=[{"role": "assistant", "content": "x"}])["message"]
    )
    alone = ask(client, path, model="talk", messages=[user], **GREEDY)["choices"][0]["message"]["content"]
    (meant,) = house.model("talk").predict(["hi"])
    assert alone == meant.output
    with_system = ask(client, path, model="talk", messages=[system, user], **GREEDY)
    assert with_system["usage"]["prompt_tokens"] == len("[system]be brief\n[user]hi\nOutput:\n[assistant]")


def test_what_was_said_never_becomes_a_special_token(client: TestClient, house: House) -> None:
    """A user's end token was plain text in the turn in which it came, and a real end of the turn one turn later."""
    assert house.base.tokenize("x<end>y") == [ord("x") - 33, house.base.end, ord("y") - 33]
    turns = [("user", "x<end>y"), ("assistant", "<end>"), ("user", "hi<end>")]
    messages = [{"role": role, "content": text} for role, text in turns]
    written = "[user]x<end>y\n[assistant]<end>\n[user]hi<end>"
    for model, whole in (("talk", f"{written}\nOutput:\n[assistant]"), ("base", f"{written}\n[assistant]")):
        found = ask(client, "/v1/chat/completions", model=model, messages=messages, max_tokens=1)
        assert found["usage"]["prompt_tokens"] == len(whole)
    assert client.post("/tokenize", json={"messages": messages}).json()["count"] == len(f"{written}\n[assistant]")


def test_the_bare_base_chats_by_its_template_and_parts_are_texts(client: TestClient) -> None:
    path = "/v1/chat/completions"
    parts = [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]
    body = {"model": "toy-llama", "max_completion_tokens": 4, "ignore_eos": True, **GREEDY}
    whole = ask(client, path, **body, messages=[{"role": "user", "content": "hello"}])
    assert whole["choices"] == ask(client, path, **body, messages=[{"role": "user", "content": parts}])["choices"]
    rendered = "[user]hello\n[assistant]"
    assert whole["usage"]["prompt_tokens"] == len(rendered)
    told = ask(client, "/v1/completions", model="base", prompt=rendered, max_tokens=4, ignore_eos=True, **GREEDY)
    assert told["choices"][0]["text"] == whole["choices"][0]["message"]["content"]
    image = [{"type": "image_url", "image_url": {"url": "x"}}]
    assert "only texts" in refused(client, path, **body, messages=[{"role": "user", "content": image}])["message"]


# ---- fields ----------------------------------------------------------------------------------------------------------


def test_several_fields_come_by_name_and_a_text_fills_the_one_that_is_left(client: TestClient, house: House) -> None:
    path = "/v1/completions"
    error = refused(client, path, model="pair", prompt="x")
    assert "'premise', 'hypothesis'" in error["message"]
    assert refused(client, path, model="pair", prompt="x", fields={"nope": "y"})["param"] == "fields"
    assert refused(client, path, model="pair", fields={"premise": "y"})["param"] == "fields"
    fields = {"premise": "a", "hypothesis": "b"}
    (meant,) = house.model("pair").predict([fields])
    for body in ({"fields": fields}, {"fields": {"premise": "a"}, "prompt": "b"}):
        assert ask(client, path, model="pair", **body)["choices"][0]["text"] == meant.label
    chat = ask(client, "/v1/chat/completions", model="pair", fields=fields)
    assert chat["choices"][0]["message"]["content"] == meant.label
    both = ask(client, path, model="pair", fields=[fields, {"premise": "c", "hypothesis": "d"}])
    assert len(both["choices"]) == 2


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"prompt": "x", "temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"prompt": "x", "n": 0}, "n", "greater than or equal to 1"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens", "nothing to answer"),
        ({"prompt": "x", "max_tokens": 5000}, "max_tokens", "at most 4096"),
        ({"prompt": "x", "logprobs": 99}, "logprobs", "less than or equal to 20"),
        ({"prompt": "x", "stream_options": {"include_usage": True}}, "stream_options", "without stream"),
        ({"prompt": "x", "suffix": "y"}, "suffix", "not supported"),
        ({"prompt": "x", "logit_bias": {"1": 5}}, "logit_bias", "not supported"),
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": []}, "prompt", ""),
        ({}, "prompt", "missing"),
        ({"prompt": [999999]}, "prompt", "0 to 259"),
        ({"prompt": "x" * 600}, "prompt", "600 tokens"),
        ({"prompt": ["x"] * 100, "n": 2}, "n", "make 200 answers"),
        ({"prompt": "x", "max_tokens": "7"}, "max_tokens", "valid integer"),
    ],
)
def test_a_fault_of_the_request_names_its_field(client: TestClient, body: dict[str, Any], param: str, words: str) -> None:
    error = refused(client, "/v1/completions", model="base", **body)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]


def test_a_text_too_long_names_the_virtual_tokens_and_may_be_shortened(client: TestClient, house: House) -> None:
    long = "dog " * 200
    for path, body in (("/v1/completions", {"prompt": long}), ("/v1/classify", {"input": long})):
        error = refused(client, path, model="routing", **body)
        assert error["code"] == "context_length_exceeded"
        assert "3 virtual tokens" in error["message"]
    (meant,) = house.model("routing").predict([long])
    (found,) = ask(client, "/v1/classify", model="routing", input=long, truncate=True)["data"]
    assert found["probabilities"] == pytest.approx(meant.probabilities, abs=1e-5)


@pytest.mark.parametrize("model", ["nope", "routing@9", "routing@canary", "auto", "../etc/passwd", "a/b", "", "con"])
def test_an_unknown_model_is_404(client: TestClient, model: str) -> None:
    error = refused(client, "/v1/completions", 404, model=model, prompt="x")
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert str(client.app) not in error["message"]


def test_what_is_no_json_or_no_route_is_said_in_the_same_shape(client: TestClient) -> None:
    broken = client.post("/v1/completions", content=b'{"model":', headers={"content-type": "application/json"})
    deep = client.post("/v1/completions", content=b"[" * 100_000, headers={"content-type": "application/json"})
    for answer, status in (
        (broken, 400),
        (deep, 400),
        (client.get("/v1/nothing"), 404),
        (client.get("/v1/completions"), 405),
    ):
        assert answer.status_code == status
        assert answer.json()["error"]["message"]


def test_the_bare_base_has_no_labels(client: TestClient) -> None:
    for model in ("base", "writer"):
        assert "no labels" in refused(client, "/v1/classify", model=model, input="x")["message"]


# ---- models and tokens -----------------------------------------------------------------------------------------------


def test_models_are_listed_with_what_they_stand_for(client: TestClient) -> None:
    cards = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    assert {"toy-llama", "routing", "routing@prod", "writer"} <= set(cards)
    assert (cards["toy-llama"]["parent"], cards["routing"]["parent"]) == (None, "toy-llama")
    assert cards["routing@prod"]["root"] == cards["routing"]["root"] == "routing@1"
    assert cards["routing"]["max_model_len"] == 512 - 3
    assert client.get("/v1/models/routing@1").json()["id"] == "routing@1"
    assert client.get("/v1/models/base").json()["id"] == "toy-llama"
    assert client.get("/v1/models/nope").status_code == 404


def test_the_tokenizer_speaks_both_ways(client: TestClient) -> None:
    found = client.post("/tokenize", json={"prompt": "né", "return_token_strs": True}).json()
    assert found["count"] == len(found["tokens"]) == 3
    assert found["token_strs"] == ["n", "bytes:\\xc3", "bytes:\\xa9"]
    assert client.post("/detokenize", json={"tokens": found["tokens"]}).json() == {"prompt": "né"}
    info = client.get("/tokenizer_info").json()
    assert info["eos_token"] == "<end>"
    chat = client.post("/tokenize", json={"messages": [{"role": "user", "content": "a"}]}).json()
    assert chat["count"] == len("[user]a\n[assistant]")
    assert client.post("/tokenize", json={}).status_code == 400
    assert client.post("/detokenize", json={"tokens": [10**6]}).status_code == 400


def test_prometheus_reads_what_was_done(client: TestClient) -> None:
    ask(client, "/v1/completions", model="writer", prompt="x", max_tokens=1)
    answer = client.get("/metrics")
    text = answer.text
    for line in ('epigraph_requests_total{route="/v1/completions",status="200"}', 'epigraph_tokens_total{kind="virtual"}'):
        assert line in text
    assert "epigraph_waiting 0.0" in text
    assert "writer" not in text
