import json
import sys
import types

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from epigraph.errors import DataError, FetchFailed, NotFound, Unsupported
from epigraph.tasks.csv_file import read_csv
from epigraph.tasks.sources import read_table

RECORDS = [
    {"text": "Tôi rất thích", "label": "tích cực"},
    {"text": "房间极差,\n很吵", "label": "负面"},
    {"text": 'she said "no"; | \t', "label": "a-b"},
]


def write(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    return path


def quoted(delimiter):
    lines = [delimiter.join(('"' + str(r[k]).replace('"', '""') + '"') for k in ("text", "label")) for r in RECORDS]
    return "\n".join([f"text{delimiter}label", *lines]) + "\n"


def saved(folder, suffix):
    path = folder / f"a{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(RECORDS), path)
    elif suffix == ".json":
        write(path, json.dumps(RECORDS, ensure_ascii=False, indent=1))
    elif suffix in (".jsonl", ".ndjson"):
        write(path, "\n".join(json.dumps(record) for record in RECORDS))
    else:
        write(path, quoted("\t" if suffix == ".tsv" else ","))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet"])
def test_every_format_gives_the_same_records(tmp_path, suffix):
    table = read_table(saved(tmp_path, suffix))
    assert table.columns == ("text", "label")
    assert list(table.records) == RECORDS
    assert table.faults == ()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_found(tmp_path, delimiter):
    assert list(read_table(write(tmp_path / "a.csv", quoted(delimiter))).records) == RECORDS


cells = st.text(st.characters(blacklist_categories=("Cs", "Cc"), whitelist_characters="\n"), min_size=1).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6))
def test_csv_round_trip_keeps_cells_and_start_lines(rows):
    lines, text = [], "text,label\n"
    for row in rows:
        lines.append(text.count("\n") + 1)
        text += ",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\n"
    table = read_csv(text, "a.csv")
    assert [tuple(record.values()) for record in table.records] == rows
    assert list(table.lines) == lines


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_start_lines_with_quoted_newlines_and_blank_lines(ending):
    text = ending.join(["text,label", '"a', 'b",x', "", "c,y", "d,z,too", "e,w"])
    table = read_csv(text, "a.csv")
    assert table.lines == (2, 5, 7)
    assert table.records[0]["text"] == f"a{ending}b"
    assert [(fault.line, fault.reason) for fault in table.faults] == [(6, "3 cells where the header has 2")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('text,label\nfine,x\n"open,x\nmore,y\n', 3),
        ('text,label\n"ok\nok",x\ngood,y\n"open,x\nmore,z', 5),
        ('text,label\n"first\nopen","second\nmore,z\n', 3),
        ('text,label\n"open,x\nfine,y\n"a quoted one",z\nmore,w\n', 2),  # the next quote closes it: both rows are lost
        ('text,label\n"open,x\n' + "fine,y\n" * 100_000, 2),
    ],
)
def test_open_quote_is_named_by_its_line(text, line):
    with pytest.raises(DataError, match=rf"unbalanced quotes: the \" that opens on line {line} "):
        read_csv(text, "a.csv")


def test_quotes_in_tab_separated_text_are_characters():
    table = read_csv('text\tlabel\n"open\tx\nfine\ty\n', "a.tsv", tabs=True)
    assert table.records[0] == {"text": '"open', "label": "x"}


def test_one_column_keeps_its_commas():
    table = read_csv('text\nHello, world\n"quoted, too"\n', "a.csv")
    assert [record["text"] for record in table.records] == ["Hello, world", "quoted, too"]


def test_headers():
    assert read_csv('\ntext, label\na, "b, c"\n', "a.csv").records == ({"text": "a", "label": "b, c"},)
    assert read_csv(",text\n0,a\n", "a.csv").columns == ("unnamed 1", "text")
    with pytest.raises(DataError, match="two columns named 'text'"):
        read_csv("text,text\na,b\n", "a.csv")


def test_cells_longer_than_the_csv_modules_limit():
    long = "x" * 200_000
    assert read_csv(f"text,label\n{long},a\n", "a.csv").records[0]["text"] == long


def test_jsonl_faults_are_rows(tmp_path):
    text = '{"text": "a"}\nnope\n\n[1]\n{"text": "b", "label": 1}\n'
    table = read_table(write(tmp_path / "a.jsonl", text))
    assert table.lines == (1, 5)
    assert table.columns == ("text", "label")
    assert [fault.line for fault in table.faults] == [2, 4]
    assert "not JSON" in table.faults[0].reason
    with pytest.raises(DataError, match="no JSON object"):
        read_table(write(tmp_path / "b.jsonl", "nope\n"))


