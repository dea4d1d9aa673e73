import math

import pytest

from epigraph.errors import DataError
from epigraph.tasks.columns import Columns
from epigraph.tasks.row import Fault, Row
from epigraph.tasks.rows import make_rows
from epigraph.tasks.table import Table, columns_of

LABELLED = Columns(kind="classification", fields={"text": "text"}, target="label")
WRITTEN = Columns(kind="generation", fields={"input": "input"}, target="output", references="references")


def table(*records, faults=()):
    lines = tuple(range(2, len(records) + 2))
    return Table(columns=columns_of(list(records)), records=records, lines=lines, faults=tuple(faults), source="a.csv")


def good(n):
    return [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(n)]


def read(*records, columns=LABELLED, strict=False, **kwargs):
    return make_rows(table(*records), columns, columns.kind, strict=strict, **kwargs)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"text": " \n", "label": "a"}, "empty text"),
        ({"text": None, "label": "a"}, "empty text"),
        ({"text": math.nan, "label": "a"}, "empty text"),
        ({"text": "x", "label": " "}, "missing label"),
        ({"text": "x", "label": math.nan}, "missing label"),
        ({"text": "x"}, "missing label"),
        ({"text": "x", "label": ["a", "b"]}, "label is a list, not a text"),
        ({"text": "caf\udce9", "label": "a"}, "unreadable characters (not UTF-8)"),
    ],
)
def test_faults_are_skipped_with_line_and_reason(record, reason):
    split = read(*good(19), record)
    assert split.faults == (Fault(line=21, reason=reason),)
    assert len(split.rows) == 19
    with pytest.raises(DataError, match=r"1 of 20 rows .*--strict.*line 21: "):
        read(*good(19), record, strict=True)


def test_more_than_a_twentieth_ends_it():
    empty = {"text": "", "label": "a"}
    assert len(read(*good(95), *[empty] * 5).faults) == 5
    with pytest.raises(
        DataError, match=r"6 of 100 rows .*5%.*line 96: empty text; .*line 100: empty text; and 1 more"
    ) as caught:
        read(*good(94), *[empty] * 6)
    assert caught.value.message.count("empty text") == 5


def test_unreadable_rows_count_too():
    faults = [Fault(line=1, reason="not JSON")]
    assert make_rows(table(*good(19), faults=faults), LABELLED, "classification", strict=False).faults == tuple(faults)
    with pytest.raises(DataError, match=r"1 of 19 rows .*line 1: not JSON"):
        make_rows(table(*good(18), faults=faults), LABELLED, "classification", strict=False)


def test_a_column_that_is_empty_throughout():
    with pytest.raises(DataError, match=r"the text \(text\) is empty in all 3 rows"):
        read(*[{"text": " ", "label": "a"}] * 3)
    with pytest.raises(DataError, match=r"the label \(label\) is empty in all 3 rows"):
        read(*[{"text": "a", "label": ""}] * 3)
    with pytest.raises(DataError, match="header but no rows"):
        read()


def test_whitespace_is_kept_inside_and_stripped_outside():
    (row,) = read({"text": "  a\n\n b\t", "label": " x y "}).rows
    assert row == Row(fields={"text": "a\n\n b"}, target="x y", line=2)


def test_an_empty_field_beside_a_full_one_is_no_fault():
    columns = Columns(kind="classification", fields={"a": "a", "b": "b"}, target="label")
    assert read({"a": "x", "b": None, "label": 1}, columns=columns).rows[0].fields == {"a": "x", "b": ""}


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, 0], ["1", "0"]),
        ([1.0, 0.0], ["1", "0"]),
        ([True, False], ["true", "false"]),
        (["1.0", "1", "0"], ["1", "1", "0"]),
        (["1.0", "2.0"], ["1.0", "2.0"]),
        ([1.5, 2.0], ["1.5", "2"]),
        (["01", "1"], ["01", "1"]),
    ],
)
def test_labels_become_text(values, labels):
    assert [row.target for row in read(*({"text": "t", "label": value} for value in values)).rows] == labels


def test_labels_come_in_the_spelling_that_is_known():
    rows = read({"text": "t", "label": "1.0"}, {"text": "t", "label": "new"}, known=("1", "2")).rows
    assert [row.target for row in rows] == ["1", "new"]
    assert read({"text": "t", "label": "1"}, known=("1.0", "2.0")).rows[0].target == "1.0"


def test_unlabelled_rows_for_prediction():
    columns = Columns(kind="classification", fields={"text": "text"}, target=None)
    assert read({"text": "a"}, columns=columns, need_target=False).rows[0].target is None
    rows = read({"text": "a", "label": "x"}, {"text": "b", "label": None}, need_target=False).rows
    assert [row.target for row in rows] == ["x", None]


def test_references_have_the_target_first():
    def references(output, found):
        (row,) = read({"input": "a", "output": output, "references": found}, columns=WRITTEN).rows
        assert row.target == row.references[0]
        return row.references

    assert references("x", ["y", "x", " z ", None]) == ("x", "y", "z")
    assert references(None, ["y", "z"]) == ("y", "z")
    assert references("x", None) == ("x",)
    assert references("x", "y") == ("x", "y")


def turns(*roles):
    return {"messages": [{"role": role, "content": f" {role} text "} for role in roles]}


def test_chats_need_one_turn_each():
    columns = Columns(kind="generation", fields={"input": "input"}, target="output", layout="messages")
    ok = [turns("system", "user", "assistant"), *[turns("user", "assistant")] * 38]
    split = read(*ok, turns("user", "assistant", "user", "assistant"), columns=columns)
    assert split.rows[0].fields == {"input": "system text\nuser text"}
    assert split.rows[0].target == "assistant text"
    assert split.faults[0].reason == "2 user and 2 assistant turns, one of each is expected"
    parts = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "a"}]
    }
    assert read(parts, columns=columns).rows[0].fields == {"input": "q"}
    assert read(turns("user"), columns=columns, need_target=False).rows[0].target is None


def test_alpaca_puts_the_instruction_before_the_input():
    columns = Columns(kind="generation", fields={"input": "input"}, target="output", layout="alpaca")
    rows = read(
        {"instruction": "Translate.", "input": "mèo", "output": "cat"},
        {"instruction": "Say hi.", "input": "", "output": "hi"},
        columns=columns,
    ).rows
    assert [row.fields["input"] for row in rows] == ["Translate.\nmèo", "Say hi."]
