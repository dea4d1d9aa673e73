import pytest

from epigraph.errors import TaskError
from epigraph.tasks.columns import Columns, detect_columns, fit_columns
from epigraph.tasks.table import Table, columns_of


def table(*records):
    return Table(columns=columns_of(list(records)), records=records, lines=tuple(range(1, len(records) + 1)), source="a.csv")


def filled(*headers, rows=12):
    """A table of long distinct texts; give header=[values] to cycle through values instead."""
    names = [header if isinstance(header, str) else header[0] for header in headers]
    values = [None if isinstance(header, str) else header[1] for header in headers]
    return table(
        *(
            {
                n: (f"the {n} number {i} is a text" if v is None else v[i % len(v)])
                for n, v in zip(names, values, strict=True)
            }
            for i in range(rows)
        )
    )


YES_NO = ["yes", "no"]


@pytest.mark.parametrize(
    ("headers", "kind", "fields", "target"),
    [
        (["text", "label"], "classification", {"text": "text"}, "label"),
        (["Text", "LABEL"], "classification", {"text": "Text"}, "LABEL"),
        (["id", "sentence", "intent"], "classification", {"text": "sentence"}, "intent"),
        (["message", "team", "created_at"], "classification", {"text": "message"}, "team"),
        (["文本", "标签"], "classification", {"text": "文本"}, "标签"),
        (["Câu", "Nhãn"], "classification", {"text": "Câu"}, "Nhãn"),
        (["text", "label", "topic"], "classification", {"text": "text"}, "label"),
        (["title", "content", "text", "label"], "classification", {"text": "text"}, "label"),
        (["kundentext", "label"], "classification", {"text": "kundentext"}, "label"),
        (["premise", "hypothesis", "label"], "classification", {"premise": "premise", "hypothesis": "hypothesis"}, "label"),
        (
            ["Sentence 1", "Sentence 2", "Gold-Label"],
            None,
            {"sentence_1": "Sentence 1", "sentence_2": "Sentence 2"},
            "Gold-Label",
        ),
        (["question", "passage", "label"], "classification", {"passage": "passage", "question": "question"}, "label"),
        (
            ["question", ("answer", [True, False]), "passage"],
            "classification",
            {"passage": "passage", "question": "question"},
            "answer",
        ),
        (["context", "question", "answer"], "generation", {"context": "context", "question": "question"}, "answer"),
        (["input", "output"], "generation", {"input": "input"}, "output"),
        (["input", ("output", YES_NO)], "classification", {"text": "input"}, "output"),
        (["input", "target"], "generation", {"input": "input"}, "target"),
        (["text", ("target", YES_NO)], "classification", {"text": "text"}, "target"),
        (["prompt", "completion"], "generation", {"input": "prompt"}, "completion"),
        (["prompt", ("completion", [" yes", " no"])], "classification", {"text": "prompt"}, "completion"),
        (["prompt", "completion", "topic"], "generation", {"input": "prompt"}, "completion"),
        (["question", "answer"], "generation", {"input": "question"}, "answer"),
        (["document", "summary"], "generation", {"input": "document"}, "summary"),
        (["instruction", "output"], "generation", {"input": "input"}, "output"),
        (["instruction", "input", "output"], "generation", {"input": "input"}, "output"),
        (["foo", ("bar", ["x", "y", "z"])], "classification", {"text": "foo"}, "bar"),
        (["id", "foo", ("bar", [1, 2])], "classification", {"text": "foo"}, "bar"),
        (["review", ("bar", ["x", "y"])], "classification", {"text": "review"}, "bar"),
        (["input", "references"], "generation", {"input": "input"}, None),
    ],
)
def test_recognised_by_themselves(headers, kind, fields, target):
    columns = detect_columns(filled(*headers), None, {})
    assert columns.kind == (kind or "classification")
    assert dict(columns.fields) == fields
    assert list(columns.fields) == list(fields)
    assert columns.target == target


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (
            ["sentence", "sentiment", "topic"],
            r"sentence → sentiment; sentence → topic.*\[columns\] text = \"sentence\" label = \"sentiment\"",
        ),
        (["title", "content", "label"], "title|content"),
        (
            ["question", "answer", "category"],
            r"question → answer; question → category.*input = \"question\" output = \"answer\"",
        ),
        (["input", "output", "target"], "several ways"),
        (["en", "vi"], r"Found: en, vi.*Looked for: text \+ label.*\[columns\]"),
        (["text"], "'text' reads as the text, but nothing reads as its label"),
        (["a", "b", "c"], "Found: a, b, c"),
        (["label"], "'label' reads as the label"),
        (["premise", "hypothesis", "sentiment", "topic"], "premise . hypothesis → "),
    ],
)
def test_doubt_is_never_guessed(headers, said):
    with pytest.raises(TaskError, match=said):
        detect_columns(filled(*headers), None, {})


def test_a_file_without_a_header_is_seen():
    rows = [{"I love it": f"text {i}", "good": ["good", "bad"][i % 2]} for i in range(8)]
    with pytest.raises(TaskError, match="no header"):
        detect_columns(table(*rows), None, {})


