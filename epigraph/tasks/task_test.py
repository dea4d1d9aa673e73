import dataclasses
import json
import tomllib

import pytest
import tomli_w

from epigraph.errors import DataError, NotFound, TaskError
from epigraph.tasks.task import Task

LABELS = ["card", "card_lost", "transfer"]


def write_csv(path, rows, header=("text", "label")):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join('"' + str(cell).replace('"', '""') + '"' for cell in row) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_jsonl(path, records):
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")
    return path


def rows(n=12, labels=LABELS):
    return [(f"văn bản số {i}", labels[i % len(labels)]) for i in range(n)]


def write_toml(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_data_file(tmp_path):
    task = Task.from_file(write_csv(tmp_path / "routing.csv", rows()))
    assert (task.name, task.kind, task.metric, task.chat, task.test) == (
        "routing",
        "classification",
        "accuracy",
        False,
        None,
    )
    assert task.template.text == "{text}\nLabel{prompt}:"
    assert task.labels == {"card": "card", "card_lost": "card lost", "transfer": "transfer"}
    assert task.instruction_generated
    assert task.instruction == "Classify the text. Answer with one of: card, card lost, transfer."
    assert "metric" in task.reasons
    assert task.train.rows[0].line == 2
    assert not task.skewed
    assert set(task.class_weights().values()) == {1.0}


def test_a_folder_with_a_test_set(tmp_path):
    folder = tmp_path / "bank"
    write_csv(folder / "train.csv", rows())
    write_csv(folder / "test.csv", [("mới", "refund"), ("cũ", "card")], header=("Message", "Intent"))
    task = Task.from_file(folder)
    assert task.name == "bank"
    assert len(task.test.rows) == 2
    assert task.unseen_labels(task.test) == {"refund": 1}
    assert Task.from_file(folder / "train.csv").name == "bank"
    assert len(Task.from_file(folder, test=folder / "train.csv").test.rows) == 12


def test_folders_that_leave_a_doubt(tmp_path):
    write_csv(tmp_path / "a.csv", rows())
    with pytest.raises(NotFound, match=r"no train file; it has a\.csv"):
        Task.from_file(tmp_path)
    write_csv(tmp_path / "train.csv", rows())
    write_csv(tmp_path / "train.tsv", rows())
    with pytest.raises(TaskError, match=r"both train\.csv and train\.tsv"):
        Task.from_file(tmp_path)


def test_two_texts_have_a_line_each(tmp_path):
    path = write_csv(tmp_path / "nli.csv", [("a", "b", i % 2) for i in range(6)], ("Premise", "Hypothesis", "Label"))
    task = Task.from_file(path)
    assert task.template.text == "{premise}\n{hypothesis}\nLabel{prompt}:"
    assert task.train.rows[1].fields == {"premise": "a", "hypothesis": "b"}
    assert task.labels == {"0": "0", "1": "1"}


def test_generation_with_references_in_the_test_file_only(tmp_path):
    long = "an output of some words"
    write_jsonl(tmp_path / "train.jsonl", [{"input": f"{i}", "target": f"{long} {i}"} for i in range(8)])
    write_jsonl(tmp_path / "test.jsonl", [{"input": "x", "target": "first", "references": ["first", "second"]}])
    task = Task.from_file(tmp_path)
    assert (task.kind, task.metric, task.labels) == ("generation", "bleu", {})
    assert task.template.text == "{input}\nOutput{prompt}:"
    assert task.test.rows[0].references == ("first", "second")
    assert task.counts == {}
    assert task.unseen_labels(task.test) == {}


TOML = """
kind = "classification"
instruction = "Which department handles this message?"
template = "{text}{prompt}\\nDepartment:"
chat = true
metric = "macro_f1"
[columns]
text = "message"
label = "team"
[labels]
card_lost = "missing card"
[data]
train = "data/a.csv"
test = "data/b.csv"
[[hard_prompts]]
text = "Route: {text}"
"""


def task_toml(folder, text=TOML):
    header = ("id", "message", "team", "text")
    write_csv(folder / "data" / "a.csv", [(i, text, label, "no") for i, (text, label) in enumerate(rows())], header)
    write_csv(folder / "data" / "b.csv", [(1, "hi", "card", "no")], header)
    return write_toml(folder / "routing.toml", text)


def test_a_task_toml_overrides_all(tmp_path, monkeypatch):
    path = task_toml(tmp_path)
    monkeypatch.chdir("/")  # [data] is relative to the TOML
    task = Task.from_file(path)
    assert task.name == "routing"
    assert task.instruction == "Which department handles this message?"
    assert not task.instruction_generated
    assert task.labels["card_lost"] == "missing card"
    assert (task.chat, task.metric, task.hard_prompts) == (True, "macro_f1", ("Route: {text}",))
    assert "metric" not in task.reasons
    assert task.train.rows[0].fields == {"text": "văn bản số 0"}
    assert task.test.rows[0].target == "card"
    assert Task.from_file(path, template="{text}\n{prompt}").template.text == "{text}\n{prompt}"


def test_a_template_may_use_headers(tmp_path):
    text = TOML.replace("{text}{prompt}", "{message}{prompt}").replace('text = "message"\n', "")
    assert Task.from_file(task_toml(tmp_path, text)).train.rows[0].fields == {"message": "văn bản số 0"}


def test_a_toml_in_a_folder_takes_the_folders_files(tmp_path):
    write_csv(tmp_path / "train.csv", rows())
    write_toml(tmp_path / "task.toml", 'instruction = "Say it."')
    task = Task.from_file(tmp_path)
    assert (task.instruction, task.name) == ("Say it.", tmp_path.name)
    assert Task.from_file(tmp_path / "task.toml", train=tmp_path / "train.csv").name == tmp_path.name


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("instruction =", "instuction =", "unknown key 'instuction'.*Did you mean 'instruction'"),
        ("train =", "trian =", r"'trian' under \[data\].*'train'"),
        ("chat = true", 'chat = "yes"', "chat is 'yes', true or false was expected"),
        ('kind = "classification"', 'kind = "clasification"', "Did you mean 'classification'"),
        ('"macro_f1"', '"macrof1"', "metric 'macrof1' is none for classification. Did you mean 'macro_f1'"),
        ('team"\n', 'departement"\n', "'departement'.*Found: id, message, team, text"),
        ("{text}{prompt}", "{text}", "no {prompt}"),
        ("{text}{prompt}", "{prompt}", "no field|maps 'text'"),
        ("{text}{prompt}", "{text}{txet}{prompt}", "{txet}"),
        ("card_lost =", "card_lots =", "'card_lots'.*'card_lost'"),
        ('"missing card"', '"card"', "labels 'card' and 'card_lost' have the same words 'card'"),
        ('"missing card"', "3", r"card_lost under \[labels\] is 3, a string"),
        ("card_lost =", "card.lost =", "in quotes where it has a dot"),
        ('text = "Route: {text}"', 'txt = "x"', "'txt' under .*hard_prompts"),
        ("[columns]", "[columns", "is not TOML"),
        ("[data]", "[daten]", "unknown key 'daten'"),
    ],
)
def test_faults_of_a_toml(tmp_path, old, new, said):
    assert old in TOML
    with pytest.raises(TaskError, match=said):
        Task.from_file(task_toml(tmp_path, TOML.replace(old, new)))


