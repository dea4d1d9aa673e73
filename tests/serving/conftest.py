"""A library of toy prompts, and servers over it: in-process for most tests, on a port where sockets matter."""

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.testclient import TestClient

from epigraph.base import Base
from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.library import Card, Library
from epigraph.model import PromptModel, facts
from epigraph.prompts import AnyForm, Embedded, KeyValue
from epigraph.serve.access import GONE, Access, Visit
from epigraph.serve.app import create_app
from epigraph.serve.batcher import Batcher
from epigraph.serve.log import Log
from epigraph.serve.running import Draining, listen
from epigraph.serve.service import Service
from epigraph.serve.settings import ServeConfig
from epigraph.serve.work import BatcherSettings
from epigraph.tasks.task import Task

LABELS = ("animal", "metal", "number")
CHAT = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@dataclass
class House:
    """A toy base with a library on it; ``open`` makes servers."""

    base: Base
    root: Path

    @property
    def library(self) -> Library:
        return Library(self.root)

    def add(self, name: str, task: Task | None, forms: Sequence[AnyForm], place: str = "last", **changes: Any) -> Card:
        kind = "kv" if isinstance(forms[0], KeyValue) else "token"
        card = Card(
            name=name,
            kind=kind,
            place=place,  # type: ignore[arg-type]
            trained_parameters=1,
            base=facts(self.base),
            task={} if task is None else task.to_dict(),
            settings={"output_tokens": 6},
        )
        return self.library.add(name, forms, replace(card, **changes))

    def model(self, reference: str) -> PromptModel:
        """The same prompt without a server: what its answers must equal."""
        return PromptModel(self.library.get(reference), self.base)

    def service(self, **settings: Any) -> tuple[Service, io.StringIO]:
        lines = io.StringIO()
        config = ServeConfig(**settings)
        batcher = Batcher(Engine(self.base, keep=False), BatcherSettings(queue_length=config.queue, max_rows=config.rows))
        log = Log(texts=config.texts, out=lines.write)
        return Service(self.base, self.root, batcher, config, log=log), lines


def kv(seed: int = 0, length: int = 3, scale: float = 1.0) -> KeyValue:
    random = torch.Generator().manual_seed(seed)
    shape = (2, 2, length, 4)
    return KeyValue(scale * torch.randn(shape, generator=random), scale * torch.randn(shape, generator=random))


def vectors(seed: int = 0, length: int = 3) -> Embedded:
    return Embedded(3 * torch.randn(length, 16, generator=torch.Generator().manual_seed(seed)))


def labelled(template: str | None = None) -> Task:
    texts = [f"text {i}" for i in range(6)]
    return Task.from_rows(texts, [LABELS[i % 3] for i in range(6)], name="routing", template=template)


def written(template: str | None = None, **changes: Any) -> Task:
    return replace(
        Task.from_rows(["a", "b"], ["one", "two"], name="writer", kind="generation", template=template), **changes
    )


def paired() -> Task:
    rows = [{"premise": "a", "hypothesis": "b"}, {"premise": "c", "hypothesis": "d"}]
    return Task.from_rows(rows, ["yes", "no"], name="pair", template="{premise}|{hypothesis}{prompt}:")


@pytest.fixture(scope="session")
def base() -> Base:
    found = toy_base(seed=3)
    found.tokenizer.chat_template = CHAT
    return found


def build_house(base: Base, root: Path) -> House:
    house = House(base, root)
    house.add("routing", labelled(), [kv(1)])
    house.add("words", labelled("{text}{prompt}\nLabel:"), [vectors(2)])
    house.add("writer", written(), [vectors(3)])
    house.add("notes", written(), [kv(4)])
    house.add("first", written("{prompt}{text}\nOutput:"), [vectors(5)], place="first")
    house.add("two", written("{prompt}{text}{prompt}:"), [vectors(6, 2), vectors(7, 1)], place="template")
    house.add("pair", paired(), [kv(8)])
    house.add("talk", written(chat=True), [vectors(9)])
    house.library.promote("routing", 1, "prod")
    return house


@pytest.fixture(scope="session")
def house(base: Base, tmp_path_factory: pytest.TempPathFactory) -> House:
    """Shared: nobody changes it."""
    return build_house(base, tmp_path_factory.mktemp("serving") / "library")


@pytest.fixture
def own_house(base: Base, tmp_path: Path) -> House:
    """One to change."""
    return build_house(base, tmp_path / "library")


@pytest.fixture(scope="session")
def client(house: House) -> Iterator[TestClient]:
    """A server with default settings, in-process."""
    service, _ = house.service()
    with TestClient(create_app(service), base_url="http://localhost") as found:
        yield found


@pytest.fixture(autouse=True)
def _described(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test is answered is an answer that the route is said to give."""
    seen: list[tuple[Any, int]] = []
    account = Access._account

    def note(access: Access, visit: Visit) -> None:
        account(access, visit)
        seen.append((visit.scope, visit.status))

    monkeypatch.setattr(Access, "_account", note)
    yield
    for scope, status in seen:
        said = answers_of(scope)
        assert status == GONE or said is None or str(status) in said, f"{scope['method']} {scope['path']}: {status}"


def answers_of(scope: Any) -> Any:
    """What the route is said to answer; None where there is no such route."""
    app = scope["app"]
    for route in app.routes:
        if route.matches(scope)[0] is Match.FULL:
            return described(app).get(f"{scope['method']} {route.path_format}")
    return None


_described_by_routes: dict[frozenset[str], dict[str, dict[str, Any]]] = {}


def described(app: Any) -> dict[str, dict[str, Any]]:
    """The answers of every route by their status, as they are described; read once for all apps with the same routes."""
    routes = frozenset(route.path_format for route in app.routes if isinstance(route, APIRoute))
    if routes not in _described_by_routes:
        paths = app.openapi()["paths"].items()
        found = {f"{method.upper()} {path}": one["responses"] for path, both in paths for method, one in both.items()}
        _described_by_routes[routes] = found
    return _described_by_routes[routes]


@dataclass
class Running:
    """A server on a port."""

    url: str
    service: Service
    lines: io.StringIO
    server: uvicorn.Server
    thread: threading.Thread

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture(scope="session")
def run() -> Iterator[Callable[..., Running]]:
    """Start a server over a house on a free port; all of them are stopped at the end."""
    started: list[Running] = []

    def start(house: House, **settings: Any) -> Running:
        service, lines = house.service(port=0, **settings)
        listening = listen(service.config)
        server = Draining(service)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
        thread.start()
        found = Running(f"http://127.0.0.1:{listening.getsockname()[1]}", service, lines, server, thread)
        started.append(found)
        while not server.started:
            assert thread.is_alive(), "the server ended"
            thread.join(0.01)
        return found

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="session")
def running(house: House, run: Callable[..., Running]) -> Running:
    """A server with default settings, on a port."""
    return run(house)


def eventually(check: Callable[[], bool]) -> None:
    """Wait until it holds; a server in another thread needs a moment."""
    for _ in range(600):
        if check():
            return
        time.sleep(0.05)
    raise AssertionError("it never came about")
