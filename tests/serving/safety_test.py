"""Who is let in, how much is taken on, what becomes of clients that leave, and what is never written down."""

import asyncio
import base64
import json
import logging
import pickle
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient
from torch import full

from epigraph.errors import ConfigError, NameRefused
from epigraph.library.tensors import encode
from epigraph.serve.app import create_app
from epigraph.serve.batcher import Batcher
from epigraph.serve.faults import Refused
from epigraph.serve.keys import Keyring, new_key, read_keys
from epigraph.serve.log import textless, trace_of
from epigraph.serve.settings import ServeConfig
from tests.serving.conftest import House, Running, eventually

LONG = {"prompt": "x", "max_tokens": 400, "ignore_eos": True, "model": "base"}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


# ---- addresses and keys ----------------------------------------------------------------------------------------------


def test_only_loopback_without_keys() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.0.0.9"):
        assert ServeConfig(host=host).host == host
    for host in ("0.0.0.0", "192.168.1.4", "::", "example.org"):
        with pytest.raises(ConfigError, match="without API keys"):
            ServeConfig(host=host)
        assert ServeConfig(host=host, keys="keys.toml").host == host


def test_caches_are_as_large_as_the_machine_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of a gigabyte each were too many for a small machine."""
    for free, meant in ((2 * 10**9, 2 * 10**8), (10**11, 10**9)):
        monkeypatch.setattr("psutil.virtual_memory", lambda free=free: SimpleNamespace(available=free))
        assert ServeConfig().kept_bytes == meant
        assert ServeConfig(memory=0.5).kept_bytes == 5 * 10**8


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    file = tmp_path / "keys.toml"
    tokens = {
        "all": new_key(file, "all", uploads=True),
        "some": new_key(file, "some", prompts=("routing", "wr*"), rate=600.0),
        "slow": new_key(file, "slow", rate=2.0),
    }
    return file, tokens


def test_keys_are_kept_as_hashes_in_a_private_file(keys: tuple[Path, dict[str, str]]) -> None:
    file, tokens = keys
    text = file.read_text()
    assert not any(token in text for token in tokens.values())
    assert file.stat().st_mode & 0o077 == 0
    assert [key.name for key in read_keys(file)] == ["all", "some", "slow"]
    with pytest.raises(ConfigError, match="has a key 'all' already"):
        new_key(file, "all")
    with pytest.raises(NameRefused, match="cannot be used"):
        new_key(file, "../evil")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no keys"),
        ("[keys.a]\nsha256 = 'short'", "no sha256"),
        ("[keys.a]\nsecret = 'x'", "has secret"),
        ("[keys.a]\nsha256 = '" + "0" * 64 + "'\nrate = 0", "positive"),
        ("[keys.a]\nsha256 = '" + "0" * 64 + "'\nprompts = []", "no prompt at all"),
        ("keys = 3", "holds no keys"),
        ("[", "not valid TOML"),
    ],
)
def test_a_faulty_key_file_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_keys(tmp_path / "keys.toml")


def test_a_key_opens_what_it_may_and_no_more(own_house: House, keys: tuple[Path, dict[str, str]]) -> None:
    file, tokens = keys
    service, lines = own_house.service(keys=str(file))
    with TestClient(create_app(service), base_url="http://localhost") as client:

        def status(model: str, headers: dict[str, str]) -> int:
            body = {"model": model, "prompt": "x", "max_tokens": 1}
            return client.post("/v1/completions", json=body, headers=headers).status_code

        for headers in ({}, bearer("wrong"), {"authorization": "Basic x"}, {"authorization": f"Basic {tokens['all']}"}):
            answer = client.post("/v1/completions", content=b"not even read", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        assert client.get("/metrics").status_code == 401
        assert client.get("/health").status_code == 200
        assert status("routing", bearer(tokens["all"])) == status("base", bearer(tokens["all"])) == 200
        some = bearer(tokens["some"])
        assert [status(model, some) for model in ("routing", "routing@1", "writer")] == [200] * 3
        assert [status(model, some) for model in ("notes", "base", "nothere")] == [403] * 3
        listed = {card["id"] for card in client.get("/v1/models", headers=some).json()["data"]}
        assert listed == {"routing", "routing@prod", "writer"}
        entries = file.read_text().split("[keys.")
        file.write_text("[keys.".join(entry for entry in entries if not entry.startswith("some]")))
        assert status("routing", some) == 401
        assert status("routing", bearer(tokens["all"])) == 200
    assert not any(token in lines.getvalue() for token in tokens.values())


def test_a_file_without_keys_lets_nobody_in_and_a_faulty_one_is_told(
    own_house: House, keys: tuple[Path, dict[str, str]]
) -> None:
    """Revoking the last key, or deleting the file, did nothing; a typo kept every revocation from working, and nobody knew."""
    file, tokens = keys
    whole = file.read_text()
    service, lines = own_house.service(keys=str(file))
    with TestClient(create_app(service), base_url="http://localhost") as client:

        def status() -> int:
            return client.get("/v1/models", headers=bearer(tokens["all"])).status_code

        assert status() == 200
        for text, meant in (("", 401), (whole, 200), ("[keys]\n", 401), (whole, 200), (whole + "\n[", 200)):
            file.write_text(text)
            assert status() == status() == meant, text
        file.unlink()
        assert status() == 401
    told = [line for line in map(json.loads, lines.getvalue().splitlines()) if line["event"] == "keys_faulty"]
    assert len(told) == 1
    assert "not valid TOML" in told[0]["error"]


def test_what_another_key_has_asked_shows_in_no_count(house: House, keys: tuple[Path, dict[str, str]]) -> None:
    """``cached_tokens`` told whoever guessed a text whether somebody else had sent it; so did the seconds and /metrics."""
    file, tokens = keys
    service, _ = house.service(keys=str(file))
    secret = "the merger will be announced on the first of May"
    with TestClient(create_app(service), base_url="http://localhost") as client:

        def cached(who: str, model: str = "base") -> int:
            body = {"model": model, "prompt": secret, "max_tokens": 1}
            answer = client.post("/v1/completions", json=body, headers=bearer(tokens[who]))
            return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])

        assert cached("all") == 0
        hits = service.backend.load.text_hits
        assert client.post(
            "/v1/classify", json={"model": "routing", "input": secret}, headers=bearer(tokens["some"])
        ).is_success
        assert (cached("slow"), cached("slow", "first")) == (0, 0)  # vectors that stand first are no tokens of a text
        assert service.backend.load.text_hits == hits
        assert cached("all") == 32
        assert cached("all", "writer") > 0


def test_a_key_has_its_rate(house: House, keys: tuple[Path, dict[str, str]]) -> None:
    file, tokens = keys
    service, _ = house.service(keys=str(file))
    with TestClient(create_app(service), base_url="http://localhost") as client:
        answers = [client.get("/v1/models", headers=bearer(tokens["slow"])) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert 1 <= int(answers[2].headers["retry-after"]) <= 30
        assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
        assert client.get("/v1/models", headers=bearer(tokens["all"])).status_code == 200


def test_a_rate_below_one_a_minute_admits_the_first(tmp_path: Path) -> None:
    """Its bucket held less than one request, so it never admitted any."""
    file = tmp_path / "keys.toml"
    token = new_key(file, "rare", rate=0.5)
    keyring = Keyring(file)
    key = keyring.find(f"Bearer {token}")
    keyring.spend(key)
    with pytest.raises(Refused, match=r"0\.5 times a minute"):
        keyring.spend(key)


def test_a_foreign_name_for_this_address_is_refused_without_keys(client: TestClient) -> None:
    """A web page that lets its own name point here would be of the same origin to a browser; "[" was a 500."""
    for host, status in (
        ("[", 400),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost:1", 200),
        ("[::1]:8000", 200),
    ):
        assert client.get("/v1/models", headers={"host": host}).status_code == status


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_a_large_body_is_refused_declared_or_not(house: House) -> None:
    service, _ = house.service(body=0.01)
    with TestClient(create_app(service), base_url="http://localhost") as client:
        body = json.dumps({"model": "base", "prompt": "x" * 20_000}).encode()
        pieces = (body[i : i + 1000] for i in range(0, len(body), 1000))
        json_type = {"content-type": "application/json"}
        for answer in (client.post("/v1/completions", content=c, headers=json_type) for c in (body, pieces)):
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_a_full_queue_is_429_and_empties_again(house: House, run: Callable[..., Running]) -> None:
    running = run(house, rows=1)
    batcher = running.service.backend
    assert isinstance(batcher, Batcher)
    batcher.settings = replace(batcher.settings, queue_length=1)
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        done: list[int] = []

        def ask() -> None:
            done.append(client.post("/v1/completions", json={**LONG, "max_tokens": 20}).status_code)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(done) <= {200, 429}, running.lines.getvalue()
        assert 429 in done
        assert 200 in done
        body = {"model": "base", "prompt": ["x"] * 8, "max_tokens": 20, "ignore_eos": True}
        answer = client.post("/v1/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
        eventually(lambda: running.service.backend.load.running == 0)
        assert client.post("/v1/completions", json={**LONG, "max_tokens": 1}).status_code == 200


def test_an_answer_that_takes_too_long_is_stopped(house: House, run: Callable[..., Running]) -> None:
    running = run(house, timeout=0.05)
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        answer = client.post("/v1/completions", json=LONG)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        streamed = client.post("/v1/completions", json={**LONG, "stream": True}).text.strip().split("\n\n")
        assert json.loads(streamed[-2].removeprefix("data: "))["error"]["code"] == "timeout"
        assert streamed[-1] == "data: [DONE]"
    eventually(lambda: running.service.backend.load.running == 0)


# ---- clients that leave, and shutting down ---------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_computing(house: House, running: Running, stream: bool) -> None:
    backend = running.service.backend
    before = backend.load.tokens_generated
    body = json.dumps({**LONG, "n": 8, "stream": stream}).encode()
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        eventually(lambda: backend.load.running > 0)
    eventually(lambda: backend.load.running == 0)
    assert backend.load.tokens_generated - before < 8 * 400
    eventually(lambda: '"status": 499' in running.lines.getvalue())


def test_a_shutdown_finishes_what_runs(house: House, run: Callable[..., Running]) -> None:
    running = run(house)
    answers: list[Any] = []
    body = {**LONG, "max_tokens": 20}

    def ask() -> None:
        answers.append(httpx2.post(f"{running.url}/v1/completions", json=body, timeout=60))

    thread = threading.Thread(target=ask)
    thread.start()
    eventually(lambda: running.service.backend.load.running > 0)
    running.stop()
    thread.join()
    assert answers[0].status_code == 200
    assert answers[0].json()["usage"]["completion_tokens"] == 20
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{running.url}/health")


def test_while_what_runs_is_finished_nobody_else_is_sent_here(house: House, run: Callable[..., Running]) -> None:
    """/ready said so only after the sockets were closed, to nobody."""
    running = run(house)
    submit, go_on = running.service.backend.submit, threading.Event()

    def held(job: Any, listener: Any) -> Any:
        assert go_on.wait(30)
        return submit(job, listener)

    running.service.backend.submit = held  # type: ignore[method-assign]
    body = {"model": "base", "prompt": "x", "max_tokens": 2}

    def ask() -> httpx2.Response:
        return httpx2.post(f"{running.url}/v1/completions", json=body, timeout=60)

    with ThreadPoolExecutor(1) as pool:
        inside = pool.submit(ask)
        eventually(lambda: running.service.inside == 1)
        running.server.should_exit = True
        eventually(lambda: httpx2.get(f"{running.url}/ready").status_code == 503)
        late = ask()
        assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")
        go_on.set()
        assert inside.result().status_code == 200
    running.thread.join()


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_finished_in_the_grace_hears_why(house: House, run: Callable[..., Running], stream: bool) -> None:
    """Its task was cancelled before what computes, and the client got a 500 in plain text."""
    running = run(house, grace=0.0)
    body = {**LONG, "n": 16, "stream": stream}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx2.post, f"{running.url}/v1/completions", json=body, timeout=60)
        eventually(lambda: running.service.backend.load.running > 0)
        running.stop()
        found = answer.result()
    if stream:
        assert found.text.strip().split("\n\n")[-1] == "data: [DONE]"
        assert "shutting_down" in found.text
    else:
        assert (found.status_code, found.json()["error"]["code"]) == (503, "shutting_down")
        assert found.headers["retry-after"] == "1"


def test_a_body_that_never_came_hears_of_the_shutdown_too(
    house: House, run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is not at work in the engine is cancelled by the server, which would answer 500 in plain text."""
    monkeypatch.setattr("epigraph.serve.running.LAST_SECONDS", 0)
    running = run(house, grace=0.0)
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        )
        connection.sendall(head.encode())
        eventually(lambda: running.service.inside == 1)
        running.stop()
        answer = connection.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 503")
    assert "shutting_down" in answer


