"""Stock vLLM servers as the engine: what is sent decodes to the tensor that the first layer reads, what comes back is passed on.

The server here is a tiny one that speaks vLLM's protocol and computes greedily from the embeddings that it was sent, so the
text is the same as our own engine's; `make test-vllm` does the same with the real thing.
"""

import asyncio
import base64
import io
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.testclient import TestClient
from torch import Tensor

from epigraph.base import Base, load_base
from epigraph.base.load import load_embedding
from epigraph.base.toy import toy_base
from epigraph.errors import Closing, ConfigError, QueueFull, TaskError
from epigraph.prompts import Embedded
from epigraph.serve import servers
from epigraph.serve.app import create_app
from epigraph.serve.service import Service
from epigraph.serve.settings import ServeConfig
from epigraph.serve.vllm import Upstream
from epigraph.serve.work import Carried, EndEvent, Event, Generation, Sampling
from tests.serving.conftest import House, build_house, eventually

GREEDY = {"temperature": 0}


@dataclass
class Fake:
    """A server that answers like vLLM; ``asked`` are the bodies it got."""

    base: Base
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0
    fails: int = 0
    says: str = "it does not fit"
    instead: Iterable[str] | None = None
    pace: float = 0.0

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        def models() -> Any:
            return {"object": "list", "data": [{"id": "served-model", "object": "model"}]}

        @app.post("/v1/completions")
        async def completions(request: Request) -> Response:
            body = await request.json()
            self.asked.append(body)
            if self.fails:
                error = {"error": {"message": self.says, "code": self.fails}}
                return JSONResponse(error, self.fails, {"retry-after": "60"})
            stream = self._stream(body) if self.instead is None else iter(self.instead)
            return StreamingResponse(stream, media_type="text/event-stream")

        return app

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        vectors = (
            decoded(body["prompt_embeds"]) if "prompt_embeds" in body else self.base.embed(torch.tensor(body["prompt"]))
        )
        said: list[int] = []
        sent = ""
        try:
            for number in range(body["max_tokens"]):
                token, logs = self._next(vectors, said, body.get("structured_outputs"))
                ended = token == self.base.end and not body.get("ignore_eos")
                said.append(token)
                done = ended or number == body["max_tokens"] - 1
                whole = self.base.detokenize(said)
                ready = whole if done else whole.rstrip("�")
                choice = {"index": 0, "text": ready[len(sent) :], "token_ids": [token]}
                sent = max(sent, ready, key=len)
                choice["finish_reason"] = ("stop" if ended else "length") if done else None
                if body.get("logprobs") is not None:
                    name, value = f"token_id:{token}", float(logs[token])
                    choice["logprobs"] = {"tokens": [name], "token_logprobs": [value], "top_logprobs": [{name: value}]}
                yield f"data: {json.dumps({'choices': [choice]})}\n\n"
                await asyncio.sleep(self.pace)
                if done:
                    break
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.left += 1
            raise

    def _next(self, vectors: Tensor, said: list[int], only: dict[str, Any] | None) -> tuple[int, Tensor]:
        whole = torch.cat([vectors, self.base.embed(torch.tensor(said, dtype=torch.long))])
        hidden = self.base.trunk(inputs_embeds=whole[None], use_cache=False).last_hidden_state[0, -1:]
        logs = torch.log_softmax(self.base.logits(hidden)[0], -1)
        if only is None:
            return int(logs.argmax()), logs
        choices = [self.base.tokenize(words) for words in only["choice"]]
        open_ = [ids for ids in choices if ids[: len(said)] == said]
        allowed = sorted({ids[len(said)] if len(ids) > len(said) else self.base.end for ids in open_})
        return max(allowed, key=lambda token: float(logs[token])), logs


def decoded(text: str) -> Tensor:
    """As vLLM reads it."""
    found = torch.load(io.BytesIO(base64.b64decode(text, validate=True)), weights_only=True, map_location="cpu")
    assert found.ndim == 2
    assert isinstance(found, Tensor)
    return found


