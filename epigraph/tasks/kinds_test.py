"""Which kind a file is of by itself, and what its rows then are."""

import json
from pathlib import Path
from typing import Any

import pytest

from epigraph.errors import DataError, TaskError
from epigraph.tasks.kinds import KINDS_OF_TASK
from epigraph.tasks.row import Fault
from epigraph.tasks.task import Task


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def task_of(tmp_path: Path, records: list[dict[str, Any]], **asked: Any) -> Task:
    return Task.from_file(write(tmp_path / "data.jsonl", records), **asked)


def test_every_kind_has_a_metric_and_a_cue() -> None:
    for kind in KINDS_OF_TASK.values():
        assert kind.metrics
        assert kind.cue
        assert not (kind.one_label and kind.writes)


@pytest.mark.parametrize(
    ("records", "target", "choices", "fields"),
    [
        (
            [{"ctx": "Trời mưa", "endings": ["a", "b", "c"], "label": str(i % 3), "ind": i} for i in range(6)],
            "a",
            ("a", "b", "c"),
            {"question": "Trời mưa"},
        ),
        (
            [{"goal": "g", "sol1": "một", "sol2": "hai", "label": i % 2} for i in range(4)],
            "một",
            ("một", "hai"),
            {"question": "g"},
        ),
        (
            [{"sentence": "The _ fell", "option1": "cup", "option2": "sky", "answer": str(1 + i % 2)} for i in range(4)],
            "cup",
            ("cup", "sky"),
            {"question": "The _ fell"},
        ),
        (
            [{"question": "哪个？", "A": "猫", "B": "狗", "C": "鸟", "D": "鱼", "answer": "B)"}] * 4,
            "狗",
            ("猫", "狗", "鸟", "鱼"),
            {"question": "哪个？"},
        ),
        (
            [{"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2", "id": "i"}] * 4,
            "y",
            ("x", "y"),
            {"question": "q"},
        ),
        (
            [{"premise": "p", "question": "cause", "choice1": "x", "choice2": "y", "label": i % 2} for i in range(4)],
            "x",
            ("x", "y"),
            {"premise": "p", "question": "cause"},
        ),
        (
            [{"question": "q", "options": ["3", "4", "12"], "answer": "4"}] * 4,
            "4",
            ("3", "4", "12"),
            {"question": "q"},
        ),
        (
            [{"article": "long", "question": "q", "options": '["x", "y"]', "answer": "A"}] * 4,
            "x",
            ("x", "y"),
            {"article": "long", "question": "q"},
        ),
    ],
)
def test_choices_with_answers_are_a_multiple_choice(
    tmp_path: Path, records: list[dict[str, Any]], target: str, choices: tuple[str, ...], fields: dict[str, str]
) -> None:
    task = task_of(tmp_path, records)
    assert task.kind == "choice"
    assert "names one of them" in task.reasons["task"]
    row = task.train.rows[0]
    assert (row.target, row.choices, dict(row.fields)) == (target, choices, fields)
    again = Task.from_dict(json.loads(json.dumps(task.to_dict())))
    bare = [
        {name: value for name, value in record.items() if name not in ("label", "answer", "answerKey")} for record in records
    ]
    asked = again.read_rows(write(tmp_path / "more.jsonl", bare), need_target=False)
    assert (asked.rows[0].choices, asked.rows[0].target) == (choices, None)
    labelled = again.read_rows(tmp_path / "data.jsonl")
    assert labelled.rows == task.train.rows


def test_blank_choices_are_not_there_and_faults_are_named(tmp_path: Path) -> None:
    good = [{"question": f"q {i}", "A": "x", "B": "y", "C": "z" if i % 2 else "", "answer": "AB"[i % 2]} for i in range(97)]
    bad = [
        {"question": "q", "A": "x", "B": "y", "C": "", "answer": "C"},
        {"question": "q", "A": "x", "B": "x", "C": "z", "answer": "A"},
        {"question": "q", "A": "x", "B": "", "C": "", "answer": "A"},
    ]
    task = task_of(tmp_path, [*good, *bad])
    assert {len(row.choices) for row in task.train.rows} == {2, 3}
    assert task.train.faults == (
        Fault(line=98, reason="the answer 'C' names none of the 2 choices"),
        Fault(line=99, reason="two of the choices are the same"),
        Fault(line=100, reason="1 choice, two or more are needed"),
    )
    with pytest.raises(DataError, match=r"3 of 100 rows .*--strict"):
        task_of(tmp_path, [*good, *bad], strict=True)


def test_a_template_may_show_the_choices(tmp_path: Path) -> None:
    records = [{"question": "q", "choices": ["một", "hai"], "answer": "B"}] * 4
    task = task_of(tmp_path, records, template="{question}\n{choices}\nAnswer{prompt}:")
    assert task.train.rows[0].fields == {"question": "q", "choices": "A. một\nB. hai"}
    assert task.instruction == "Choose the best answer to the question."


