"""Prompts and tasks of every kind answer over HTTP as in process: ensembles, pools, mixtures; sets, choices, orders; ``auto``."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from epigraph.base import Base
from epigraph.engine import Engine
from epigraph.model import PromptModel
from epigraph.prompts import AnyForm, Embedded, KeyValue, MixturePrompt, PoolPrompt
from epigraph.routing import learn_route, open_auto
from epigraph.serve.app import create_app
from epigraph.serve.flow import Deadline, Flow
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from tests.serving.answers_test import ask, refused, streamed
from tests.serving.conftest import LABELS, House, Running, eventually, kv, labelled, vectors, written

TEXTS = ["a dog", "some iron and more of it, which goes on beyond one block of kept states", "7"]
GREEDY = {"temperature": 0}
CHOSEN = [
    {"question": "the sky is", "choices": ["blue", "green as grass", "x"]},
    {"question": "two", "choices": ["three and more", "b"]},
]


def sets() -> Task:
    targets = [["a", "bb"], ["bb"], [], ["a"], ["bb", "c"], ["c"]]
    return Task.from_rows(
        [f"text {i}" for i in range(6)], targets, kind="multilabel", words={"a": "x", "bb": "y", "c": "yy"}
    )


def scale(metric: str) -> Task:
    words = {"poor": "poor", "fair": "fair", "good": "good"}
    texts = [f"text {i}" for i in range(6)]
    return Task.from_rows(texts, list(words) * 2, kind="ordinal", words=words, metric=metric)


def own_choices() -> Task:
    rows = [{**one, "choices": list(one["choices"])} for one in CHOSEN] * 3
    return Task.from_rows(rows, ["blue", "b"] * 3, kind="choice")


def pool(engine: Engine, forms: list[Any]) -> list[AnyForm]:
    hidden = engine.base.hidden
    made = PoolPrompt(forms, hidden=hidden, older=PoolPrompt(forms, hidden=hidden))
    made.prepare(engine.neutral_queries()[:9], engine.neutral_queries())
    return made.fold()


def mixture(engine: Engine, forms: list[Any], others: list[list[Any]]) -> list[AnyForm]:
    made = MixturePrompt(forms, others, hidden=engine.base.hidden)
    made.prepare(engine.neutral_queries(), engine.neutral_queries())
    made.keys.data *= 30  # so that inputs differ in whom they attend to
    return made.fold()


@pytest.fixture(scope="module")
def kinds(base: Base, tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(base, tmp_path_factory.mktemp("kinds") / "library")
    engine = Engine(base, keep=False)
    house.add("voting", labelled(), [kv(1), kv(2), kv(3)], settings={"members": 3})
    house.add(
        "voting-words", labelled("{prompt}{text}\nLabel:"), [vectors(1), vectors(2)], place="first", settings={"members": 2}
    )
    house.add("pool", labelled(), pool(engine, [kv(4)]), kind="pool")
    house.add("pool-words", written(), pool(engine, [vectors(5)]), kind="pool")
    house.add(
        "mixture", written("say: {text}{prompt}\nOutput:"), mixture(engine, [kv(6)], [[kv(7)], [kv(8)]]), kind="mixture"
    )
    house.add("sets", replace(sets(), threshold=0.49), [kv(9)])
    house.add("sets-shifted", sets(), [kv(9)], settings={"calibration": {"how": "prior", "bias": [2.0, -2.0, 0.5]}})
    house.add("rank", scale("mae"), [kv(10)])
    house.add("likeliest", scale("accuracy"), [kv(10)])
    house.add("shifted", labelled(), [kv(1)], settings={"calibration": {"how": "contextual", "bias": [3.0, -1.0, 0.0]}})
    house.add("choices", own_choices(), [vectors(11)])
    house.add("choices-shifted", own_choices(), [kv(12)], settings={"calibration": {"how": "contextual", "bias": []}})
    house.add("stopping", replace(written(), stop=("e", "�")), [kv(13)], settings={"output_tokens": 12})
    house.add("universal", None, [kv(14)])
    for name, texts in (("voting", ["an animal", "a beast", "a dog"]), ("writer", ["12 + 7", "8 * 9 =", "100 - 1"])):
        if name == "writer":
            house.add(name, written(), [kv(15)])
        learn_route(house.root, engine, name, [Row(fields={"text": text}) for text in texts * 4], prompt=f"{name}@1")
    return house


@pytest.fixture(scope="module")
def asking(kinds: House) -> Iterator[TestClient]:
    service, _ = kinds.service(min_route=0.0)
    with TestClient(create_app(service), base_url="http://localhost") as found:
        yield found


@pytest.mark.parametrize("name", ["voting", "voting-words", "pool", "sets", "sets-shifted", "rank", "likeliest", "shifted"])
def test_labels_equal_those_in_process(asking: TestClient, kinds: House, name: str) -> None:
    """Calibration was left out once, and a label of several was written like a text: the server served another prompt."""
    meant = kinds.model(name).predict(TEXTS)
    for _ in range(2):  # from what was computed, and from what was kept
        found = ask(asking, "/v1/classify", model=name, input=TEXTS)["data"]
        for one, two in zip(found, meant, strict=True):
            assert one["label"] == two.label
            assert one.get("labels") == (None if two.labels is None else list(two.labels))
            assert one["probabilities"] == pytest.approx(two.probabilities, abs=1e-5)
    said = ask(asking, "/v1/completions", model=name, prompt=TEXTS, logprobs=2)["choices"]
    assert [choice["text"] for choice in said] == [one.label or ", ".join(one.labels or ()) for one in meant]


def test_what_depends_on_the_input_differs_by_input(kinds: House) -> None:
    """Else the tests here would hold of a prompt that does not look at its input."""
    engine = Engine(kinds.base, keep=False)
    for name in ("pool", "mixture"):
        model = PromptModel(kinds.library.get(name), kinds.base, engine=engine)
        first, second = (model.method.forms[0].prompt.form(engine.query(model.method.encode([Row(fields={f: t})])))[0]
                         for t in TEXTS[:2] for f in [model.task.template.fields[0]])  # fmt: skip
        assert isinstance(first, KeyValue)
        assert (first.keys - second.keys).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["pool-words", "mixture", "stopping"])
def test_texts_equal_those_in_process(asking: TestClient, kinds: House, name: str) -> None:
    meant = [one.output for one in kinds.model(name).predict(TEXTS)]
    for _ in range(2):
        found = ask(asking, "/v1/completions", model=name, prompt=TEXTS, **GREEDY)["choices"]
        assert [choice["text"] for choice in found] == meant
    pieces = streamed(asking, "/v1/completions", model=name, prompt=TEXTS[0], n=2, **GREEDY)
    for index in (0, 1):
        assert "".join(c["text"] for p in pieces for c in p["choices"] if c["index"] == index) == meant[0]
    if name == "stopping":
        bare = kinds.model(name)
        bare.method.task = replace(bare.task, stop=())
        assert meant != [one.output for one in bare.predict(TEXTS)]


@pytest.mark.parametrize("name", ["choices", "choices-shifted"])
def test_a_rows_own_choices_come_as_a_list(asking: TestClient, kinds: House, name: str) -> None:
    meant = kinds.model(name).predict(CHOSEN)
    found = ask(asking, "/v1/classify", model=name, input=CHOSEN)["data"]
    for one, two in zip(found, meant, strict=True):
        assert (one["label"], one["choice"]) == (two.label, two.choice)
        assert one["probabilities"] == pytest.approx(two.probabilities, abs=1e-5)
    first = CHOSEN[0]
    body = {"prompt": first["question"], "fields": {"choices": first["choices"]}}
    assert ask(asking, "/v1/completions", model=name, **body)["choices"][0]["text"] == meant[0].label
    chat = {"messages": [{"role": "user", "content": first["question"]}], "fields": {"choices": first["choices"]}}
    answer = ask(asking, "/v1/chat/completions", model=name, **chat)["choices"][0]["message"]
    assert answer["content"] == meant[0].label
    for wrong in ({"question": "x"}, {"question": "x", "choices": ["one"]}, {"question": ["x"], "choices": ["a", "b"]}):
        assert refused(asking, "/v1/classify", model=name, input=wrong)["param"] == "fields"
    assert refused(asking, "/v1/classify", model="voting", input={"text": ["x"]})["param"] == "fields"


def test_more_choices_than_memory_has_room_for_are_refused(asking: TestClient) -> None:
    """8 MB of choices made masks of many gigabytes; as one text they were split without limit."""

    def said(*rows: Any) -> str:
        given = [{"question": "x", "choices": choices} for choices in rows]
        error = refused(asking, "/v1/classify", model="choices", input=given)
        assert error["param"] == "fields"
        return str(error["message"])

    assert "is too long" in said(["a"] * 257)
    assert "257 choices" in said("|".join(map(str, range(257))))
    assert "is too long" in said("a|" * 60_000)
    assert "take 1280 tokens" in said([f"{i:03}" + "x" * 10 for i in range(256)])
    assert "too many at once" in said(*[[f"{i:03}xxxx" for i in range(200)]] * 8)


def test_a_universal_prompt_says_what_it_is_for(asking: TestClient) -> None:
    """It was a 500, "damaged"."""
    assert "--from universal" in refused(asking, "/v1/classify", model="universal", input="x")["message"]
    assert "universal" not in {card["id"] for card in asking.get("/v1/models").json()["data"]}


def test_raw_requests_of_what_votes_or_depends(asking: TestClient) -> None:
    raw = {"raw": True, "prompt": "abc", "max_tokens": 3}
    assert "vote" in refused(asking, "/v1/completions", model="voting", **raw)["message"]
    assert ask(asking, "/v1/completions", model="pool", **raw)["usage"]["completion_tokens"] <= 3
    assert "before it" in refused(asking, "/v1/completions", model="pool", prompt_at=0, **raw)["message"]


# ---- auto --------------------------------------------------------------------------------------------------------------


def test_auto_answers_with_the_prompt_that_the_router_names(asking: TestClient, kinds: House) -> None:
    texts = ["a dog", "8 * 9 =", "a beast"]
    meant = open_auto(kinds.root, kinds.base, threshold=0.0).predict(texts)
    assert {one.prompt for one in meant} == {"voting@1", "writer@1"}
    found = ask(asking, "/v1/completions", model="auto", prompt=texts, **GREEDY)
    assert found["model"] == "auto"  # several
    for choice, route, one in zip(found["choices"], found["routes"], meant, strict=True):
        assert route["prompt"] == one.prompt
        assert route["confidence"] == pytest.approx(one.route.confidence, abs=1e-4)
        assert route["probabilities"] == pytest.approx(one.route.probabilities, abs=1e-4)
        assert choice["text"] == (one.prediction.label or one.prediction.output)
    chat = {"messages": [{"role": "user", "content": texts[0]}]}
    answer = ask(asking, "/v1/chat/completions", model="auto", **chat)
    assert answer["model"] == answer["routes"][0]["prompt"] == "voting@1"
    assert answer["choices"][0]["message"]["content"] == meant[0].prediction.label
    chunks = streamed(asking, "/v1/chat/completions", model="auto", **chat)
    assert {chunk["model"] for chunk in chunks} == {"voting@1"}
    assert chunks[0]["routes"][0]["prompt"] == "voting@1"
    (one,) = ask(asking, "/v1/classify", model="auto", input=[{"message": texts[0]}])["data"]  # under another name
    assert one["label"] == meant[0].prediction.label
    assert one["route"]["prompt"] == "voting@1"
    assert "has no labels" in refused(asking, "/v1/classify", model="auto", input=texts)["message"]
    assert "routes" not in ask(asking, "/v1/completions", model="voting", prompt="x")
    assert "auto" in {card["id"] for card in asking.get("/v1/models").json()["data"]}
    assert asking.get("/v1/models/auto").json()["id"] == "auto"


def test_auto_needs_a_text(asking: TestClient) -> None:
    for body in ({"prompt": [65, 66]}, {"prompt": "x", "raw": True}):
        assert refused(asking, "/v1/completions", model="auto", **body)["param"] == "model"
    assert refused(asking, "/v1/completions", model="auto")["param"] == "prompt"
    assert refused(asking, "/v1/chat/completions", model="auto", messages=[])["param"] == "prompt"


@pytest.mark.parametrize("otherwise", ["refuse", "base"])
def test_auto_below_its_threshold(kinds: House, otherwise: str) -> None:
    service, _ = kinds.service(min_route=1.0, otherwise=otherwise)
    with TestClient(create_app(service), base_url="http://localhost") as client:
        body = {"prompt": "zzz", "max_tokens": 4, **GREEDY}
        (one,) = ask(client, "/v1/classify", model="auto", input=["zzz"])["data"]
        assert (one["label"], one["probabilities"], one["route"]["prompt"]) == (None, {}, None)
        if otherwise == "refuse":
            error = refused(client, "/v1/completions", 404, model="auto", **body)
            assert (error["code"], error["param"]) == ("no_route", "model")
            return
        found = ask(client, "/v1/completions", model="auto", **body)
        assert (found["model"], found["routes"][0]["prompt"]) == ("base", "base")
        assert found["choices"] == ask(client, "/v1/completions", model="base", **body)["choices"]


@pytest.mark.parametrize("leaves", [True, False])
def test_auto_ends_with_its_client_and_with_its_time(kinds: House, run: Callable[..., Running], leaves: bool) -> None:
    """A client that left while its text was routed was not noticed."""
    running = run(kinds, timeout=300.0 if leaves else 0.5)
    backend, tickets = running.service.backend, []

    class Waiting:
        def cancel(self) -> None:
            tickets.append(self)

    backend.submit = lambda *_: Waiting()
    with httpx2.Client(base_url=running.url, timeout=0.5 if leaves else 60) as client:
        body = {"model": "auto", "prompt": "a dog"}
        if leaves:
            with pytest.raises(httpx2.ReadTimeout):
                client.post("/v1/completions", json=body)
            eventually(lambda: '"status": 499' in running.lines.getvalue())
        else:
            assert client.post("/v1/completions", json=body).json()["error"]["code"] == "timeout"
    assert len(tickets) == 1


@pytest.mark.parametrize("path", ["completions", "classify"])
def test_routing_and_answering_have_one_deadline(asking: TestClient, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Each had the whole --timeout."""
    deadlines: list[Deadline] = []

    class Noted(Flow):
        def __init__(self, backend: Any, jobs: Any, deadline: Deadline) -> None:
            deadlines.append(deadline)
            super().__init__(backend, jobs, deadline)

    for module in ("auto", "service", "classifying"):
        monkeypatch.setattr(f"epigraph.serve.{module}.Flow", Noted)
    ask(asking, f"/v1/{path}", model="auto", **{"prompt" if path == "completions" else "input": TEXTS[0]})
    assert len(deadlines) == 2
    assert deadlines[0] is deadlines[1]