@pytest.fixture(scope="module")
def fakes() -> Iterator[Callable[[Base], Fake]]:
    """Start such servers."""
    servers: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(base: Base) -> Fake:
        fake = Fake(base)
        server = uvicorn.Server(uvicorn.Config(fake.app(), port=0, log_config=None, access_log=False, ws="none"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
        thread.start()
        servers.append((server, thread))
        while not server.started:
            thread.join(0.01)
        fake.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        return fake

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Toy bases as folders; Gemma scales its embeddings outside the table."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    found = {}
    for architecture in ("llama", "gemma3"):
        base = toy_base(architecture, seed=4)
        found[architecture] = tmp_path_factory.mktemp("bases") / architecture
        base.model.save_pretrained(found[architecture])
        base.tokenizer.save_pretrained(found[architecture])
    return found


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_the_embedding_alone_embeds_like_the_whole_base(folders: dict[str, Path], architecture: str) -> None:
    whole, alone = load_base(folders[architecture], dtype="float32"), load_embedding(folders[architecture])
    ids = torch.tensor([1, 5, 250, 5])
    assert torch.equal(whole.embed(ids), alone.embed(ids))
    assert (alone.fingerprint, alone.context, alone.layers, alone.end) == (whole.fingerprint, 512, 2, whole.end)
    assert not hasattr(alone.model, "model")


@dataclass
class Far:
    """Our server in front of one of theirs, and the library both look at."""

    house: House
    fake: Fake
    client: TestClient


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def far(
    request: pytest.FixtureRequest,
    folders: dict[str, Path],
    fakes: Callable[[Base], Fake],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Far]:
    whole = load_base(folders[request.param], dtype="float32")
    house = build_house(whole, tmp_path_factory.mktemp("far") / "library")
    fake = fakes(load_base(folders[request.param], dtype="float32"))
    alone = load_embedding(folders[request.param])
    config = ServeConfig(engine="vllm", at=fake.url)
    backend = Upstream(alone, config.urls, queue=8, seconds=60.0)
    service = Service(alone, house.root, backend, config, computes_here=False)
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield Far(house, fake, client)


@pytest.mark.parametrize("name", ["writer", "first", "two"])
def test_what_is_sent_is_what_the_first_layer_reads_and_the_text_is_the_same(far: Far, name: str) -> None:
    (meant,) = far.house.model(name).predict(["some text"])
    body = {"model": name, "prompt": "some text", **GREEDY}
    answer = far.client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["text"] == meant.output
    sent = far.fake.asked[-1]
    assert sent["model"] == "served-model"
    base, stored = far.house.base, far.house.library.get(name)
    first, *rest = far.house.model(name).task.template.text.replace("{text}", "some text").split("{prompt}")
    parts = [base.embed(torch.tensor(base.tokenize(first), dtype=torch.long))]
    for form, segment in zip(stored.forms, rest, strict=True):
        parts += [form.vectors, base.embed(torch.tensor(base.tokenize(segment), dtype=torch.long))]  # type: ignore[union-attr]
    assert torch.equal(decoded(sent["prompt_embeds"]), torch.cat(parts))
    usage = answer.json()["usage"]
    assert usage["prompt_tokens"] == len("some text\nOutput:") or name == "two"
    assert usage["prompt_tokens_details"]["virtual_tokens"] == 3
    with far.client.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
        lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line]
    pieces = [json.loads(line)["choices"][0]["text"] for line in lines[:-1]]
    assert "".join(pieces) == meant.output


def test_labels_come_by_constrained_decoding_and_probabilities_are_not_to_be_had(far: Far) -> None:
    texts = ["a dog", "7"]
    answer = far.client.post("/v1/completions", json={"model": "words", "prompt": texts, "n": 2})
    assert answer.status_code == 200, answer.text
    labels = [choice["text"] for choice in answer.json()["choices"]]
    assert set(labels) <= {"animal", "metal", "number"}
    assert labels[0] == labels[1]
    assert far.fake.asked[-1]["structured_outputs"] == {"choice": [" animal", " metal", " number"]}
    # a real server once spelled a label by short tokens and ran out of room, which was a 502
    assert far.fake.asked[-1]["max_tokens"] >= len(b" animal")
    refused = far.client.post("/v1/classify", json={"model": "words", "input": texts})
    assert refused.status_code == 501
    assert refused.headers["x-should-retry"] == "false"
    scored = far.client.post("/v1/completions", json={"model": "words", "prompt": texts, "logprobs": 1})
    assert (scored.status_code, scored.json()["error"]["code"]) == (400, "unsupported")  # they were empty lists, silently
    assert "/v1/completions" in refused.json()["error"]["message"]


def test_keys_and_values_are_refused_with_the_way_out(far: Far) -> None:
    for name in ("notes", "routing"):
        answer = far.client.post("/v1/completions", json={"model": name, "prompt": "x"})
        assert answer.status_code == 400
        assert "tune --portable" in answer.json()["error"]["message"]
    echo = far.client.post("/v1/completions", json={"model": "first", "prompt": "x", "raw": True, "echo": True})
    assert (echo.status_code, echo.json()["error"]["code"]) == (400, "unsupported")


def test_the_bare_base_is_asked_by_token_ids_with_logprobs(far: Far) -> None:
    body = {"model": "base", "prompt": "abc", "max_tokens": 2, "logprobs": 1, "seed": 3, "stop": "zz", "top_k": 5, **GREEDY}
    answer = far.client.post("/v1/completions", json={**body, "ignore_eos": True})
    assert len(answer.json()["choices"][0]["logprobs"]["tokens"]) == 2
    sent = far.fake.asked[-1]
    assert sent["prompt"] == far.house.base.tokenize("abc")
    assert (sent["seed"], sent["stop"], sent["top_k"], sent["max_tokens"]) == (3, ["zz"], 5, 2)


def test_its_refusals_reach_the_client_as_what_they_mean(far: Far, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it was that failed over there, clients read that this server had, and no log said anything."""
    try:
        for status, ours, retry in ((400, 400, None), (500, 502, None), (503, 503, "60"), (429, 429, "60")):
            far.fake.fails = status
            answer = far.client.post("/v1/completions", json={"model": "first", "prompt": "x"})
            assert (answer.status_code, answer.headers.get("retry-after")) == (ours, retry)
            assert status == 400 or answer.json()["error"]["code"] == "upstream"
        assert "it does not fit" not in answer.json()["error"]["message"]
    finally:
        far.fake.fails = 0
    assert [record.message.partition("failed: ")[2] for record in caplog.records] == [
        "the vLLM server answered with status 500.",
        "the vLLM server is busy (status 503).",
        "the vLLM server is busy (status 429).",
    ]


def test_a_server_without_prompt_embeds_is_told(far: Far) -> None:
    far.fake.fails, far.fake.says = 400, "You must set --enable-prompt-embeds"
    try:
        answer = far.client.post("/v1/completions", json={"model": "first", "prompt": "x"})
    finally:
        far.fake.fails, far.fake.says = 0, "it does not fit"
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream")
    assert "without --enable-prompt-embeds" in answer.json()["error"]["message"]


def piece(**said: Any) -> str:
    return (
        f"data: {json.dumps({'choices': [{'index': 0, 'text': 'a', 'token_ids': [97], 'finish_reason': None, **said}]})}\n\n"
    )


@pytest.mark.parametrize(
    ("instead", "words"),
    [
        (itertools.repeat("x" * 65536), "answer has more than"),
        (itertools.repeat(":" + "x" * 65536 + "\n"), "answer has more than"),
        (itertools.repeat(piece()), "more than the 4 tokens"),
        ([piece(index=-1)], "what was not asked"),
        ([piece(finish_reason="stop"), piece()], "what was not asked"),
    ],
)
def test_a_server_that_says_too_much_is_not_listened_to(far: Far, instead: Iterable[str], words: str) -> None:
    """What came was taken to its end and into memory, however much it was."""
    far.fake.instead = instead
    try:
        answer = far.client.post("/v1/completions", json={"model": "base", "prompt": "x", "n": 2, "max_tokens": 4})
    finally:
        far.fake.instead = None
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream")
    assert words in answer.json()["error"]["message"]


def test_a_refusal_is_read_no_further_than_it_can_be_told(far: Far) -> None:
    far.fake.fails, far.fake.says = 500, "x" * (4 << 20)
    try:
        answer = far.client.post("/v1/completions", json={"model": "base", "prompt": "x", "max_tokens": 4})
    finally:
        far.fake.fails, far.fake.says = 0, "it does not fit"
    assert (answer.status_code, len(answer.content) < 1000) == (502, True)


def test_what_is_on_its_way_to_servers_has_a_bound(folders: dict[str, Path], fakes: Callable[[Base], Fake]) -> None:
    """Embedded texts are a thousand times their tokens: a full queue of long ones was more than the memory."""
    fake = fakes(load_base(folders["llama"], dtype="float32"))
    fake.pace = 0.05
    alone = load_embedding(folders["llama"])
    job = Generation(
        segments=((1, 2), (3,)),
        prompt=Carried(name="x", content="x", forms=(Embedded(torch.zeros(400, alone.hidden)),)),
        sampling=Sampling(max_tokens=60, ignore_end=True),
    )
    backend = upstream(alone, fake.url, most_held=150_000)
    size = backend.size_of(job)
    assert len(json.dumps(backend.body(job))) < size < 150_000
    backend.start()
    heard: list[Event] = []
    try:
        first = backend.submit(job, heard.append)
        with pytest.raises(QueueFull, match="MB already"):
            backend.submit(job, heard.append)
        assert backend.load.held_bytes == size
        first.cancel()
        eventually(lambda: not backend.load.running)
        assert backend.load.held_bytes == 0
        with pytest.raises(TaskError, match="would hold"):
            backend.submit(replace(job, sampling=Sampling(n=8, max_tokens=4000, logprobs=5)), heard.append)
    finally:
        backend.close(drain=False, timeout=1.0)


def upstream(base: Base, *urls: str, queue: int = 8, most_held: int = 10**8) -> Upstream:
    return Upstream(base, urls, queue=queue, seconds=60.0, most_held=most_held)


def test_one_that_never_began_closes_what_it_opened(house: House) -> None:
    """It waited for an answer from a loop that did not run, and left the loop open where nobody closed it."""
    backend = upstream(house.base, "http://127.0.0.1:1")
    backend.close(drain=True, timeout=1.0)
    with pytest.raises(Closing):
        backend.submit(Generation(segments=((1,),), prompt=None, sampling=Sampling(max_tokens=1)), lambda _event: None)


def test_a_server_that_is_gone_or_busy_is_passed_over(
    folders: dict[str, Path], fakes: Callable[[Base], Fake], house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is gone was the least busy, so every request began by waiting for it; one that was busy was the end."""
    monkeypatch.setattr(servers, "FIRST_PAUSE", 1000.0)
    monkeypatch.setattr(servers, "LONGEST_PAUSE", 1000.0)
    busy, fake = (fakes(load_base(folders["llama"], dtype="float32")) for _ in range(2))
    config = ServeConfig(engine="vllm", at=f"http://127.0.0.1:9,{busy.url},{fake.url}")
    alone = load_embedding(folders["llama"])
    backend = upstream(alone, *config.urls)
    service = Service(alone, house.root, backend, config, computes_here=False)
    busy.fails = 503
    with TestClient(create_app(service), base_url="http://localhost") as client:
        for _ in range(3):
            assert client.post("/v1/completions", json={"model": "base", "prompt": "x", "max_tokens": 1}).status_code == 200
        assert (len(busy.asked), len(fake.asked), backend.load.retries) == (1, 3, 1)
        fake.fails = 429
        answer = client.post("/v1/completions", json={"model": "base", "prompt": "x", "max_tokens": 1})
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream")  # all were asked, the gone one last


def test_no_server_at_all_is_the_users_fault_at_the_start(folders: dict[str, Path]) -> None:
    backend = upstream(load_embedding(folders["llama"]), "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="no vLLM server answers"):
        backend.start()
    backend.close(drain=False, timeout=1.0)


def test_who_leaves_before_its_request_was_begun_frees_its_place(
    folders: dict[str, Path], fakes: Callable[[Base], Fake]
) -> None:
    """Its task was cancelled before its first step, so that what ends a request never ran: its place in the queue was lost."""
    fake = fakes(load_base(folders["llama"], dtype="float32"))
    backend = upstream(load_embedding(folders["llama"]), fake.url, queue=1)
    backend.start()
    heard: list[Event] = []
    busy = threading.Event()
    try:
        backend._loop.call_soon_threadsafe(busy.wait, 10)
        sampling = Sampling(max_tokens=4)
        backend.submit(Generation(segments=((1, 2),), prompt=None, sampling=sampling), heard.append).cancel()
        busy.set()
        eventually(lambda: not backend.load.running and bool(heard))
    finally:
        busy.set()
        backend.close(drain=False, timeout=1.0)
    (end,) = heard
    assert isinstance(end, EndEvent)
    assert (end.reason, end.error) == ("cancelled", None)


def test_after_the_end_nothing_is_taken_and_leaving_is_no_fault(
    folders: dict[str, Path], fakes: Callable[[Base], Fake]
) -> None:
    """Whoever was ended by a shutdown gave up its ticket then, in a loop that was closed: a 500 instead of a 503."""
    fake = fakes(load_base(folders["llama"], dtype="float32"))
    fake.pace = 0.05
    backend = upstream(load_embedding(folders["llama"]), fake.url)
    backend.start()
    heard: list[Event] = []
    job = Generation(segments=((1, 2),), prompt=None, sampling=Sampling(max_tokens=400, ignore_end=True))
    claim = backend.submit(job, heard.append)
    eventually(lambda: bool(heard))
    backend.close(drain=True, timeout=0.0)
    claim.cancel()
    assert isinstance(heard[-1], EndEvent)
    assert heard[-1].reason == "cancelled"
    with pytest.raises(QueueFull, match="closing"):
        backend.submit(job, heard.append)


def test_leaving_closes_the_connection_and_a_full_queue_is_429(
    folders: dict[str, Path], fakes: Callable[[Base], Fake], house: House
) -> None:
    fake = fakes(load_base(folders["llama"], dtype="float32"))
    fake.pace = 0.05
    alone = load_embedding(folders["llama"])
    config = ServeConfig(engine="vllm", at=fake.url, timeout=0.3)
    backend = upstream(alone, fake.url, queue=1)
    service = Service(alone, house.root, backend, config, computes_here=False)
    body = {"model": "base", "prompt": "x", "max_tokens": 400, "ignore_eos": True}
    with TestClient(create_app(service), base_url="http://localhost") as client:
        assert client.post("/v1/completions", json={**body, "prompt": ["x", "y"]}).status_code == 429
        eventually(lambda: not backend.load.running)
        assert client.post("/v1/completions", json=body).status_code == 504
        eventually(lambda: not backend.load.running and fake.left > 0)
        assert client.post("/v1/completions", json={**body, "max_tokens": 1}).status_code == 200


def test_the_settings_belong_together() -> None:
    for wrong in ({"engine": "vllm"}, {"at": "http://x"}, {"engine": "vllm", "at": "x"}, {"engine": "other"}):
        with pytest.raises(ConfigError, match=r"--at|engine"):
            ServeConfig(**wrong)