@pytest.mark.parametrize(
    "records",
    [
        [{"text": "t", "labels": ["b", "a", "b"]}, {"text": "u", "labels": []}, {"text": "v", "labels": ["a"]}] * 2,
        [{"comment_text": "t", "id": 1, "a": 1, "b": 1, "c": 0}, {"comment_text": "u", "id": 2, "a": 0, "b": 0, "c": 0}] * 3,
        [{"text": "t", "labels": '["b", "a"]'}, {"text": "u", "labels": "[]"}, {"text": "v", "labels": "['a']"}] * 2,
    ],
)
def test_lists_of_labels_and_columns_of_marks_are_sets(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    task = task_of(tmp_path, records)
    assert task.kind == "multilabel"
    assert set(task.labels) >= {"a", "b"}
    assert set(task.train.rows[0].labels) == {"a", "b"}
    assert (task.train.rows[1].labels, task.train.rows[1].target) == ((), "")
    assert task.metric == "micro_f1"
    assert not task.has_labels
    assert task.shares["b"] == pytest.approx(task.counts["b"] / len(task.train.rows))
    again = Task.from_dict(json.loads(json.dumps(task.to_dict())))
    assert again.read_rows(tmp_path / "data.jsonl").rows == task.train.rows
    bare = [{name: record[name] for name in record if "text" in name} for record in records]
    assert again.read_rows(write(tmp_path / "bare.jsonl", bare), need_target=False).rows[0].target is None
    with pytest.raises(TaskError, match="has no column for the label"):
        again.read_rows(tmp_path / "bare.jsonl")


@pytest.mark.parametrize("delimiter", ["; ", "|", ", ", "、"])
def test_a_delimiter_is_found_and_said(tmp_path: Path, delimiter: str) -> None:
    records = [{"text": f"t {i}", "tags": delimiter.join(["体育", "tin tức"][: i % 3])} for i in range(9)]
    task = task_of(tmp_path, records, kind="multilabel")
    assert {row.labels for row in task.train.rows} == {(), ("体育",), ("体育", "tin tức")}
    assert f"separated by {delimiter.strip()!r}" in task.reasons["columns"]


def test_columns_of_marks_must_be_marks(tmp_path: Path) -> None:
    records = [{"text": "t", "a": 1, "b": 0, "c": 1}] * 30 + [{"text": "t", "a": 3, "b": 0, "c": 1}]
    (tmp_path / "t.toml").write_text('[columns]\nlabels = ["a", "b", "c"]\n[data]\ntrain = "data.jsonl"\n')
    write(tmp_path / "data.jsonl", records)
    task = Task.from_file(tmp_path / "t.toml")
    assert task.train.faults == (Fault(line=31, reason="a is '3', 0 or 1 was expected"),)


def test_the_order_is_that_of_numbers_or_of_the_task_file(tmp_path: Path) -> None:
    records = [{"text": f"t {i}", "label": f"{10 - i % 10} sao"} for i in range(30)]
    task = task_of(tmp_path, records, kind="ordinal")
    assert list(task.labels) == [f"{i} sao" for i in range(1, 11)]
    assert list(Task.from_dict(task.to_dict()).labels) == list(task.labels)
    mixed = [{"text": f"t {i}", "label": ["tệ", "được", "tốt"][i % 3]} for i in range(9)]
    write(tmp_path / "mixed.jsonl", mixed)
    (tmp_path / "t.toml").write_text(
        'kind = "ordinal"\n[labels]\n"tệ" = "dở"\n"được" = "tạm được"\n"tốt" = "hay"\n[data]\ntrain = "mixed.jsonl"\n'
    )
    assert list(Task.from_file(tmp_path / "t.toml").labels.values()) == ["dở", "tạm được", "hay"]


def test_a_level_of_a_scale_that_no_row_has_keeps_its_place(tmp_path: Path) -> None:
    """A task file that listed every star was refused because nobody had given two."""
    write(tmp_path / "stars.jsonl", [{"text": f"t {i}", "stars": [1, 3, 4][i % 3]} for i in range(9)])
    said = "".join(f"{star} = '{star}'\n" for star in range(1, 5))
    (tmp_path / "t.toml").write_text(f'kind = "ordinal"\n[labels]\n{said}[data]\ntrain = "stars.jsonl"\n')
    task = Task.from_file(tmp_path / "t.toml")
    assert list(task.labels) == ["1", "2", "3", "4"]
    assert task.class_weights()["2"] > 0


@pytest.mark.parametrize(
    ("records", "kind"),
    [
        ([{"text": f"t {i}", "stars": i % 5 + 1} for i in range(30)], "ordinal"),
        ([{"text": f"t {i}", "stars": i % 5} for i in range(30)], "classification"),
        ([{"text": f"t {i}", "topic": i % 5 + 1} for i in range(30)], "classification"),
        ([{"text": f"t {i}", "rating": i % 2 + 1} for i in range(30)], "classification"),
        (
            [{"text_a": "x", "text_b": "y", "label": "same"}, {"text_a": "x", "text_b": "z", "label": "other"}] * 3,
            "classification",
        ),
        ([{"text": f"t {i}", "label": "ab"[i % 2], "urgent": i % 2, "spam": 0} for i in range(6)], "classification"),
        ([{"question": f"q {i}", "answer": f"a text {i}"} for i in range(6)], "generation"),
    ],
)
def test_where_there_is_a_doubt_the_kind_is_the_plain_one(tmp_path: Path, records: list[dict[str, Any]], kind: str) -> None:
    task = task_of(tmp_path, records)
    assert task.kind == kind
    assert ("task" in task.reasons) == (kind == "ordinal")


def test_outputs_that_stand_in_their_input_are_judged_by_tokens(tmp_path: Path) -> None:
    records = [{"input": f"Hôm nay, ngày {i} tháng năm, trời đẹp.", "output": f"ngày {i} tháng năm"} for i in range(6)]
    task = task_of(tmp_path, records)
    assert task.metric == "token_f1"
    assert "word for word" in task.reasons["metric"]