def test_json_lists_know_their_lines(tmp_path):
    table = read_table(write(tmp_path / "a.json", '{"data": [\n {"text": "a",\n  "label": "x"},\n 3,\n {"text": "b"}\n]}'))
    assert table.lines == (2, 5)
    assert [fault.line for fault in table.faults] == [4]
    assert read_table(write(tmp_path / "b.json", '{"text": "a"}\n{"text": "b"}\n')).lines == (1, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"text": "a"},', "is not JSON.*complete"),
        ('[{"text": "a"} {"text": "b"}]', "a comma or ] is missing"),
        ('[{"text": "a"}] more', "after the end of the list"),
        ('{"text": {"0": "a"}}', "one JSON object, a list of objects was expected"),
        ("[]", "no rows"),
        ("3", "not a list of objects"),
    ],
)
def test_json_that_is_no_list(tmp_path, text, said):
    with pytest.raises(DataError, match=said):
        read_table(write(tmp_path / "a.json", text))


def test_parquet_class_numbers_become_names(tmp_path):
    features = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}
    table = pyarrow.table({"text": ["a", "b", "c"], "label": [1, 0, -1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert [record["label"] for record in read_table(tmp_path / "a.parquet").records] == ["good", "bad", None]
    with pytest.raises(DataError, match="not a readable Parquet"):
        read_table(write(tmp_path / "b.parquet", "no"))


def test_text_file_suffix_and_folder(tmp_path):
    assert read_table(write(tmp_path / "a.txt", "một\n\n二\n")).lines == (1, 3)
    with pytest.raises(DataError, match=r"suffix '\.doc'.*\.csv"):
        read_table(write(tmp_path / "a.doc", "a"))
    with pytest.raises(DataError, match=r"is a folder.*a\.txt"):
        read_table(tmp_path)
    with pytest.raises(NotFound, match="no file"):
        read_table(tmp_path / "none.parquet")


class ClassLabel:
    names = ("bad", "good")

    def int2str(self, value):
        return self.names[value]


class FakeDataset(list):
    features = types.MappingProxyType({"text": object(), "label": ClassLabel()})
    column_names = ("text", "label")


@pytest.fixture
def library(monkeypatch):
    """A stand-in for the `datasets` library, which would need the network."""
    fake = types.ModuleType("datasets")
    fake.asked = []

    def load_dataset(name, config, *, split):
        fake.asked.append((name, config, split))
        if name == "owner/none":
            raise FileNotFoundError("not on the hub")
        if name == "owner/down":
            raise ConnectionError("offline")
        if name == "owner/script":
            raise RuntimeError("Dataset scripts are no longer supported")
        return FakeDataset([{"text": "a", "label": 1}, {"text": "b", "label": 0}])

    fake.load_dataset = load_dataset
    fake.load_from_disk = lambda path: {"train": FakeDataset([{"text": "a", "label": 1}]), "test": FakeDataset()}
    fake.get_dataset_split_names = lambda name, config: ["train", "test"]
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return fake


def test_hub_addresses(library):
    table = read_table("hub:owner/name:plain@train[:10]")
    assert library.asked == [("owner/name", "plain", "train[:10]")]
    assert [record["label"] for record in table.records] == ["good", "bad"]
    read_table("hub:name")
    assert library.asked[-1] == ("name", None, "train")


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("hub:owner/none", NotFound, "no data set 'hub:owner/none'"),
        ("hub:owner/down", FetchFailed, "network"),
        ("hub:owner/script", DataError, "scripts"),
        ("hub:a/b/c", DataError, "no hub address"),
    ],
)
def test_hub_faults(library, address, error, said):
    with pytest.raises(error, match=said):
        read_table(address)


def test_hub_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Unsupported, match=r"pip install epigraph\[hub\]"):
        read_table("hub:owner/name")


def test_saved_folder(library, tmp_path):
    write(tmp_path / "dataset_dict.json", "{}")
    assert read_table(tmp_path).records[0] == {"text": "a", "label": "good"}
    assert read_table(f"{tmp_path}@test").records == ()
    with pytest.raises(NotFound, match="no split 'dev'; it has train, test"):
        read_table(f"{tmp_path}@dev")
