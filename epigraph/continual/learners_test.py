"""What a sequence keeps, however it ends: rows to replay, values that are measured and not copied, versions stored once."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epigraph.base.toy import toy_base
from epigraph.config import TuneConfig
from epigraph.continual import scoring, sequence
from epigraph.continual.learners import PromptEach, Replay
from epigraph.continual.settings import ContinualConfig
from epigraph.continual.stage import SequenceFolder, read_json, write_json
from epigraph.continual.weights import FACTORS, SequentialLora, rates
from epigraph.continual.world import Ordered, World
from epigraph.engine import Engine
from epigraph.errors import Diverged
from epigraph.library import Library
from epigraph.methods.watched import Watched
from epigraph.routing import Router
from epigraph.tasks.row import Split
from epigraph.tasks.task import Task
from epigraph.tuning.loop import Settings


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(toy_base(), folder=tmp_path_factory.mktemp("frozen"), budget=10**9)


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def world(engine: Engine, tmp_path: Path, notes: list[str]) -> World:
    """Two tasks; nothing is computed here."""
    tasks = [Task.from_rows([f"{n} text {i}" for i in range(6)], ["up", "down"] * 3, name=n) for n in ("one", "two")]
    return World(
        engine=engine,
        folder=SequenceFolder(tmp_path),
        config=ContinualConfig(),
        name="all",
        tasks=[Ordered(task=_tested(task), source=("", "", "")) for task in tasks],
        router=Router(fingerprint=engine.base.fingerprint),
        note=notes.append,
    )


def _tested(task: Task) -> Task:

    return replace(task, test=Split(rows=task.train.rows[:2]))


def test_a_kill_after_learning_leaves_the_rows_to_replay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows were written after the task was marked as learned: a kill in between lost them for all later tasks."""

    def killed(*_args: object, **_named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Replay, "_tune", killed)
    learner = Replay(world)
    with pytest.raises(KeyboardInterrupt):
        learner.learn(0)
    assert len(learner._kept(1)) == 6
    assert learner._kept(0) == []


def test_what_never_changes_is_measured_all_the_same(
    world: World, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgetting was 0 because the earlier value was copied over the measured one."""
    learner = PromptEach(world)
    world.stage("separate", 0).finish_scoring({"known": [0.75]})
    monkeypatch.setattr(scoring, "score_task", lambda *_: {"known": 0.5, "inferred": 0.5, "union": 0.5})
    row = scoring.score_row(world, learner, 1)
    assert row["known"] == [0.5, 0.5]
    assert "answered 0.750 of one right and now 0.500" in notes[0]
    monkeypatch.setattr(scoring, "score_task", lambda *_: dict.fromkeys(("known", "inferred", "union")))
    assert scoring.score_row(world, learner, 1)["known"] == [0.75, None]


def test_a_kill_while_a_prompt_is_routed_stores_it_once(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark was set after the route: a kill in between stored the same prompt as another version."""
    added: list[str] = []
    monkeypatch.setattr(sequence, "_add", lambda *_: added.append("one@1") or "one@1")
    stage = world.stage("separate", 0)
    write_json(stage.folder / "learned.json", {"settings": {}})
    learner = PromptEach(world)

    def killed(*_args: object, **_named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sequence, "learn_route", killed)
    with pytest.raises(KeyboardInterrupt):
        sequence._store(world, learner, 0, Library(tmp_path))
    routed: list[str] = []
    monkeypatch.setattr(sequence, "learn_route", lambda *_args, **named: routed.append(named["prompt"]))
    for _ in range(2):
        sequence._store(world, learner, 0, Library(tmp_path))
    assert (added, routed) == (["one@1"], ["one"])
    assert read_json(stage.folder / "stored") == {"prompt": "one@1"}


@pytest.mark.parametrize(("budget", "tried"), [({"trials": 3}, 3), ({"budget": "2"}, 2), ({"budget": "1h"}, 4), ({}, 1)])
def test_weights_are_tuned_at_as_many_rates_as_the_prompts_had_trials(
    world: World, budget: dict[str, Any], tried: int
) -> None:
    """Under a budget in seconds the prompts searched, and LoRA and full fine-tuning were given one rate, the default one."""
    tune = TuneConfig(epochs=1, batch=4, **budget)
    world.config = ContinualConfig(methods=("separate", "lora"), tune=tune)
    for t in range(2):
        world.stage("separate", t).finish_learning({"trials": 4})
    learner = SequentialLora(world)
    for t in range(2):
        learner.learn(t)
        said = world.stage("lora", t).learned
        assert said is not None
        assert said["trials"] == len({one["rate"] for one in said["tried"]}) == tried
        assert said["settings"]["rate"] in {one["rate"] for one in said["tried"]}
        again = SequentialLora(world)
        again.restore(t)
        rows = world.tasks[t].tests
        found = [one.probabilities(t, world.tasks[t].task, rows) for one in (learner, again)]
        np.testing.assert_array_equal(*found)
    assert not (world.stage("lora", 0).folder / "weights.safetensors").exists()


def test_more_rates_than_are_listed_lie_between_those_that_are() -> None:
    found = list(islice(rates(1e-3), 12))
    assert found[0] == 1e-3
    assert len(set(found)) == 12
    assert all(min(FACTORS) * 1e-3 <= rate <= max(FACTORS) * 1e-3 for rate in found)


def test_a_rate_that_diverges_is_passed_over(world: World, monkeypatch: pytest.MonkeyPatch, notes: list[str]) -> None:
    world.config = ContinualConfig(methods=("lora",), tune=TuneConfig(epochs=1, batch=4, trials=2))
    train = SequentialLora._train

    def diverges(self: SequentialLora, t: int, task: Task, settings: Settings) -> Watched:
        if settings.rate > 3e-4:
            raise Diverged("the loss was nan.", "")
        return train(self, t, task, settings)

    monkeypatch.setattr("epigraph.continual.weights.rates", lambda _first: iter([1e-4, 1.0]))
    monkeypatch.setattr(SequentialLora, "_train", diverges)
    learner = SequentialLora(world)
    learner.learn(0)
    said = world.stage("lora", 0).learned
    assert said is not None
    assert said["settings"]["rate"] == 1e-4
    assert learner.learned == 0
    assert any("too high" in note for note in notes)
    world.config = replace(world.config, tune=replace(world.config.tune, trials=1))
    monkeypatch.setattr("epigraph.continual.weights.rates", lambda _first: iter([1.0]))
    with pytest.raises(Diverged, match="none of 1 rates"):
        learner.learn(1)
