"""The library while it is served: prompts come, change, move and go, and nobody else notices."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from epigraph.serve.app import create_app
from epigraph.serve.rendering import fill_fields
from epigraph.serve.work import EndEvent, LabelEvent, Listener
from tests.serving.conftest import House, eventually, kv, labelled, vectors, written


def classify(client: Any, model: str, text: str = "a dog") -> Any:
    return client.post("/v1/classify", json={"model": model, "input": text})


def test_prompts_are_added_replaced_promoted_and_removed_while_serving(own_house: House) -> None:
    house = own_house
    service, _ = house.service()
    with TestClient(create_app(service), base_url="http://localhost") as client:

        def probabilities(model: str) -> Any:
            return classify(client, model).json()["data"][0]["probabilities"]

        def meant(model: str) -> Any:
            return pytest.approx(dict(house.model(model).predict(["a dog"])[0].probabilities or {}), abs=1e-5)

        assert classify(client, "fresh").status_code == 404
        house.add("fresh", labelled(), [kv(20)])
        assert probabilities("fresh") == meant("fresh@1")
        house.add("fresh", labelled(), [kv(21)])
        assert probabilities("fresh") == meant("fresh@2") != probabilities("fresh@1")
        house.library.promote("fresh", 1, "prod")
        assert probabilities("fresh@prod") == meant("fresh@1")
        house.library.promote("fresh", 2, "prod")
        assert probabilities("fresh@prod") == meant("fresh@2")
        house.library.remove("fresh@2", force=True)
        assert probabilities("fresh") == meant("fresh@1")
        assert classify(client, "fresh@2").status_code == 404
        listed = {card["id"] for card in client.get("/v1/models").json()["data"]}
        assert "fresh" in listed
        assert "fresh@prod" not in listed
        house.library.remove("fresh")
        assert classify(client, "fresh").status_code == 404


def test_a_running_request_keeps_its_version(own_house: House) -> None:
    """The request is rendered and loaded before the prompt is removed, and computed after."""
    house = own_house
    meant = dict(house.model("routing").predict(["a dog"])[0].probabilities or {})
    service, _ = house.service()
    submit, reached, go_on = service.backend.submit, threading.Event(), threading.Event()

    def held(job: Any, listener: Listener) -> Any:
        reached.set()
        assert go_on.wait(30)
        return submit(job, listener)

    service.backend.submit = held  # type: ignore[method-assign]
    with TestClient(create_app(service), base_url="http://localhost") as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(classify, client, "routing")
        assert reached.wait(30)
        house.library.remove("routing", force=True)
        assert classify_status(client, "routing") == 404
        go_on.set()
        assert answer.result().json()["data"][0]["probabilities"] == pytest.approx(meant, abs=1e-5)


def classify_status(client: Any, model: str) -> int:
    return int(client.get(f"/v1/models/{model}").status_code)


def test_a_corrupt_prompt_fails_only_its_own_requests(own_house: House) -> None:
    house = own_house
    file = house.library.folder("words") / "prompt.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\x00\x00\x80\x7f")
    card = replace(house.library.card("routing"), task={"kind": "classification"})
    house.library.add("mute", [kv(30)], card)
    (house.root / "pair" / "aliases.toml").write_text("= broken")
    service, lines = house.service()
    with TestClient(create_app(service), base_url="http://localhost") as client:
        for name in ("words", "mute"):
            answer = classify(client, name)
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "prompt_corrupt")
            assert answer.headers["x-should-retry"] == "false"
            assert str(house.root) not in answer.text
        assert classify(client, "routing").status_code == 200
        assert "routing" in {card["id"] for card in client.get("/v1/models").json()["data"]}
    assert '"fault"' not in lines.getvalue()


def test_a_prompt_of_another_base_is_not_served(own_house: House) -> None:
    card = own_house.library.card("routing")
    own_house.add("foreign", labelled(), [kv(1)], base=replace(card.base, fingerprint="0" * 64, name="another"))
    service, _ = own_house.service()
    with TestClient(create_app(service), base_url="http://localhost") as client:
        answer = classify(client, "foreign")
        assert answer.status_code == 404
        assert "another" in answer.json()["error"]["message"]
        assert "foreign" not in {card["id"] for card in client.get("/v1/models").json()["data"]}


def test_two_names_for_the_same_vectors_are_one_prompt_to_the_engine(own_house: House) -> None:
    """And the same name with other vectors is another: caches go by content."""
    own_house.add("twin", labelled(), [kv(1)])
    service, _ = own_house.service()
    shelf = service.shelf
    first, twin = shelf.get("routing").carried, shelf.get("twin").carried
    assert (first.content, first.name) == (twin.content, "routing@1")
    assert shelf.get("notes").carried.content != first.content
    service.open()
    service.close()


def test_prompts_held_stay_within_their_bytes(own_house: House) -> None:
    for seed in range(6):
        own_house.add(f"p{seed}", labelled(), [kv(seed)])
    service, _ = own_house.service()
    shelf = service.shelf
    shelf.budget = 3 * shelf.get("p0").size
    contents = {shelf.get(f"p{seed}").carried.content for seed in range(6)}
    assert len(contents) == 6
    assert shelf.size <= shelf.budget
    assert shelf.get("p5") is shelf.get("p5")
    loads = shelf.loads
    shelf.get("p0")
    assert shelf.loads == loads + 1
    service.open()
    service.close()


def test_requests_for_one_prompt_load_it_once(own_house: House) -> None:
    service, _ = own_house.service()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(service.shelf.get, ["routing"] * 16))
    assert len({id(one) for one in found}) == 1
    assert service.shelf.loads == 1
    service.open()
    service.close()


def test_prompts_that_are_there_do_not_wait_for_others_to_be_loaded(own_house: House) -> None:
    """Forty requests for prompts on a slow disk took all threads there were, and nobody was answered."""
    for seed in range(50):
        own_house.add(f"slow{seed}", labelled(), [kv(seed)])
    service, _ = own_house.service()
    service.shelf.get("routing")
    load, go_on = service.shelf._prepare, threading.Event()

    def slow(stored: Any) -> Any:
        assert go_on.wait(30)
        return load(stored)

    service.shelf._prepare = slow
    with TestClient(create_app(service), base_url="http://localhost") as client, ThreadPoolExecutor(50) as pool:
        others = [pool.submit(classify, client, f"slow{seed}") for seed in range(50)]
        eventually(lambda: service.inside == 50)
        assert classify(client, "routing").status_code == 200
        go_on.set()
        assert {other.result().status_code for other in others} == {200}


def test_mixed_traffic_from_many_threads_equals_each_prompt_alone(house: House, running: Any) -> None:
    names = ["routing", "words", "writer", "notes", "first", "two", "talk"]
    texts = ["a", "some iron and more", "7 7 7"]
    jobs = [(name, text) for name in names for text in texts]
    models = {name: house.model(name) for name in names}
    meant = {(n, t): models[n].predict([t])[0] for n, t in set(jobs)}
    with httpx2.Client(base_url=running.url, timeout=60) as client, ThreadPoolExecutor(8) as pool:

        def ask(job: tuple[str, str]) -> str:
            body = {"model": job[0], "prompt": job[1], "temperature": 0}
            return str(client.post("/v1/completions", json=body).json()["choices"][0]["text"])

        for job, text in zip(jobs, pool.map(ask, jobs), strict=True):
            assert text == (meant[job].label or meant[job].output), job


def test_a_listener_hears_of_labels_then_of_the_end(house: House) -> None:
    """The contract with the batcher that the server relies on."""
    service, _ = house.service()
    service.open()
    served, heard, over = service.shelf.get("routing"), [], threading.Event()

    def listen(event: Any) -> None:
        heard.append(event)
        if isinstance(event, EndEvent):
            over.set()

    row = fill_fields(served, "a dog", {})
    assert served.tree is not None
    service.backend.submit(service.renderer.rows(served, [row], truncate=False), listen)
    assert over.wait(30)
    assert [type(event) for event in heard] == [LabelEvent, EndEvent]
    service.close()


def test_forms_of_every_kind_have_a_hash_of_their_own() -> None:
    from epigraph.serve.served import content_hash

    forms = [[kv(1)], [kv(2)], [vectors(1)], [vectors(1), vectors(2)], [vectors(2), vectors(1)]]
    assert len({content_hash(each) for each in forms}) == len(forms)
    assert content_hash([kv(1)]) == content_hash([kv(1)])
    assert written().template.blocks == 1