# ---- uploads ---------------------------------------------------------------------------------------------------------


def upload_of(house: House, name: str, reference: str = "routing") -> dict[str, str]:
    folder = house.library.folder(reference)
    prompt = base64.b64encode((folder / "prompt.safetensors").read_bytes()).decode()
    return {"name": name, "card": (folder / "card.toml").read_text(), "prompt": prompt}


def test_uploads_are_off_by_default(client: TestClient, house: House) -> None:
    assert client.post("/v1/prompts", json=upload_of(house, "up")).status_code == 404


def test_an_uploaded_prompt_is_served_as_the_next_version(own_house: House) -> None:
    service, _ = own_house.service(uploads=True)
    with TestClient(create_app(service), base_url="http://localhost") as client:
        for version in (1, 2):
            answer = client.post("/v1/prompts", json=upload_of(own_house, "up"))
            assert (answer.status_code, answer.json()) == (201, {"prompt": f"up@{version}"})
        texts = {"input": ["a dog"]}
        found = [client.post("/v1/classify", json={"model": name, **texts}).json()["data"] for name in ("up", "routing")]
        assert found[0][0]["probabilities"] == pytest.approx(found[1][0]["probabilities"], abs=1e-6)
        assert own_house.library.verify() == []
        assert "routing@1" in own_house.library.card("up").lineage.parents


