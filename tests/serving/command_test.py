"""The command: it serves until it is told to stop, makes keys, and says in one line what it cannot do."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from torch import randn

from epigraph.base import load_base
from epigraph.library import Card, Library
from epigraph.model import facts
from epigraph.prompts import KeyValue
from epigraph.serve.running import listen
from epigraph.serve.settings import ServeConfig
from tests.serving.conftest import labelled


@pytest.fixture(scope="module")
def shelf(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = load_base(toy_folder, dtype="float32")
    shape = (base.layers, base.heads, 3, base.head_size)
    root = tmp_path_factory.mktemp("command") / "library"
    card = Card(name="routing", kind="kv", place="last", trained_parameters=1, base=facts(base), task=labelled().to_dict())
    Library(root).add("routing", [KeyValue(randn(shape), randn(shape))], card)
    return root


def test_it_serves_until_it_is_told_to_stop(toy_folder: Path, shelf: Path) -> None:
    command = [sys.executable, "-m", "epigraph", "serve", "--base", str(toy_folder), "--dtype", "float32", "--port", "0"]
    server = subprocess.Popen(
        [*command, "--library", str(shelf), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    said = json.loads(server.stdout.readline())
    assert said["prompts"] == ["routing"]
    answer = httpx2.post(f"{said['url']}/classify", json={"model": "routing", "input": "x"}, timeout=60)
    assert answer.json()["data"][0]["label"] in {"animal", "metal", "number"}
    server.send_signal(signal.SIGTERM)
    _, log = server.communicate(timeout=60)
    assert server.returncode == 0, log
    assert '"route": "/v1/classify"' in log
    assert "Traceback" not in log


def test_small_answers_are_sent_at_once() -> None:
    """Every answer came 44 ms late: asyncio lets small writes go at once (TCP_NODELAY) only where a socket says that it is TCP's, so
    the body waited until the client's system had acknowledged the headers, which it puts off for 40 ms."""

    async def delays() -> int:
        seen = asyncio.get_running_loop().create_future()

        async def taken(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = listen(ServeConfig(port=0))
        async with await asyncio.start_server(taken, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
            writer.close()
            return int(await seen)

    assert asyncio.run(delays())


def test_a_key_is_made_and_shown_once(cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    made = cli("serve", "--keys", file, "--new-key", "ann", "--rate", "60", "--prompts", "routing,faq-*", "--json")
    assert made.code == 0
    assert made.json["key"].startswith("ep-")
    assert made.json["key"] not in file.read_text()
    assert 'prompts = [\n    "routing",\n    "faq-*",\n]' in file.read_text()
    plain = cli("serve", "--keys", file, "--new-key", "bob", "--uploads")
    assert plain.out.startswith("ep-")
    assert "uploads = true" in file.read_text()
    assert "metrics" not in file.read_text()
    assert cli("serve", "--keys", file, "--new-key", "prometheus", "--metrics").code == 0
    assert "metrics = true" in file.read_text()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host", "0.0.0.0"], "without API keys"),
        (["--new-key", "ann"], "without --keys"),
        (["--keys", "nothere.toml"], "no such file"),
        (["--engine", "vllm"], "--at"),
        (["--queue", "0"], "at least 1"),
        (["--queue", "8", "--batch", "9"], "never be taken"),
        (["--body", "-1"], "positive"),
        (["--port", "99999"], "65535"),
        (["--min-route", "1.5"], "between 0 and 1"),
        (["--otherwise", "guess"], "refuse, base"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(cli: Any, flags: list[str], words: str) -> None:
    answer = cli("serve", *flags)
    assert answer.code == 2
    assert words in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_a_taken_port_is_found_before_the_base_is_loaded(cli: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = cli("serve", "--port", taken.getsockname()[1], "--base", "/nowhere")
    assert answer.code == 2
    assert "cannot be listened on" in answer.err
