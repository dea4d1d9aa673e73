"""Addresses that are not epigraph's own: without echo, without log probabilities, that refuse or send elsewhere."""

import json
import math
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from epigraph.distilling import address as addresses
from epigraph.distilling.address import Address
from epigraph.distilling.remote import RemoteTeacher, first_token_logs, tree_logs
from epigraph.distilling.written import HardPrompt
from epigraph.errors import ConfigError, FetchFailed, Unsupported
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

TASK = Task.from_rows(["aa", "bb"] * 4, ["good", "bad"] * 4, name="moods")
ROWS = [Row(fields={"text": "cc"}), Row(fields={"text": "dd"})]
Answer = tuple[int, dict[str, Any]]
Seen = list[tuple[dict[str, Any], str]]
Serve = Callable[[Callable[[dict[str, Any]], Answer]], tuple[str, Seen]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Serve:
    """An address that answers as a function says; what it was asked, with the authorisation that came along."""
    monkeypatch.setattr(addresses, "FIRST_PAUSE", 0.0)

    def start(answer: Callable[[dict[str, Any]], Answer]) -> tuple[str, Seen]:
        seen: Seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                asked["path"] = self.path
                seen.append((asked, self.headers.get("authorization", "")))
                status, body = answer(asked)
                self.send_response(status)
                if "location" in body:
                    self.send_header("location", body["location"])
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def stop() -> None:
            server.shutdown()
            thread.join()
            server.server_close()

        request.addfinalizer(stop)
        return f"http://127.0.0.1:{server.server_port}", seen

    return start


def teacher(url: str) -> RemoteTeacher:
    hard = HardPrompt(task=TASK, text="Good or bad?")
    return RemoteTeacher(address=Address(url=url, model="big"), hard=hard, output_tokens=4)


def test_without_echo_the_likeliest_first_tokens_are_read(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")

    def answer(asked: dict[str, Any]) -> Answer:
        if asked.get("echo"):
            return 400, {"error": {"message": "echo is not supported"}}
        if asked["logprobs"] > 5:
            return 400, {"error": {"message": "at most 5"}}
        top = {" good": math.log(0.5), " go": math.log(0.1), " ba": math.log(0.2), "x": math.log(0.05)}
        return 200, {"choices": [{"index": 0, "text": " good", "logprobs": {"top_logprobs": [top]}}]}

    url, seen = serve(answer)
    found = teacher(url).teach(ROWS)
    assert [math.exp(log) for log in found[0].logs] == pytest.approx([0.2 / 0.8, 0.6 / 0.8])  # bad, good
    assert [("echo" in asked, asked["model"], key) for asked, key in seen[:2]] == [
        (True, "big", "Bearer secret"),
        (False, "big", "Bearer secret"),
    ]
    assert seen[0][0]["prompt"][0] == "Good or bad?\n\ncc\nLabel: bad"
    assert sum("echo" in asked for asked, _ in seen) == 1


def test_without_log_probabilities_it_is_refused_by_name(serve: Any) -> None:
    url, _ = serve(lambda asked: (200, {"choices": [{"text": "good"}] * (4 if asked.get("echo") else 1)}))
    with pytest.raises(Unsupported, match=f"big at {url} gives no log probabilities.*logprobs"):
        teacher(url).teach(ROWS)
    url, _ = serve(lambda _asked: (501, {"error": {"message": "logprobs are not implemented"}}))
    with pytest.raises(Unsupported, match=r"gives no log probabilities.*501.*not implemented"):
        teacher(url).teach(ROWS)


def test_an_answer_of_another_shape_is_named(serve: Any) -> None:
    """It ended as our own fault, with a traceback, and exit code 1."""
    shapes: list[Any] = [["x"], {"content": [{"top_logprobs": [{"token": "good"}]}]}]
    for logprobs in shapes:
        url, _ = serve(lambda asked, p=logprobs: (400, {}) if asked.get("echo") else (200, {"choices": [{"logprobs": p}]}))
        with pytest.raises(FetchFailed, match=f"big at {url} answered with something that cannot be read"):
            teacher(url).teach(ROWS)


def test_what_was_written_behind_an_echo_is_not_taken_for_the_label(serve: Any) -> None:
    """A server that takes max_tokens 0 for "as many as you like" echoes more than was sent."""

    def answer(asked: dict[str, Any]) -> Answer:
        if not asked.get("echo"):
            top = {" good": -0.1, " bad": -3.0}
            return 200, {"choices": [{"text": " good", "logprobs": {"top_logprobs": [top]}}]}
        tokens = {"tokens": ["a", "b"], "token_logprobs": [None, -1.0]}
        return 200, {
            "choices": [{"index": i, "text": t + " more", "logprobs": tokens} for i, t in enumerate(asked["prompt"])]
        }

    url, _ = serve(answer)
    assert teacher(url).teach(ROWS)[0].logs[1] > -0.1


def test_where_nothing_answers(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    url, seen = serve(lambda _asked: (503, {}))
    with pytest.raises(FetchFailed, match="refused with status 503"):
        teacher(url).teach(ROWS)
    assert len(seen) == addresses.TRIES
    elsewhere, reached = serve(lambda _asked: (200, {"choices": []}))
    url, _ = serve(lambda _asked: (307, {"location": elsewhere}))
    with pytest.raises(FetchFailed, match="refused with status 307"):
        teacher(url).teach(ROWS)
    assert reached == []  # the key goes to the named address only
    url, _ = serve(lambda _asked: (200, {"pages": 1}))
    with pytest.raises(FetchFailed, match="no completion"):
        teacher(url).teach(ROWS)
    with pytest.raises(FetchFailed, match=r"127\.0\.0\.1:1/v1/completions does not answer.*goes on from there"):
        teacher("http://127.0.0.1:1").teach(ROWS)
    with pytest.raises(ConfigError, match=r"holds a user name or password\. Put the key into \$OPENAI_API_KEY"):
        teacher("http://me:secret@localhost")


def test_generation_needs_no_log_probabilities(serve: Any) -> None:
    def answer(asked: dict[str, Any]) -> Answer:
        said = [{"index": i, "text": f" said {i}"} for i in range(len(asked["prompt"]))]
        return 200, {"choices": said[::-1]}  # in any order

    url, seen = serve(answer)
    task = Task.from_rows(["a", "b"], ["x", "y"], kind="generation")
    hard = HardPrompt(task=task, text="Write: {text}\nAnswer:")
    writer = RemoteTeacher(address=Address(url=f"{url}/v1", model="big"), hard=hard, output_tokens=7)
    assert [one.text for one in writer.teach(ROWS)] == ["said 0", "said 1"]
    assert seen[0][0]["prompt"] == ["Write: cc\nAnswer:", "Write: dd\nAnswer:"]
    assert seen[0][0]["max_tokens"] == 7


@pytest.mark.parametrize("status", [400, 404])
def test_where_completions_are_refused_it_is_asked_as_a_chat(serve: Any, status: int) -> None:
    """Most hosted models only chat, and none of them could teach."""

    def answer(asked: dict[str, Any]) -> Answer:
        if asked["path"] != "/v1/chat/completions":
            return status, {"error": {"message": "this model only chats"}}
        if not asked.get("logprobs"):
            return 200, {"choices": [{"message": {"content": " Good, I say. "}}], "usage": {"prompt_tokens": 9}}
        top = [{"token": "Good", "logprob": math.log(0.6)}, {"token": "BAD", "logprob": math.log(0.2)}]
        return 200, {"choices": [{"logprobs": {"content": [{"token": "Good", "top_logprobs": top}]}}]}

    url, seen = serve(answer)
    assert teacher(url).tokens(ROWS) == 9  # the first thing asked after a resume, when all answers are kept
    labels = teacher(url)
    assert [math.exp(log) for log in labels.teach(ROWS)[0].logs] == pytest.approx([0.25, 0.75])
    assert seen[-1][0]["messages"] == [{"role": "user", "content": "Good or bad?\n\ndd\nLabel:"}]
    refused = sum(asked["path"] == "/v1/completions" for asked, _ in seen)
    labels.teach(ROWS)
    assert labels.tokens(ROWS) == 9
    assert sum(asked["path"] == "/v1/completions" for asked, _ in seen) == refused  # asked once, not at every row
    task = Task.from_rows(["a", "b"], ["x", "y"], kind="generation")
    hard = HardPrompt(task=task, text="Write: {text}")
    for where in (url, f"{url}/v1/chat/completions"):
        writer = RemoteTeacher(address=Address(url=where, model="big"), hard=hard, output_tokens=7)
        assert [one.text for one in writer.teach(ROWS)] == ["Good, I say."] * 2


def test_where_it_neither_completes_nor_chats(serve: Any) -> None:
    url, _ = serve(lambda _asked: (404, {"error": {"message": "no such model"}}))
    with pytest.raises(Unsupported, match=r"v1/completions refused with status 404.*v1/chat/completions refused"):
        teacher(url).teach(ROWS)


def test_all_spellings_of_a_label_count_and_what_labels_share_is_split() -> None:
    """One improbable token that two labels begin with, anywhere among twenty, ended a distilling of thousands of texts; and of
    " Good" and " good" only the likelier counted, the capital not at all."""

    def found(top: dict[str, float], *words: str) -> list[float]:
        return [math.exp(log) for log in first_token_logs([(token, math.log(p)) for token, p in top.items()], words)]

    assert found({" Good": 0.3, "good": 0.2, " GO": 0.1, " bad": 0.3, "x": 0.01}, "good", "bad") == pytest.approx([0.6, 0.3])
    shared = {" billing": 0.6, " bank": 0.2, " b": 0.08, "B": 0.001}
    assert found(shared, "billing", "bank") == pytest.approx([0.6 + 0.081 * 0.75, 0.2 + 0.081 * 0.25])
    assert found({" A": 0.7, " a": 0.2}, "a", "A") == pytest.approx([0.2, 0.7])  # told apart by their case alone
    assert found({" up": 0.9, "x": 0.05}, "up", "down") == pytest.approx([0.9, 0.05])


def test_labels_whose_first_token_is_the_same_are_refused(serve: Any) -> None:
    def answer(asked: dict[str, Any]) -> Answer:
        top = {" b": -0.1, " bad": -4.0, " good": -5.0}
        return 200, {"choices": [{"text": "b", "logprobs": None if asked.get("echo") else {"top_logprobs": [top]}}]}

    url, _ = serve(answer)
    task = Task.from_rows(["a", "b", "c"], ["bad", "bored", "good"])
    asked = RemoteTeacher(address=Address(url=url, model="big"), hard=HardPrompt(task=task, text="?"), output_tokens=4)
    asked.echoes = False
    with pytest.raises(Unsupported, match="do not tell the labels apart: several begin with ' b'"):
        asked.teach(ROWS)


def test_labels_of_echoes_are_a_tree() -> None:
    """Two labels share a token, and one begins another: what is not decided costs nothing, leaves sum to one."""
    start = [("a", 0.0), ("b", -9.0)]
    echoes = [
        [*start, (" ca", math.log(0.6)), ("r", math.log(0.2))],
        [*start, (" ca", math.log(0.6)), ("t", math.log(0.3))],
        [*start, (" ca", math.log(0.6)), ("t", math.log(0.3)), ("s", math.log(0.25))],
        [*start, (" dog", math.log(0.1)), ("g", -7.0)],
    ]
    first, second = 0.6 / 0.7, 0.3 / 0.5
    expected = [first * 0.2 / 0.5, first * second * 0.75, first * second * 0.25, 0.1 / 0.7]
    found = [math.exp(log) for log in tree_logs(echoes)]
    assert found == pytest.approx(expected)
    assert sum(found) == pytest.approx(1)
