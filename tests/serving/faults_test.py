"""The description of faults holds both ways: each that a route is said to give is provoked there, and conftest's ``_described``
sees to it that no test of the server is answered with one that its route is not said to give."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from epigraph.errors import StorageFailed
from epigraph.serve.app import create_app
from epigraph.serve.faults import UpstreamFailed
from epigraph.serve.keys import new_key
from epigraph.serve.limits import Door
from epigraph.serve.service import Service
from tests.serving.conftest import House, described

ASKED: dict[str, Any] = {
    "POST /v1/completions": {"model": "writer", "prompt": "x", "max_tokens": 2},
    "POST /v1/chat/completions": {"model": "writer", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2},
    "POST /v1/classify": {"model": "routing", "input": "x"},
    "POST /v1/prompts": {"name": "up", "card": "", "prompt": ""},
    "GET /v1/models": None,
    "GET /v1/models/{model}": None,
    "POST /tokenize": {"prompt": "x"},
    "POST /detokenize": {"tokens": [1]},
    "GET /tokenizer_info": None,
    "GET /health": None,
    "GET /ready": None,
    "GET /metrics": None,
}
"""What is answered, by route."""
WORKS = {
    "POST /v1/completions": "service.backend.submit",
    "POST /v1/chat/completions": "service.backend.submit",
    "POST /v1/classify": "service.backend.submit",
    "POST /v1/prompts": "app.take_upload",
    "GET /v1/models": "service.library.names",
    "GET /v1/models/{model}": "service.shelf.listing",
    "POST /tokenize": "app.tokenizing.tokenize",
    "POST /detokenize": "app.tokenizing.detokenize",
    "GET /tokenizer_info": "app.tokenizing.tokenizer_info",
    "GET /metrics": "service.meters.text",
}
"""What does a route's work: broken, it is the server that fails."""


class Provoked:
    """One route, and the ways to a fault of it."""

    def __init__(self, route: str, house: House, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.route, self.house, self.folder, self.patch = route, house, folder, monkeypatch
        self.method, self.path = route.split()

    def ask(self, client: TestClient, model: str = "routing", **changes: Any) -> Any:
        asked = ASKED[self.route]
        body = {} if asked is None else {"json": asked if model == "routing" else asked | {"model": model}}
        return client.request(self.method, self.path.format(model=model), **body | changes)

    @contextmanager
    def client(self, **settings: Any) -> Iterator[tuple[TestClient, Service]]:
        service, _ = self.house.service(uploads=True, **settings)
        with TestClient(create_app(service), base_url="http://localhost") as found:
            yield found, service

    def spoil(self, service: Service, instead: Callable[..., Any]) -> None:
        """Let what does the work do something else."""
        first, *names, last = WORKS[self.route].split(".")
        owner: Any = service
        if first == "app":
            from epigraph.serve import app as owner
        for name in names:
            owner = getattr(owner, name)
        self.patch.setattr(owner, last, instead)

    def work_fails(self, error: Exception, **settings: Any) -> Any:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        with self.client(**settings) as (client, service):
            self.spoil(service, fail)
            return self.ask(client)

    # ---- a way to each fault -------------------------------------------------------------------------------------------

    def by_400(self) -> Any:
        with self.client() as (client, _):
            return self.ask(client, headers={"host": "["})

    def by_401(self) -> Any:
        new_key(self.folder / "keys.toml", "one")
        with self.client(keys=str(self.folder / "keys.toml")) as (client, _):
            return self.ask(client)

    def by_403(self) -> Any:
        with self.client() as (client, _):
            return self.ask(client, headers={"host": "evil.example"})

    def by_404(self) -> Any:
        with self.client() as (client, _):
            return self.ask(client, "nothere")

    def by_408(self) -> Any:
        self.patch.setattr("epigraph.serve.app.Door", partial(Door, seconds=0.01))
        service, _ = self.house.service(uploads=True)
        sent: list[Message] = []

        async def never() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"9")]
        scope = {"type": "http", "method": self.method, "path": self.path, "query_string": b"", "headers": headers}
        asyncio.run(create_app(service)(scope, never, send))
        return SimpleNamespace(status_code=sent[0]["status"])

    def by_413(self) -> Any:
        with self.client(body=0.01) as (client, _):
            return self.ask(client, content=b" " * 10_001, json=None)

    def by_429(self) -> Any:
        token = new_key(self.folder / "keys.toml", "rare", rate=0.5)
        with self.client(keys=str(self.folder / "keys.toml")) as (client, _):
            headers = {"authorization": f"Bearer {token}"}  # whatever it may do, it may not do so often
            self.ask(client, headers=headers)
            return self.ask(client, headers=headers)

    def by_500(self) -> Any:
        return self.work_fails(StorageFailed("the disk is gone."))

    def by_501(self) -> Any:
        self.patch.setattr("tests.serving.conftest.Service", partial(Service, computes_here=False))
        with self.client() as (client, _):
            return self.ask(client, "words")

    def by_502(self) -> Any:
        return self.work_fails(UpstreamFailed("it fell over."))

    def by_503(self) -> Any:
        with self.client() as (client, service):
            service.closing = True
            return self.ask(client)

    def by_504(self) -> Any:
        ticket = SimpleNamespace(cancel=lambda: None)
        with self.client(timeout=0.05) as (client, service):
            self.spoil(service, lambda *_: ticket)
            return self.ask(client)


@pytest.fixture
def said(house: House) -> dict[str, dict[str, Any]]:
    """What every route is said to answer, by status."""
    return described(create_app(house.service(uploads=True)[0]))


@pytest.mark.parametrize("route", ASKED)
def test_every_fault_that_is_described_is_given(
    house: House, said: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    """Every route was said to answer 404 and 408, the list of models too; /health and others gave faults that were not said."""
    faults = [int(status) for status in said[route] if int(status) >= 400]
    assert faults
    for status in faults:
        with monkeypatch.context() as patch:
            folder = tmp_path / str(status)
            folder.mkdir()
            provoked = Provoked(route, house, folder, patch)
            assert getattr(provoked, f"by_{status}")().status_code == status


def test_a_fault_is_described_as_the_error_that_is_sent(said: dict[str, dict[str, Any]]) -> None:
    """/metrics was said to give its errors as plain text."""
    closing = ("GET /ready", "503")
    for route, answers in said.items():
        for status, answer in answers.items():
            if int(status) >= 400 and (route, status) != closing:
                schema = {"schema": {"$ref": "#/components/schemas/FaultBody"}}
                assert answer["content"] == {"application/json": schema}, (route, status)
                assert answer["description"]


def test_every_route_is_asked(said: dict[str, dict[str, Any]]) -> None:
    assert set(said) == set(ASKED)