def test_an_upload_that_is_not_whole_leaves_nothing(own_house: House) -> None:
    good = upload_of(own_house, "up")
    nan = encode(
        {"block0.keys": full((2, 2, 3, 4), float("nan")), "block0.values": full((2, 2, 3, 4), 1.0)}, {"epigraph": "1"}
    )
    faults = {
        "a pickle": {"prompt": base64.b64encode(pickle.dumps({"a": 1})).decode()},
        "no base64": {"prompt": "%%%"},
        "letters beyond ASCII, which once were a 500": {"prompt": "»¾¸?,"},
        "other bytes": {"prompt": base64.b64encode(nan).decode()},
        "a changed card": {"card": good["card"].replace("routing", "rooting")},
        "no TOML": {"card": "= ="},
        "a path as its name": {"name": "../../evil"},
        "a reserved name": {"name": "auto"},
        "an empty file": {"prompt": ""},
    }
    service, lines = own_house.service(uploads=True)
    before = sorted(path.relative_to(own_house.root) for path in own_house.root.rglob("*"))
    with TestClient(create_app(service), base_url="http://localhost") as client:
        for what, change in faults.items():
            answer = client.post("/v1/prompts", json={**good, **change})
            assert answer.status_code == 400, what
            assert str(own_house.root) not in answer.text
    assert sorted(path.relative_to(own_house.root) for path in own_house.root.rglob("*")) == before
    assert '"fault"' not in lines.getvalue()


