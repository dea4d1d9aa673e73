"""What one request may cost the others: seconds, bytes, and mistakes that are not theirs."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from epigraph.base import Base
from epigraph.errors import ConfigError, Corrupt, NotFound
from epigraph.serve import access
from epigraph.serve.access import Visit
from epigraph.serve.app import create_app
from epigraph.serve.flow import Deadline, Flow
from epigraph.serve.served import MOST_LABEL_TOKENS, prepare
from epigraph.serve.streaming import ClientGone
from epigraph.serve.work import Generation, Sampling
from epigraph.tasks.task import Task
from tests.serving.conftest import House, kv, labelled


def open_client(house: House, **settings: Any) -> TestClient:
    return TestClient(create_app(house.service(**settings)[0]), base_url="http://localhost")


def test_texts_of_many_threads_are_told_apart(base: Base) -> None:
    """Whether special tokens are split was a switch of one tokenizer: a user's text could hold a real end of a turn."""
    text = f"a {base.tokenizer.eos_token} b"
    ways: list[Callable[[str], list[int]]] = [base.tokenize, base.tokenize_plainly]
    expected = [way(text) for way in ways]
    assert expected[0] != expected[1]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: ways[i % 2](text) == expected[i % 2], range(4000)))
    assert all(found)


def test_an_echo_that_would_fill_the_memory_is_refused(house: House) -> None:
    """128 choices of 8,000 tokens with 20 likely ones each made an answer of 650 MB on the event loop."""
    body = {"model": "base", "prompt": "x" * 200, "echo": True, "logprobs": 20, "n": 64, "max_tokens": 1}
    with open_client(house) as client:
        answer = client.post("/v1/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too_much_echo")
        assert client.post("/v1/completions", json=body | {"n": 2}).status_code == 200


def test_an_echo_is_written_once_for_all_choices(house: House) -> None:
    """Each of n choices put the same input into texts, bytes and objects again, on the event loop."""
    service, _ = house.service()
    lengths, counted = service.pieces.lengths, []

    def counting(tokens: Any) -> list[int]:
        counted.append(len(tokens))
        return lengths(tokens)

    service.pieces.lengths = counting  # type: ignore[method-assign]
    body = {"model": "base", "prompt": "a text", "echo": True, "logprobs": 1, "n": 4, "max_tokens": 1, "seed": 1}
    with TestClient(create_app(service), base_url="http://localhost") as client:
        choices = client.post("/v1/completions", json=body).json()["choices"]
    assert counted == [len("a text")]
    for choice in choices:
        assert choice["text"].startswith("a text")
        for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
            assert choice["logprobs"][name][:6] == choices[0]["logprobs"][name][:6]
    assert choices[0]["logprobs"]["tokens"][:6] == list("a text")


def test_a_request_that_would_hold_too_much_is_refused(house: House) -> None:
    """Every choice's log probabilities are objects until they are sent: one request could ask for gigabytes of them."""
    body = {"model": "base", "prompt": ["x", "y"], "n": 64, "logprobs": 20, "max_tokens": 400}
    with open_client(house, held=100.0) as client:
        answer = client.post("/v1/completions", json=body)
        assert answer.status_code == 400
        assert (
            "would hold 324 MB until it is answered; this server lets all of them hold 100"
            in answer.json()["error"]["message"]
        )
        assert client.post("/v1/completions", json=body | {"n": 2, "max_tokens": 4}).status_code == 200
    with pytest.raises(ConfigError, match="could never be taken"):
        open_client(house, held=1.0)


class SlowBackend:
    """Takes jobs one at a time, when told to."""

    def __init__(self) -> None:
        self.submitted, self.cancelled = 0, 0
        self.go = threading.Event()

    def submit(self, job: Any, listener: Any) -> "SlowBackend":
        self.submitted += 1
        assert self.go.wait(60)
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def start(self) -> None: ...

    def close(self, *, drain: bool, timeout: float) -> None: ...

    @property
    def load(self) -> None: ...


def test_who_leaves_while_jobs_are_handed_over_leaves_none_behind() -> None:
    """The thread that handed them over went on: four prompts were computed for nobody."""
    backend = SlowBackend()
    jobs = [Generation(segments=((1,),), prompt=None, sampling=Sampling())] * 4

    async def leave() -> None:
        flow = Flow(backend, jobs, Deadline(60.0))
        starting = asyncio.ensure_future(flow.start())
        while not backend.submitted:
            await asyncio.sleep(0.01)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        backend.go.set()
        while backend.submitted > backend.cancelled:
            await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert (backend.submitted, backend.cancelled) == (1, 1)