def test_a_toml_without_data_and_files_that_are_not_there(tmp_path):
    with pytest.raises(TaskError, match=r"names no training data.*\[data\]"):
        Task.from_file(write_toml(tmp_path / "t.toml", 'kind = "generation"'))
    with pytest.raises(NotFound, match=r"no file .*none.csv"):
        Task.from_file(tmp_path / "none.csv")
    with pytest.raises(NotFound, match=r"no file .*none.toml"):
        Task.from_file(tmp_path / "none.toml")


def test_data_that_teaches_nothing(tmp_path):
    with pytest.raises(TaskError, match="one label, 'a'"):
        Task.from_file(write_csv(tmp_path / "a.csv", rows(labels=["a"])))
    with pytest.raises(DataError, match="empty in all 9 rows"):
        Task.from_file(write_csv(tmp_path / "b.csv", [("", "ab"[i % 2]) for i in range(9)]))
    with pytest.raises(DataError, match="header but no rows"):
        Task.from_file(write_csv(tmp_path / "c.csv", []))
    with pytest.raises(DataError, match="strict"):
        Task.from_file(write_csv(tmp_path / "d.csv", [*rows(60), ("", "card")]), strict=True)


def test_skewed_labels_choose_macro_f1_and_weights(tmp_path):
    task = Task.from_file(write_csv(tmp_path / "a.csv", [(f"文本 {i}", "差" if i % 10 == 0 else "好") for i in range(100)]))
    assert task.skewed
    assert task.metric == "macro_f1"
    assert "90 of 100 rows (90%)" in task.reasons["metric"]
    weights = task.class_weights()
    assert weights["差"] / weights["好"] == pytest.approx(3)
    assert sum(weights.values()) == pytest.approx(2)