def test_a_key_must_be_allowed_to_upload(own_house: House, keys: tuple[Path, dict[str, str]]) -> None:
    file, tokens = keys
    service, _ = own_house.service(uploads=True, keys=str(file))
    with TestClient(create_app(service), base_url="http://localhost") as client:
        body = upload_of(own_house, "writing")
        answer = client.post("/v1/prompts", json=body, headers=bearer(tokens["some"]))
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "uploads_not_allowed")
        assert client.post("/v1/prompts", json=body, headers=bearer(tokens["all"])).status_code == 201


def test_what_all_keys_have_asked_is_read_with_a_key_for_it_alone(
    own_house: House, keys: tuple[Path, dict[str, str]]
) -> None:
    """Every key read how much all others had asked, wrote and were refused."""
    file, tokens = keys
    service, _ = own_house.service(keys=str(file))
    with TestClient(create_app(service), base_url="http://localhost") as client:
        assert client.get("/metrics").status_code == 401
        answer = client.get("/metrics", headers=bearer(tokens["all"]))
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "metrics_not_allowed")
        reader = bearer(new_key(file, "prometheus", metrics=True))  # a running server notices
        answer = client.get("/metrics", headers=reader)
        assert answer.status_code == 200
        assert 'epigraph_refused_total{code="metrics_not_allowed"} 1.0' in answer.text


