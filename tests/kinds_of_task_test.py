"""Every kind of task from a file to answers, on a toy base: tuned, scored, stored, asked; by the command line and Python."""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import epigraph
from epigraph.base import Base
from epigraph.config import TuneConfig
from epigraph.engine import Engine
from epigraph.tasks.task import Task
from epigraph.tuning import tune
from epigraph.tuning.search import CrossValidated

QUICK = ["--epochs", "2", "--batch", "8", "--rate", "0.3", "--budget", "1", "--validation", "0.15", "--keep", "soft"]
COLOURS = ("đỏ", "xanh", "vàng")
LEVELS = ("差", "一般", "好", "很好")


@pytest.fixture(scope="module")
def engine(toy: Base) -> Engine:
    return Engine(toy)


def write_jsonl(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def questions(rows: int) -> list[dict[str, Any]]:
    """Vietnamese questions with two to four choices; the answer is a letter."""
    rng = random.Random(0)
    found = []
    for i in range(rows):
        choices = rng.sample(["một quả cam", "hai", "con mèo đen", "cái bàn gỗ"], rng.randint(2, 4))
        right = rng.randrange(len(choices))
        found.append({"question": f"Câu {i}: chọn {choices[right]}?", "choices": choices, "answer": "ABCD"[right]})
    return found


def coloured(rows: int) -> list[dict[str, Any]]:
    """Texts that name their labels; every fifth has none."""
    rng = random.Random(1)
    sets = [[] if i % 5 == 0 else [c for c in COLOURS if rng.random() < 0.5] for i in range(rows)]
    return [{"text": f"vải {i} {' '.join(labels)}", "tags": labels} for i, labels in enumerate(sets)]


def graded(rows: int) -> list[dict[str, Any]]:
    """Chinese remarks with a grade."""
    return [{"text": f"第{i}条评论：{LEVELS[i % 4]}", "grade": LEVELS[i % 4]} for i in range(rows)]


def toml(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_multiple_choice(cli: Any, toy_flags: list[str], tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "quiz.jsonl", questions(24))
    tuned = cli("tune", data, "--name", "quiz", *QUICK, *toy_flags, "--json")
    assert tuned.code == 0, tuned.err
    assert tuned.json["reasons"]["task"].startswith("choice: choices hold choices")
    assert "by its letter" in tuned.json["reasons"]["columns"]
    assert set(tuned.json["scores"]) == {"accuracy", "rows", "majority", "split", "interval"}
    assert set(tuned.json["hard_prompt"]) == set(tuned.json["scores"])
    scored = cli("evaluate", "quiz", "--data", data, *toy_flags, "--json").json
    assert scored["scores"]["rows"] == 24
    shifted = cli("evaluate", "quiz", "--data", data, *toy_flags, "--calibrate", "contextual", "--json").json
    assert shifted["settings"]["calibrate"] == "contextual"
    asked = json.dumps({"question": "Chọn hai?", "choices": ["hai", "con mèo đen", "một"]}, ensure_ascii=False)
    (answer,) = cli("predict", "quiz", asked, *toy_flags, "--json").lines
    assert list(answer["probabilities"]) == ["hai", "con mèo đen", "một"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["label"] == ["hai", "con mèo đen", "một"][answer["choice"]]
    file_answers = cli("predict", "quiz", "--file", data, *toy_flags, "--json").lines
    assert [len(a["probabilities"]) for a in file_answers] == [len(q["choices"]) for q in questions(24)]
    refused = cli("predict", "quiz", "Chọn hai?", *toy_flags)
    assert refused.code == 2
    assert "question, choices" in refused.err
    refused = cli("evaluate", "quiz", "--data", data, *toy_flags, "--calibrate", "prior")
    assert refused.code == 2
    assert "its own choices" in refused.err


def test_labels_in_sets(cli: Any, toy_flags: list[str], tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "colours.jsonl", coloured(30))
    tuned = cli("tune", data, "--name", "colours", *QUICK, *toy_flags, "--json")
    assert tuned.code == 0, tuned.err
    assert tuned.json["reasons"]["task"].startswith("multilabel: 'tags' holds the labels")
    assert {"micro_f1", "macro_f1", "subset_accuracy"} < set(tuned.json["scores"])
    threshold = tuned.json["settings"]["threshold"]
    assert 0 < threshold < 1
    scored = cli("evaluate", "colours", "--data", data, *toy_flags, "--per-class", "--json").json
    assert [one["label"] for one in scored["per_class"]] == sorted(COLOURS)
    (answer,) = cli("predict", "colours", "vải xanh đỏ", *toy_flags, "--json").lines
    assert answer["labels"] == [label for label, p in answer["probabilities"].items() if p >= threshold]
    assert set(answer["probabilities"]) == set(COLOURS)
    text = cli("predict", "colours", "vải", *toy_flags).out
    assert text.endswith("\tvải\n")
    assert cli("evaluate", "colours", "--data", data, *toy_flags, "--calibrate", "prior").code == 0


def test_labels_with_an_order(cli: Any, toy_flags: list[str], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "grades.jsonl", graded(40))
    order = "\n".join(f'"{level}" = "{level}"' for level in LEVELS)
    task = toml(
        tmp_path / "grades.toml",
        f'kind = "ordinal"\nmetric = "mae"\n[columns]\ntext = "text"\nlabel = "grade"\n[labels]\n{order}\n'
        '[data]\ntrain = "grades.jsonl"\n',
    )
    tuned = cli("tune", task, *QUICK, *toy_flags, "--json")
    assert tuned.code == 0, tuned.err
    assert tuned.json["reasons"]["order"].startswith("差 < 一般 < 好 < 很好")
    assert "median" in tuned.json["reasons"]["answer"]
    scores = tuned.json["scores"]
    assert 0 <= scores["mae"]["low"] <= scores["mae"]["value"] <= scores["mae"]["high"] <= 3
    assert {"accuracy", "quadratic_kappa", "macro_f1"} < set(scores)
    run = next((tmp_path / "work" / "library" / ".runs").glob("grades-*"))
    watched = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(line["score"] >= 0 for line in watched)
    kept = float(re.search(r"kept mae ([\d.]+)", tuned.json["reasons"]["stop"])[1])
    assert kept in {round(line["score"], 3) for line in watched}, "a score as people read it, not turned"
    (answer,) = cli("predict", "grades", "第7条评论：好", *toy_flags, "--json").lines
    summed, median = 0.0, ""
    for level in LEVELS:
        summed += answer["probabilities"][level]
        median = median or (level if summed >= 0.5 else "")
    assert answer["label"] == median


def test_stars_are_a_scale_unless_it_is_said_otherwise(cli: Any, toy_flags: list[str], tmp_path: Path) -> None:
    data = tmp_path / "reviews.csv"
    data.write_text("review,stars\n" + "".join(f"review {i} {'x' * (i % 5)},{i % 5 + 1}\n" for i in range(60)))
    tuned = cli("tune", data, "--name", "stars", *QUICK, *toy_flags, "--json")
    assert "whole numbers 1 to 5" in tuned.json["reasons"]["task"]
    assert "mae" in tuned.json["scores"]
    plain = cli("tune", data, "--name", "plain", "--task-kind", "classification", *QUICK, *toy_flags, "--json")
    assert "mae" not in plain.json["scores"]


def test_outputs_end_at_a_stop_word_and_a_limit(cli: Any, toy_flags: list[str], tmp_path: Path) -> None:
    records = [{"input": f"dòng {i}", "output": f"kq {i}" + ("###thừa" if i < 3 else "")} for i in range(20)]
    write_jsonl(tmp_path / "lines.jsonl", [*records, {"input": "dài", "output": "rất dài " * 9}])
    task = toml(
        tmp_path / "lines.toml",
        'kind = "generation"\nmetric = "token_f1"\nstop = ["\\n", "###"]\noutput_tokens = 12\n[data]\ntrain = "lines.jsonl"\n',
    )
    tuned = cli("tune", task, *QUICK, *toy_flags, "--json")
    assert tuned.code == 0, tuned.err
    assert tuned.json["settings"]["output_tokens"] == 12
    assert "3 of 21 rows have an output with a stop word in it: the rest is left out" in tuned.json["warnings"]
    assert "1 of 21 rows have an output longer than 12 tokens: the rest is left out" in tuned.json["warnings"]
    assert {"exact_match", "token_f1"} < set(tuned.json["scores"])
    for line in cli("predict", "lines", "dòng 1", "dòng 2", *toy_flags, "--json").lines:
        assert "\n" not in line["output"]
        assert "#" * 3 not in line["output"]
    refused = cli("evaluate", "lines", "--data", tmp_path / "lines.jsonl", *toy_flags, "--calibrate", "prior")
    assert refused.code == 2
    assert "writes text" in refused.err


def test_a_hundred_and_fifty_labels(cli: Any, toy_flags: list[str], tmp_path: Path) -> None:
    """Some of which begin others."""
    labels = [f"intent_{i}" for i in range(100)] + [f"intent_{i}_more" for i in range(50)]
    data = tmp_path / "intents.csv"
    data.write_text("text,label\n" + "".join(f"message {i} {labels[i % 150]},{labels[i % 150]}\n" for i in range(300)))
    some = tmp_path / "some.csv"
    some.write_text("\n".join(data.read_text().splitlines()[:31]) + "\n")
    tuned = cli(
        "tune",
        data,
        "--name",
        "intents",
        "--epochs",
        "1",
        "--budget",
        "1",
        "--rate",
        "0.1",
        "--batch",
        "64",
        *toy_flags,
        "--json",
    )
    assert tuned.code == 0, tuned.err
    (answer,) = cli("predict", "intents", "message", *toy_flags, "--json").lines
    assert set(answer["probabilities"]) == set(labels)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    shown = cli("evaluate", "intents", "--data", some, *toy_flags, "--per-class", "--confusion")
    assert "the most frequent errors" in shown.out
    assert "intent_29" in shown.out


def test_a_calibration_is_stored_with_the_prompt_that_was_tuned_so(engine: Engine, tmp_path: Path) -> None:
    task = Task.from_rows([f"text {i} {'ab'[i % 2]}" for i in range(30)], ["good", "bad"] * 15)
    single: dict[str, Any] = {"epochs": 1, "rate": 0.1, "budget": "1", "validation": 0.15, "keep": "soft"}
    plain, shifted = (
        tune(engine.base, task, TuneConfig(calibrate=how, **single), engine=engine) for how in ("", "contextual")
    )
    shifted.prompt.save(tmp_path / "shifted")
    loaded = epigraph.load(tmp_path / "shifted", engine.base)
    assert loaded.predict(["x"])[0].probabilities == pytest.approx(shifted.model.predict(["x"])[0].probabilities, abs=1e-6)
    assert loaded.predict(["x"])[0].probabilities != plain.model.predict(["x"])[0].probabilities
    empty = [loaded.predict([text])[0].probabilities or {} for text in ("N/A", "[MASK]")]
    assert all(0.2 < one["good"] < 0.8 for one in empty), "no input, no opinion"


@pytest.mark.parametrize("rows", [60, 12])
def test_a_calibrated_prompt_is_judged_against_calibrated_hard_prompts(engine: Engine, rows: int) -> None:
    """The verdict was "soft − hard is +0.389" of a hard prompt without the calibration, and the table below it showed the hard
    prompt with it, better than the soft one; of few rows the table had the hard prompt without, the soft one with it."""
    task = Task.from_rows([f"text {i} {'ab'[i % 2]}" for i in range(rows)], ["good", "bad"] * (rows // 2))
    config = TuneConfig(epochs=1, rate=0.1, budget="1", calibrate="contextual", readings=1)
    hard = tune(engine.base, task, config, engine=engine).verdict.hard
    assert hard.method.shift is not None
    judged: Any = hard.judged
    methods = judged.methods if isinstance(judged, CrossValidated) else [judged.method]
    assert all(method.shift is not None for method in methods)


@pytest.mark.parametrize(
    ("name", "text", "data", "said"),
    [
        ("no choices", 'kind = "choice"', "question,answer\na,b\n", "no column for the choices"),
        ("no answer", 'kind = "choice"', "question,A,B,C,note\na,x,y,z,1\n", "no column for the answer"),
        ("answers of nothing", 'kind = "choice"', "question,A,B,answer\na,x,y,7\nb,x,y,9\n", "name none of the choices"),
        ("numbers from where", 'kind = "choice"', "question,choices,answer\na,x|y|z,1\nb,x|y|z,2\n", "from 0 or from 1"),
        ("no order", 'kind = "ordinal"', "text,label\na,poor\nb,fine\nc,poor\nd,fine\n", "order of the labels is not known"),
        ("one label", 'kind = "multilabel"', "text,labels\na,x\nb,x\n", "has one label"),
        ("no sets", 'kind = "multilabel"', "text,words\na,x\nb,x\n", "no column for the labels"),
        ("metric", 'kind = "choice"\nmetric = "mae"', "question,A,B,answer\na,x,y,A\nb,x,y,B\n", "'mae' is none for choice"),
        ("stop", 'stop = ["x"]', "text,label\na,x\nb,y\nc,x\nd,y\n", "writes no text"),
        ("stop is no text", 'kind = "generation"\nstop = [3]', "input,output\na,b\n", "stop holds 3"),
        ("tokens", 'kind = "generation"\noutput_tokens = 0', "input,output\na,b\n", "must be at least 1"),
    ],
)
def test_what_cannot_be_is_one_clear_line(cli: Any, tmp_path: Path, name: str, text: str, data: str, said: str) -> None:
    (tmp_path / "data.csv").write_text(data)
    task = toml(tmp_path / "task.toml", f'{text}\n[data]\ntrain = "data.csv"\n')
    refused = cli("tune", task, "--name", "x", "--base", "none")
    assert refused.code == 2, name
    assert said in refused.err
    assert refused.err.count("\n") == 1