def test_a_prompt_that_does_not_load_in_time_is_given_up(house: House) -> None:
    """The time that a request may take began when its prompt was there: a hung disk held it for ever."""
    service, _ = house.service(timeout=0.2)
    told = threading.Event()
    get = service.shelf.get

    def slow(reference: str) -> Any:
        told.wait(60)
        return get(reference)

    service.shelf.get = slow  # type: ignore[method-assign]
    with TestClient(create_app(service), base_url="http://localhost") as client:
        for route, body in (("completions", {"prompt": "x"}), ("classify", {"input": ["x"]})):
            answer = client.post(f"/v1/{route}", json={"model": "routing", **body})
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        told.set()


def test_who_waits_for_a_load_takes_no_loader(house: House) -> None:
    """Eight requests for one slow prompt held all loaders, and every other prompt waited for it."""
    service, _ = house.service()
    told, begun = threading.Event(), threading.Event()
    make = service.shelf._prepare

    def slow(stored: Any) -> Any:
        if stored.card.name == "writer":
            begun.set()
            assert told.wait(60)
        return make(stored)

    service.shelf._prepare = slow

    async def ask() -> list[str]:
        first = asyncio.ensure_future(service.load("writer"))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        others = [asyncio.ensure_future(service.load("writer")) for _ in range(20)]
        await asyncio.sleep(0.2)
        assert service._loads.borrowed_tokens == 1
        other = await service.load("routing")
        told.set()
        return [one.reference for one in [other, *await asyncio.gather(first, *others)]]

    assert asyncio.run(ask()) == ["routing@1", *["writer@1"] * 21]


def test_a_client_that_reads_nothing_is_gone_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was held past every limit, and enough of them were a full server."""
    monkeypatch.setattr(access, "STALL_SECONDS", 0.05)

    async def send(message: Any) -> None:
        await asyncio.sleep(60)

    with pytest.raises(ClientGone):
        asyncio.run(Visit({"headers": []}, send).send({"type": "http.response.body", "body": b"x"}))


def test_labels_longer_than_the_base_reads_are_refused_before_they_are_laid_out(own_house: House) -> None:
    """Two labels of 80,000 tokens, a card of 160 KB, asked for a mask of 24 GB."""
    deep = "a" * own_house.base.context
    chains = [f"{i:03}{'z' * (MOST_LABEL_TOKENS // 200)}{end}" for i in range(200) for end in "xy"]
    for name, labels in {"long": [deep + "x", deep + "y"], "many": chains}.items():
        task = Task.from_rows(["x"] * len(labels), labels)
        own_house.add(name, task, [kv(1)])
        with pytest.raises(ConfigError, match=f"the labels of '{name}@1' take"):
            prepare(own_house.library.get(name), own_house.base, computes_here=True)


@pytest.mark.parametrize(
    "settings",
    [{"output_tokens": float("inf")}, {"calibration": {"how": "prior", "bias": [float("nan"), 0.0, 0.0]}}],
)
def test_numbers_on_a_card_that_are_none_are_a_damaged_card(own_house: House, settings: dict[str, Any]) -> None:
    """An infinite number of tokens was a 500, and a bias of nan answered null for ever."""
    own_house.add("odd", labelled(), [kv(1)], settings={"output_tokens": 6} | settings)
    with pytest.raises(Corrupt):
        prepare(own_house.library.get("odd"), own_house.base, computes_here=True)


def test_a_version_taken_away_while_it_is_read_gives_way_to_the_one_that_replaced_it(own_house: House) -> None:
    """A name that was valid all the time answered 404, or 500 for a damaged prompt."""
    own_house.add("routing", labelled(), [kv(2)])
    own_house.library.promote("routing", 1, "live")
    service, _ = own_house.service()
    get, fell = service.library.get, []

    def moved(reference: str) -> Any:
        if not fell:
            fell.append(reference)
            own_house.library.promote("routing", 2, "live")
            raise Corrupt("half of it was gone.")
        return get(reference)

    service.library.get = moved  # type: ignore[method-assign]
    assert service.shelf.get("routing@live").reference == "routing@2"
    assert fell == ["routing@1"]
    service.library.get = lambda reference: (_ for _ in ()).throw(NotFound(f"{reference} is gone."))  # type: ignore[method-assign]
    with pytest.raises(NotFound):
        service.shelf.get("writer")


def test_who_waited_for_a_version_that_was_taken_away_gets_the_one_that_replaced_it(house: House) -> None:
    """Whoever loaded it looked again, whoever waited for that load was told that the prompt is damaged."""
    service, _ = house.service()
    gone: Future[Any] = Future()
    gone.set_exception(Corrupt("half of it was gone."))
    service.shelf.held = lambda _reference: gone  # type: ignore[method-assign]
    assert asyncio.run(service.load("routing")).reference == "routing@1"