def test_auto_sends_nobody_to_a_base_that_its_key_may_not_use(kinds: House, tmp_path: Path) -> None:
    """With --otherwise base, ``auto`` was a way around a key's list of prompts."""
    from epigraph.serve.keys import new_key

    keys = tmp_path / "keys.toml"
    tokens = {who: new_key(keys, who, prompts=may) for who, may in (("one", ("voting",)), ("both", ("voting", "base")))}
    service, _ = kinds.service(keys=str(keys), min_route=1.0, otherwise="base")
    with TestClient(create_app(service), base_url="http://localhost") as client:
        for who, status in (("one", 403), ("both", 200)):
            headers = {"authorization": f"Bearer {tokens[who]}"}
            body = {"model": "auto", "prompt": "zzz", "max_tokens": 1}
            assert client.post("/v1/completions", json=body, headers=headers).status_code == status


def test_a_router_comes_changes_and_offers_what_a_key_may_use(base: Base, own_house: House, tmp_path: Path) -> None:
    from epigraph.serve.keys import new_key

    keys = tmp_path / "keys.toml"
    tokens = {
        who: new_key(keys, who, prompts=allowed) for who, allowed in (("all", ()), ("some", ("notes",)), ("none", ("x",)))
    }
    service, _ = own_house.service(keys=str(keys), min_route=0.0)
    engine = Engine(base, keep=False)

    def where(who: str, text: str = "a dog") -> Any:
        answer = client.post(
            "/v1/completions",
            json={"model": "auto", "prompt": text, "max_tokens": 1},
            headers={"authorization": f"Bearer {tokens[who]}"},
        )
        return answer.json()["routes"][0]["prompt"] if answer.status_code == 200 else answer.json()["error"]["code"]

    with TestClient(create_app(service), base_url="http://localhost") as client:
        assert where("all") == "model_not_found"
        learn_route(own_house.root, engine, "routing", [Row(fields={"text": "a dog"})] * 12, prompt="routing@prod")
        assert where("all") == "routing@prod"
        learn_route(own_house.root, engine, "notes", [Row(fields={"text": "99 + 1"})] * 12, prompt="notes")
        assert (where("all"), where("all", "99 + 1"), where("some")) == ("routing@prod", "notes", "notes")
        assert where("none") == "model_not_found"
        own_house.library.remove("notes", force=True)
        assert where("all", "99 + 1") == "routing@prod"
        assert where("some") == "model_not_found"


def test_labels_of_a_prompt_in_front_have_their_own_states(asking: TestClient, kinds: House) -> None:
    """Members whose vectors come first are kept apart: kept by the prompt's hash alone, the second would read the first's."""
    stored = kinds.library.get("voting-words")
    assert all(isinstance(form, Embedded) for form in stored.forms)
    (meant,) = kinds.model("voting-words").predict([TEXTS[0]])
    for _ in range(3):
        (found,) = ask(asking, "/v1/classify", model="voting-words", input=TEXTS[0])["data"]
        assert found["probabilities"] == pytest.approx(meant.probabilities, abs=1e-5)
    assert set(found["probabilities"]) == set(LABELS)