# ---- what is written down --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [False, True])
def test_users_texts_are_in_the_log_only_where_asked(house: House, texts: bool) -> None:
    service, lines = house.service(texts=texts)
    with TestClient(create_app(service), base_url="http://localhost") as client:
        said = "a very private sentence"
        client.post("/v1/completions", json={"model": "writer", "prompt": said})
        client.post("/v1/chat/completions", json={"model": "writer", "messages": [{"role": "user", "content": said}]})
        client.post("/v1/classify", json={"model": "routing", "input": [said]})
        client.post("/v1/completions", json={"model": "writer", "prompt": said, "temperature": said})
        client.get(f"/v1/models/{said}")
    log = lines.getvalue()
    assert (said in log) is texts
    entries = [json.loads(line) for line in log.splitlines()]
    assert [entry["status"] for entry in entries] == [200, 200, 200, 400, 404]
    assert entries[0]["prompt_tokens"] > 0


def test_a_fault_of_ours_is_500_and_logged_without_texts(house: House) -> None:
    service, lines = house.service()

    def fail(*_: object) -> None:
        raise RuntimeError("a very private sentence")

    service.backend.submit = fail  # type: ignore[method-assign]
    with TestClient(create_app(service), base_url="http://localhost") as client:
        answer = client.post("/v1/completions", json={"model": "base", "prompt": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
        assert "private" not in answer.text
    assert '"errors": ["RuntimeError"]' in lines.getvalue()
    assert "private" not in lines.getvalue()


def test_what_breaks_in_the_loop_is_logged_without_texts(house: House) -> None:
    """A task that nobody waited for was logged by the loop itself, with all that its error said."""
    service, lines = house.service()

    async def break_beside() -> None:
        app = create_app(service)
        async with app.router.lifespan_context(app):
            asyncio.get_running_loop().call_soon(fail)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def fail() -> None:
        raise RuntimeError("a very private sentence")

    asyncio.run(break_beside())
    (told,) = map(json.loads, lines.getvalue().splitlines())
    assert (told["event"], told["errors"]) == ("fault", ["RuntimeError"])
    assert "private" not in lines.getvalue()


def test_a_traceback_says_where_and_not_what(capsys: pytest.CaptureFixture[str]) -> None:
    """Tracebacks of the engine, and of the libraries below us, quoted the texts that they could not read."""
    log = logging.Logger("apart")  # without the handlers of the tests
    with textless():
        try:
            try:
                dict[str, int]()["a very private sentence"]
            except KeyError as error:
                raise ValueError("another one") from error
        except ValueError as error:
            log.exception("a fault")
            log.error("ours: %s", trace_of(error))
    said = capsys.readouterr().err
    assert said.count("ValueError from KeyError at serving/safety_test.py") == 2
    assert "private" not in said
    assert "another" not in said


def test_browsers_of_other_origins_are_let_in_only_where_asked(house: House) -> None:
    headers = {"origin": "https://app.example", "access-control-request-method": "POST"}
    for origins, allowed in (("", None), ("https://app.example", "https://app.example")):
        service, _ = house.service(origins=origins)
        with TestClient(create_app(service), base_url="http://localhost") as client:
            answer = client.options("/v1/completions", headers=headers)
            assert answer.headers.get("access-control-allow-origin") == allowed
