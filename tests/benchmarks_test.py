"""Every benchmark script runs, on a toy base and few rows; what it measures there means nothing."""

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from epigraph.base.load import wrap_model
from epigraph.base.toy import toy_base, toy_tokenizer
from epigraph.engine.plain import plain_states
from epigraph.serve.work import Generation, Sampling, TokenEvent
from epigraph.tasks.encode import Encoded
from epigraph.tasks.task import Task

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = (
    "building",
    "side_by_side",
    "scaling",
    "memory",
    "compile",
    "kinds",
    "orders",
    "few_shot",
    "decoding",
    "serving",
    "soak",
    "distill",
    "shortcut",
    "contributions",
    "fix",
    "curve",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_prints_its_verdicts_and_writes_json(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--rounds", "1"]
    surroundings = {**os.environ, "EPIGRAPH_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "results").glob("*.json")
    found = json.loads(file.read_text())
    assert found["machine"]["quick"]
    for each in found["verdicts"]:
        assert f"{each['what']}: " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("name", "found"), [("multitask", "multitask.json"), ("continual", "continual-prompts.json")])
def test_a_script_of_many_tasks_writes_json(name: str, found: str, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--dtype", "float32"]
    surroundings = {**os.environ, "EPIGRAPH_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first = json.loads((tmp_path / "results" / found).read_text())
    assert first["quick"]
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "measurements are there already" in done.stdout
    assert json.loads((tmp_path / "results" / found).read_text()) == first, "it was measured again"


def test_what_is_kept_survives_a_kill_and_belongs_to_one_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill in the middle of a line left a file that no later call could read; more draws are no other question."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    kept = importlib.import_module("kept")
    file = tmp_path / "kept.jsonl"

    def open_it(draws: int = 1, rows: int = 10) -> Any:
        return kept.Kept(file, argparse.Namespace(draws=draws, rows=rows), more=("draws",))

    open_it().once("a", lambda: 1)
    with file.open("a") as out:
        out.write('{"b": ')
    again = open_it(draws=5)
    assert again.known == {"a": 1}
    assert again.once("b", lambda: 2) == 2
    assert open_it().known == {"a": 1, "b": 2}
    assert open_it(rows=20).known == {}


def test_few_examples_of_many_labels_are_not_always_of_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 4 examples of 10 labels every draw had the first four labels; bare means were taken for differences."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    multitask = importlib.import_module("multitask")
    labels = [f"label {i}" for i in range(10)]
    task = Task.from_rows([f"text {i}" for i in range(60)], labels * 6, name="many")
    drawn = [{row.target for row in multitask.drawn(task, 4, draw)} for draw in range(5)]
    assert all(len(found) == 4 for found in drawn)
    assert len(set().union(*drawn)) > 4
    assert multitask.drawn(task, 16, 1) == multitask.drawn(task, 16, 1)
    assert multitask.drawn(task, 16, 1)[:4] == multitask.drawn(task, 4, 1)
    found = multitask.interval([0.5, 0.6, 0.7])
    assert found["value"] == pytest.approx(0.6)
    assert found["low"] < found["value"] < found["high"]
    assert multitask.in_words(found) == "helps"
    assert multitask.in_words(multitask.interval([0.1, -0.1])) == "no difference to be seen"
    assert multitask.in_words(multitask.interval([0.5])) == "one draw says nothing"


def test_a_text_that_parts_is_explained_by_its_rounding_or_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lead of twice the text's widest error was asked for, which the runs' own errors at that very token can exceed: what counts is
    whether the two tokens are near in truth. Where the model makes a massive activation or not by a rounding, the text's other
    tokens have no such error, but the model's own code has it at the same place."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    exact = importlib.import_module("exact")
    base = wrap_model(toy_base().model.to(torch.bfloat16), toy_tokenizer(), name="toy-bf16")

    def said(token: int, **likely: float) -> TokenEvent:
        top = tuple((int(name[1:]), logprob) for name, logprob in likely.items())
        return TokenEvent(choice=0, token=token, text="", logprob=dict(top)[token], top=top)

    jobs = [Generation(segments=((5, 6),), prompt=None, sampling=Sampling(max_tokens=2, temperature=0.0))] * 3
    far_off, first = said(7, t7=-1.0, t9=-60.0), said(7, t7=-1.0)
    near, nearer = said(8, t8=-1.0, t9=-1.0), said(9, t9=-1.0, t8=-1.0)
    mixed = [[far_off, near], [first, near], [said(7, t7=-1.01), said(8, t8=-1.0)]]
    alone = [[far_off, nearer], [first, said(4, t4=-0.5, t8=-9.0)], [first, said(8, t8=-1.0)]]
    truth = base.in_fp32()
    piece = exact.compare(base, truth, jobs, mixed, alone)
    assert [(one["of"], one["at"], one["lead"]) for one in piece["parted"]] == [("base", 1, 0.0), ("base", 1, math.inf)]
    assert piece["noise"] == pytest.approx(0.01)
    (true, after) = exact.true_logits(base, truth, jobs[0], [7, 9])
    assert piece["parted"][0]["true lead"] == pytest.approx(abs(float(after[9] - after[8])))
    (before, whole) = exact.true_logits(base, base, jobs[0], [7, 9])
    off = (whole - after)[[8, 9, *after.topk(20).indices.tolist()]]
    assert piece["parted"][0]["there"] == pytest.approx(float(off.max() - off.min()))
    likely = int(before.argmax())
    assert likely != 7
    assert (
        piece["own"] == [pytest.approx(abs(float(true[7] - true[likely])))] * 3
    )  # it says another first token than all three
    piece["parted"][1]["there"] = 0.0
    assert piece["errors"] == [pytest.approx(abs(59.0 - float(true[7] - true[9]))), 0.0, 0.0]  # one token told: no lead
    states = plain_states(truth, Encoded(((5, 6),)), [])
    torch.testing.assert_close(true, truth.logits(states[-1:])[0].float())
    assert exact.error_of(said(7, t7=-1.0, t9=-1.5), true) == pytest.approx(abs(0.5 - float(true[7] - true[9])))
    found = exact.summary(base, [piece, json.loads(json.dumps(piece))])
    assert (found["texts"], found["differ"], found["unexplained"]) == (6, 4, 2)
    assert not exact.judged(found)["met"]


def test_a_soak_is_judged_over_its_longest_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever goes on starts another server: a small one after a large one looked as if memory were flat."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    soak = importlib.import_module("soak")
    minutes = [{"stretch": stretch, "sizes": [size]} for stretch, size in ((1, 90), (2, 50), (2, 50), (2, 60), (2, 70))]
    stretch = soak.longest(minutes)
    assert stretch == minutes[1:]
    assert soak.growth([size for minute in stretch for size in minute["sizes"]]) == pytest.approx(1.4)


def test_every_script_is_tried() -> None:
    shared = {"measuring", "drawing", "kept", "paired", "exact"}
    needs_the_base = {"main_job", "calibration"}
    many_tasks = {"multitask", "continual"}
    assert {file.stem for file in BENCHMARKS.glob("*.py")} == {*SCRIPTS, *shared, *needs_the_base, *many_tasks}
