"""A search over a toy base from the command line to the stored prompt: what is tried, resumed, decided and said."""

import json
import math
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import epigraph
from epigraph.base import Base
from epigraph.config import TuneConfig
from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.prompts import AnyForm, Embedded, KeyValue
from epigraph.tasks.task import Task
from epigraph.tuning import Surroundings, TuneResult, tune
from epigraph.tuning.loop import Moment


@pytest.fixture(scope="module")
def engine(toy: Base) -> Engine:
    return Engine(toy)


@pytest.fixture
def task(make_csv: Any) -> Task:
    return Task.from_file(make_csv(rows=40), test=make_csv("test.csv", rows=16, seed=1))


@pytest.fixture
def few(make_csv: Any) -> Task:
    return Task.from_file(make_csv(rows=12))


def tensors(forms: list[AnyForm]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for form in forms:
        assert isinstance(form, Embedded | KeyValue)
        found += [form.vectors] if isinstance(form, Embedded) else [form.keys, form.values]
    return found


def same(left: TuneResult, right: TuneResult) -> bool:
    pairs = zip(tensors(left.prompt.stored.forms), tensors(right.prompt.stored.forms), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Stop:
    """Interrupts at the n-th moment that is told."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, _moment: Moment) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt("stop")


MIXED = TuneConfig(epochs=4, batch=8, trials=4, length=2, keep="soft", validation=0.2)
FOLDS = TuneConfig(epochs=2, batch=8, trials=2, length=2, keep="soft")


@pytest.mark.parametrize(("config", "data"), [(MIXED, "task"), (FOLDS, "few")])
def test_a_search_that_is_resumed_ends_the_same_bit_for_bit(
    engine: Engine, request: pytest.FixtureRequest, tmp_path: Path, config: TuneConfig, data: str
) -> None:
    """Interrupted in the first rung, around its end, in the last stretch, and while the prompt learns from all rows."""
    learned = request.getfixturevalue(data)
    told: list[Moment] = []
    whole = tune(engine.base, learned, config, engine=engine, around=Surroundings(listener=told.append))
    folder, parts = None, (2, len(told) // 2, len(told) // 4)
    for after in parts:
        around = Surroundings(runs=tmp_path / "runs", resume=folder, listener=Stop(max(1, after)))
        with pytest.raises(KeyboardInterrupt, match="stop"):
            tune(engine.base, learned, config, engine=engine, around=around)
        (folder,) = (tmp_path / "runs").iterdir()
    result = tune(engine.base, learned, config, engine=engine, around=Surroundings(resume=folder))
    assert same(result, whole)
    assert result.trials == whole.trials
    assert result.scores == whole.scores


def test_a_budget_in_seconds_is_noted_and_obeyed(engine: Engine, task: Task, tmp_path: Path) -> None:
    """Another speed at the resume would have chosen other trials."""
    config = TuneConfig(epochs=2, batch=8, budget="0.001s", keep="soft", validation=0.2)
    around = Surroundings(runs=tmp_path / "runs", listener=Stop(1))
    with pytest.raises(KeyboardInterrupt, match="stop"):
        tune(engine.base, task, config, engine=engine, around=around)
    (folder,) = (tmp_path / "runs").iterdir()
    noted = (folder / "trials.toml").read_text()
    assert "what fits into" in noted
    (folder / "trials.toml").write_text(noted.replace("length = 8", "length = 3"))
    (folder / "state.safetensors").unlink()  # stopped before its first save
    result = tune(engine.base, task, config, engine=engine, around=Surroundings(resume=folder))
    assert (result.settings["length"], len(result.trials)) == (3, 1)
    assert "left_out" in result.reasons


def test_what_was_tried_is_printed_and_in_the_json(cli: Any, toy_flags: list[str], make_csv: Any) -> None:
    flags = ["--epochs", 2, "--batch", 8, "--budget", 3, "--validation", 0.2, "--keep", "soft", *toy_flags]
    answer = cli("tune", make_csv(rows=40), "--name", "tried", *flags, "--json")
    found = answer.json
    assert [trial["trial"] for trial in found["trials"]] == [0, 1, 2]
    assert sum(trial["kept"] == "kept" for trial in found["trials"]) == 1
    kept = next(trial for trial in found["trials"] if trial["kept"] == "kept")
    assert {name: found["settings"][name] for name in ("length", "rate", "start")} == {
        name: kept[name] for name in ("length", "rate", "start")
    }
    assert found["verdict"] == "soft"
    assert found["gain"]["low"] <= found["gain"]["value"] <= found["gain"]["high"]
    assert set(cli("schema", "tune").json["required"]) <= set(found)
    shown = cli("tune", make_csv(rows=40), "--name", "tried", *flags).out
    assert "dropped at" in shown
    assert "winner: trial" in shown
    card = cli("library", "show", "tried", "--json").json
    assert card["settings"]["trials"] == 3


def test_few_rows_are_cross_validated(engine: Engine, few: Task) -> None:
    """Every row is answered once by a prompt that has not seen it; the prompt that is kept has seen all."""
    result = tune(engine.base, few, FOLDS, engine=engine)
    assert (result.scores["split"], result.scores["rows"]) == ("crossval", 12)
    assert "cross-validation of 12 rows in 4 folds" in result.reasons["validation"]
    assert "a little too narrow" in result.reasons["validation"]
    assert "steps over all rows" in result.reasons["stop"]
    assert result.verdict.json["split"] == "crossval"


SETS = [["red", "blue"], ["blue"], [], ["red"]]
TEXTS = ["".join("abcd"[(n + k) % 4] for k in range(3)) + str(n) for n in range(12)]
KINDS_OF_TASK = {
    "generation": Task.from_rows(TEXTS, [text[:2].upper() for text in TEXTS], kind="generation", metric="token_f1"),
    "multilabel": Task.from_rows(TEXTS, [SETS[n % 4] for n in range(12)], kind="multilabel"),
    "ordinal": Task.from_rows(TEXTS, [1 + n % 4 for n in range(12)], kind="ordinal", metric="mae"),
}


@pytest.mark.parametrize("kind", KINDS_OF_TASK)
def test_few_rows_of_any_kind_are_cross_validated_and_the_gain_is_in_their_metric(engine: Engine, kind: str) -> None:
    """Outputs and sets of labels had one split of a few rows; sets and mean errors were compared by the share of right answers."""
    task, notes = KINDS_OF_TASK[kind], list[str]()
    config = TuneConfig(epochs=1, batch=8, trials=1, length=2, keep="soft")
    result = tune(engine.base, task, config, engine=engine, around=Surroundings(note=notes.append))
    assert (result.scores["split"], result.scores["rows"]) == ("crossval", 12)
    assert "steps over all rows" in result.reasons["stop"] or "answered worse at every rate" in result.reasons["stop"]
    gain = result.json["gain"]
    assert (gain["metric"], gain["split"], gain["rows"]) == (task.metric, "crossval", 12)
    difference = result.scores[task.metric]["value"] - result.hard.json[task.metric]["value"]
    assert gain["value"] == pytest.approx(-difference if task.metric == "mae" else difference, abs=1e-6)
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert (f"hard − soft is {gain['value']:+.3f}" in result.reasons["verdict"]) is (task.metric == "mae")
    if kind == "multilabel":
        assert "best micro_f1 on 12 held-out rows" in result.reasons["threshold"]


def test_what_stopped_before_its_time_is_learned_anew_as_long_as_it_took(engine: Engine) -> None:
    """After 24 of 40 epochs without a gain in four validations the prompt that is kept once learned for all 40."""
    coins = random.Random(0)
    task = Task.from_rows([f"{i} {coins.random()}" for i in range(64)], [coins.choice("ab") for _ in range(64)])
    config = TuneConfig(kind="kv", length=4, epochs=30, batch=16, patience=1, budget="1", rate=0.3, keep="soft")
    said = tune(engine.base, task, config, engine=engine).reasons["stop"]
    taken, again = map(int, re.findall(r"(\d+) steps", said))
    assert said.startswith("no gain in 1 validations")
    assert taken < 30 * 3
    assert again <= 4 * math.ceil(taken / 2)


def test_the_hard_prompt_is_kept_where_it_is_better(engine: Engine, make_csv: Any, tmp_path: Path) -> None:
    """The soft prompt starts from one that learned the opposite, at a rate at which nothing is learned."""
    task = Task.from_file(make_csv(rows=64))
    good = tune(
        engine.base, task, TuneConfig(epochs=6, batch=8, rate=0.3, budget="1", validation=0.15, keep="soft"), engine=engine
    )
    other = dict(zip(task.labels, reversed(task.labels), strict=True))
    rows = [replace(row, target=other[row.target or ""]) for row in task.train.rows]
    opposite = replace(task, train=replace(task.train, rows=tuple(rows)))
    around = Surroundings(forms_of=lambda _name: good.prompt.stored.forms)  # type: ignore[arg-type,return-value]
    asked = TuneConfig(start="prompt:good", rate=1e-9, epochs=1, batch=8, budget="1", validation=0.3)
    result = tune(engine.base, opposite, asked, engine=engine, around=around)
    assert result.verdict.keeps == result.json["verdict"] == "hard"
    assert result.reasons["verdict"].startswith("keep the hard prompt (")
    assert result.json["gain"]["high"] < 0
    assert result.scores == result.hard.json
    assert result.cost["trained_parameters"] == 0
    card = result.prompt.stored.card
    assert (card.kind, card.lineage.how) == ("token", f"the hard prompt {result.settings['hard_prompt']}")
    result.prompt.save(tmp_path / "hard")
    texts = [row.fields["text"] for row in rows[:8]]
    loaded = epigraph.load(tmp_path / "hard", engine.base).predict(texts)
    assert loaded == result.model.predict(texts)
    soft = tune(engine.base, opposite, replace(asked, keep="soft"), engine=engine, around=around)
    assert soft.verdict.keeps == "soft"
    assert soft.reasons["verdict"].endswith("the soft prompt is stored, as asked")


def test_metrics_name_trial_and_fold(engine: Engine, few: Task, tmp_path: Path) -> None:
    tune(engine.base, few, FOLDS, engine=engine, around=Surroundings(runs=tmp_path / "runs"))
    (folder,) = (tmp_path / "runs").iterdir()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {(line["trial"], line["fold"]) for line in lines} == {(t, f) for t in (0, 1) for f in range(4)}


def test_a_start_from_keys_and_values_has_their_length(engine: Engine, task: Task) -> None:
    """The settings said 8 vectors where the stored prompt had 5, and a trial of 32 was the same prompt once more."""
    keys = engine.key_values(engine.embedded_text(engine.base.tokenize("hello")))
    around = Surroundings(forms_of=lambda _name: [keys])
    asked = TuneConfig(start="prompt:five", epochs=1, batch=8, trials=2, keep="soft")
    result = tune(engine.base, task, asked, engine=engine, around=around)
    assert (result.settings["length"], result.prompt.stored.forms[0].length) == (5, 5)
    assert result.reasons["length"] == "5 vectors a block: those of five"
    assert [trial["length"] for trial in result.trials] == [5, 5]
    with pytest.raises(ConfigError, match=r"a length of 3 was asked, but five holds keys and values of 5.*--length 5"):
        tune(engine.base, task, replace(asked, length=3), engine=engine, around=around)


def test_a_start_from_examples_needs_no_length(engine: Engine, task: Task) -> None:
    result = tune(engine.base, task, TuneConfig(start="examples", epochs=1, batch=8, trials=1, keep="soft"), engine=engine)
    assert result.settings["length"] == 128
    assert 8 < result.prompt.stored.forms[0].length <= 128