def test_columns_of_a_task_file_win():
    data = filled("message", "note", "text", "label", "team")
    columns = detect_columns(data, None, {"text": "Message", "label": "team"})
    assert (dict(columns.fields), columns.target) == ({"text": "message"}, "team")
    columns = detect_columns(data, ("note", "text"), {"text": "message"}, kind="generation")
    assert (dict(columns.fields), columns.target, columns.kind) == (
        {"note": "note", "text": "message"},
        "label",
        "generation",
    )
    assert detect_columns(data, None, {"label": "team"}).fields == {"text": "text"}
    assert detect_columns(data, None, {"input": "note", "output": "text"}).kind == "generation"
    assert detect_columns(data, ("message",), {}).fields == {"message": "message"}


def test_template_fields_find_synonyms():
    assert detect_columns(filled("id", "review", "label"), ("text",), {}).fields == {"text": "review"}


@pytest.mark.parametrize(
    ("asked", "given", "said"),
    [
        (("text",), {"label": "nope"}, "no column for the column 'nope'.*Found: text, label, team"),
        (("nope",), {}, "field {nope}"),
        (("text",), {"body": "text"}, "maps 'body'"),
        (("text",), {"label": "label", "output": "team"}, "two targets"),
    ],
)
def test_what_was_asked_for_must_be_there(asked, given, said):
    with pytest.raises(TaskError, match=said):
        detect_columns(filled("text", "label", "team"), asked, given)


def test_label_text_spells_out_the_label():
    assert detect_columns(filled("text", ("label", [0, 1]), "label_text"), None, {}).words == "label_text"


def chat(user, answer, key="messages"):
    names = ("role", "content", "user", "assistant") if key == "messages" else ("from", "value", "human", "gpt")
    turns = [{names[0]: names[2], names[1]: user}, {names[0]: names[3], names[1]: answer}]
    return {key: turns}


@pytest.mark.parametrize("key", ["messages", "conversations"])
def test_chats(key):
    columns = detect_columns(table(*(chat(f"q {i}", f"a long answer {i} it is", key) for i in range(9))), None, {})
    assert (columns.kind, dict(columns.fields), columns.target, columns.layout) == (
        "generation",
        {"input": "input"},
        "output",
        key,
    )
    columns = detect_columns(table(*(chat(f"q {i}", YES_NO[i % 2], key) for i in range(9))), None, {})
    assert (columns.kind, dict(columns.fields)) == ("classification", {"text": "input"})


COLUMNS = Columns(kind="classification", fields={"text": "text"}, target="label")


def test_other_files_may_write_their_headers_differently():
    fitted = fit_columns(COLUMNS, filled("Review", "Category"), need_target=True)
    assert (dict(fitted.fields), fitted.target) == ({"text": "Review"}, "Category")
    assert fit_columns(COLUMNS, filled("text"), need_target=False).target is None
    with pytest.raises(TaskError, match=r"no column for the label .column 'label'.*Found: text"):
        fit_columns(COLUMNS, filled("text"), need_target=True)
    with pytest.raises(TaskError, match=r"field {text}.*Found: foo, label"):
        fit_columns(COLUMNS, filled("foo", "label"), need_target=False)


def test_references_may_stand_in_the_test_file_only():
    columns = detect_columns(filled("input", "target"), None, {})
    assert columns.references is None
    assert fit_columns(columns, filled("input", "target", "references"), need_target=True).references == "references"


def test_unlabelled_alpaca_keeps_its_instruction():
    columns = detect_columns(filled("instruction", "input", "output"), None, {})
    assert fit_columns(columns, filled("instruction", "input"), need_target=False).layout == "alpaca"


@pytest.mark.parametrize(
    "columns", [COLUMNS, Columns(kind="generation", fields={"input": "a"}, target=None, references="r")]
)
def test_round_trip(columns):
    assert Columns.from_dict(columns.kind, columns.to_dict()) == columns
    assert None not in columns.to_dict().values()


def test_a_kind_that_the_values_settle_is_said_with_the_way_to_the_other() -> None:
    """Outputs that recur were taken for labels, and nothing was said: the report spoke of accuracy where texts were expected."""
    found = detect_columns(filled("input", ["output", YES_NO]), None, {})
    assert found.kind == "classification"
    assert "'output' holds 2 short texts again and again" in found.kind_reason
    assert "--task-kind" in found.kind_reason
    assert not detect_columns(filled("text", ["label", YES_NO]), None, {}).kind_reason
    assert not detect_columns(filled("input", ["output", YES_NO]), None, {}, kind="classification").kind_reason


def test_labels_that_may_be_several_are_said_to_be_taken_for_one() -> None:
    """``red; blue`` became a label of its own beside ``red`` and ``blue``, silently."""
    found = detect_columns(filled("text", ["labels", ["red; blue", "red", "blue"]]), None, {})
    assert found.kind == "classification"
    assert "'red; blue' in 'labels' is taken for one label of 3" in found.kind_reason
    assert 'kind = "multilabel"' in found.kind_reason
    assert not detect_columns(filled("text", ["label", ["fish, fresh", "meat"]]), None, {}).kind_reason
