"""``auto`` answers with the version that its router's reference means on this base, and passes over what is not there."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from epigraph.base import Base
from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.library import Card, Library
from epigraph.model import facts
from epigraph.routing import open_auto, text_queries, write_router
from epigraph.routing.router import Router
from epigraph.tasks.task import Task
from epigraph.tuning.start import make_prompt

TEXTS = {"moods": ["aa aaa a", "a aa aaaa", "aaa a"], "teams": ["77 7 777", "7 77 7", "777 77"]}


@pytest.fixture(scope="module")
def base() -> Base:
    return toy_base(seed=1)


def store(library: Library, name: str, base: Base, labels: Sequence[str]) -> str:
    task = Task.from_rows([f"{labels[i % 2]} {i}" for i in range(6)], list(labels) * 3, name=name)
    forms = make_prompt(Engine(base, keep=False), task, kind="token", length=2, start="text", seed=0).fold()
    card = Card(
        name=name, version=1, kind="token", place="template", trained_parameters=1, base=facts(base), task=task.to_dict()
    )
    return library.add(name, forms, replace(card, settings={"output_tokens": 1})).reference


def route(library: Path, base: Base, **prompts: str) -> None:
    engine = Engine(base, keep=False)
    queries = {name: text_queries(engine, TEXTS[name]) for name in prompts}
    write_router(library, Router.fit(queries, fingerprint=base.fingerprint, prompts=prompts))


def answered(library: Path, base: Base, *texts: str) -> list[tuple[str, str | None]]:
    found = open_auto(library, base, threshold=0.0).predict(list(texts))
    return [(one.prompt, one.prediction.label) for one in found]


def test_the_version_of_a_name_is_the_newest_that_stands_on_this_base(base: Base, tmp_path: Path) -> None:
    """A name was tuned again on another base: auto opened its newest version, and every text routed there ended in a fault."""
    library = Library(tmp_path)
    for labels in (("old", "older"), ("up", "down")):
        store(library, "moods", base, labels)
    assert store(library, "moods", toy_base(seed=2), ("far", "away")) == "moods@3"
    store(library, "teams", base, ("red", "blue"))
    route(tmp_path, base, moods="moods", teams="teams")
    (moods, mood), (teams, team) = answered(tmp_path, base, "aa a aa", "7 777 7")
    assert (moods, teams) == ("moods", "teams")
    assert mood in ("up", "down")
    assert team in ("red", "blue")


@pytest.mark.parametrize("gone", ["version", "alias", "damaged", "base"])
def test_what_cannot_answer_is_no_candidate(gone: str, base: Base, tmp_path: Path) -> None:
    """Only the name was looked up: a text went to the version that was removed, and ended in "there is no such version"."""
    library = Library(tmp_path)
    store(library, "moods", toy_base(seed=2) if gone == "base" else base, ("up", "down"))
    store(library, "teams", base, ("red", "blue"))
    if gone == "damaged":
        (tmp_path / "moods" / "1" / "card.toml").write_text("no card")
    named = {"version": "moods@7", "alias": "moods@prod"}.get(gone, "moods")
    route(tmp_path, base, moods=named, teams="teams@1")
    (only, label), *_ = answered(tmp_path, base, "aa a aa")
    assert only == "teams@1"
    assert label in ("red", "blue")