def test_a_column_that_spells_the_label_gives_its_words(tmp_path):
    data = [(f"t {i}", i % 2, ["very_bad", "good"][i % 2]) for i in range(8)]
    assert Task.from_file(write_csv(tmp_path / "a.csv", data, ("text", "label", "label_text"))).labels == {
        "0": "very bad",
        "1": "good",
    }


def test_reading_other_files(tmp_path):
    task = Task.from_file(write_csv(tmp_path / "a.csv", rows()))
    unlabelled = write_csv(tmp_path / "b.csv", [("một",), ("二",)], ("text",))
    assert [row.target for row in task.read_rows(unlabelled, need_target=False).rows] == [None, None]
    lines = tmp_path / "c.txt"
    lines.write_text("một\n二\n", encoding="utf-8")
    assert [row.fields["text"] for row in task.read_rows(lines, need_target=False).rows] == ["một", "二"]
    with pytest.raises(TaskError, match=r"no column for the label.*Found: text"):
        task.read_rows(unlabelled)
    with pytest.raises(TaskError, match=r"field {text}.*Found: foo"):
        task.read_rows(write_csv(tmp_path / "d.csv", [("x",)], ("foo",)), need_target=False)


@pytest.mark.parametrize("source", ["classification", "generation"])
def test_definition_round_trip_through_toml(tmp_path, source):
    if source == "classification":
        task = Task.from_file(task_toml(tmp_path))
    else:
        records = [
            {"messages": [{"role": "user", "content": f"{i}"}, {"role": "assistant", "content": f"reply {i}"}]}
            for i in range(9)
        ]
        task = Task.from_file(write_jsonl(tmp_path / "a.jsonl", records))
    again = Task.from_dict(tomllib.loads(tomli_w.dumps(task.to_dict())))
    assert again.to_dict() == task.to_dict()
    assert list(again.labels) == list(task.labels)
    assert again.train.rows == ()
    assert not again.skewed
    with pytest.raises(TaskError, match="lacks template"):
        Task.from_dict({"name": "a", "kind": "generation", "metric": "bleu", "columns": {}})


def test_lists_for_scikit_learn():
    task = Task.from_rows(["a", "b", "c"], [1, 0, True], words={"1": "yes"})
    assert task.labels == {"0": "0", "1": "yes", "true": "true"}
    assert [row.target for row in task.train.rows] == ["1", "0", "true"]
    pairs = Task.from_rows([{"premise": "a", "label": "b"}, {"premise": "c", "label": "d"}], ["x", "y"])
    assert pairs.template.text == "{premise}\n{label}\nLabel{prompt}:"
    assert Task.from_rows(["a", "b"], ["x", "y"], template="{message}{prompt}:").train.rows[0].fields == {"message": "a"}
    assert Task.from_rows(["a", "b"], ["x", "y"], kind="generation").labels == {}
    with pytest.raises(TaskError, match="2 texts and 1 targets"):
        Task.from_rows(["a", "b"], ["x"])
    with pytest.raises(TaskError, match="one label"):
        Task.from_rows(["a", "b"], ["x", "x"])


def test_numpy_targets_are_the_same_as_python_ones():
    numpy = pytest.importorskip("numpy")
    for targets in (numpy.array([0, 1]), numpy.array([0.0, 1.0]), numpy.array(["0", "1"])):
        assert list(Task.from_rows(["a", "b"], list(targets)).labels) == ["0", "1"]


def test_rows_can_be_replaced(tmp_path):
    task = Task.from_file(write_csv(tmp_path / "a.csv", rows()))
    fewer = dataclasses.replace(task, train=dataclasses.replace(task.train, rows=task.train.rows[:4]))
    assert fewer.counts.total() == 4
    assert fewer.labels == task.labels
