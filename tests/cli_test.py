"""The command line as people and scripts use it: help, tables, JSON by its schema, streams, the library, the cache."""

import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from epigraph.assets import home
from epigraph.cli import main
from epigraph.config import TuneConfig
from epigraph.errors import BaseMismatch
from epigraph.library import Library

LABELS = ("animal", "metal", "number")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, toy_folder: Path) -> Path:
    """A folder with train.csv, test.csv and a library of routing@1 (kv, at the end) and first@1 (token, portable)."""
    parent = tmp_path_factory.mktemp("shelf")
    for name, rows in (("train.csv", 45), ("test.csv", 12)):
        lines = [f"text {i} of {LABELS[i % 3]},{LABELS[i % 3]}" for i in range(rows)]
        (parent / name).write_text("\n".join(["text,label", *lines]) + "\n")
    shared = ["--base", str(toy_folder), "--dtype", "float32", "--library", str(parent / "library")]
    for name, flags in (("routing", []), ("first", ["--portable"])):
        command = [
            "tune",
            str(parent / "train.csv"),
            "--name",
            name,
            "--epochs",
            "1",
            "--length",
            "2",
            "--budget",
            "1",
            *shared,
            *flags,
        ]
        command += ["--keep", "soft"]
        assert main.run([*command, "--json"]) == 0
    return parent


@pytest.fixture
def library(shelf: Path, cli: Any) -> Path:
    """A copy of the library in the working folder, where commands look for it."""
    return Path(shutil.copytree(shelf / "library", Path("library").absolute()))


# ---- help ------------------------------------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    """Every command by its words, groups not."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(main.app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {f"{name} {sub}": one for sub, one in inner.items()} if inner else {name: command}
    return found


@pytest.mark.parametrize("words", commands())
def test_help_names_every_flag_and_ends_with_examples(words: str, cli: Any) -> None:
    answer = cli(*words.split(), "--help")
    assert (answer.code, answer.err) == (0, "")
    for parameter in commands()[words].params:
        names = parameter.opts if parameter.param_type_name == "option" else [parameter.name]
        assert all(name in answer.out for name in names), parameter.name
        assert parameter.help, f"{words} does not say what {parameter.name} is"
    examples = answer.out.partition("Examples:\n")[2].strip().splitlines()
    assert len(examples) >= 2
    assert any(line.strip().startswith(f"epigraph {words}") for line in examples)
    assert "--json" in answer.out


def test_every_setting_of_a_tuning_is_a_flag_with_its_meaning(cli: Any) -> None:
    text = " ".join(cli("tune", "--help").out.split())
    for field in dataclasses.fields(TuneConfig):
        assert f"--{field.name.replace('_', '-')} " in text
        assert " ".join(field.metadata["doc"].replace("\b", "").split()) in text


@pytest.mark.parametrize("group", [[], ["library"], ["cache"]], ids=lambda words: " ".join(words) or "epigraph")
def test_a_group_without_a_command_shows_its_help(group: list[str], cli: Any) -> None:
    bare, asked, short = cli(*group), cli(*group, "--help"), cli(*group, "-h")
    assert (bare.code, bare.err, bare.out) == (0, "", asked.out)
    assert short == asked
    assert "..." not in asked.out.partition("Commands:")[2]  # no meaning is cut off
    for words in commands():
        first, _, second = words.partition(" ")
        if not group or first == group[0]:
            assert (second if group else first) in asked.out


def test_version(cli: Any) -> None:
    answer = cli("--version")
    assert answer.code == 0
    assert answer.out.startswith("epigraph ")


def test_help_and_listings_import_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from epigraph.cli.main import run\n"
        "for words in ('--help', 'tune --help', 'library --help', 'schema tune', 'library list --json', 'cache list --json'):\n"
        "    assert run(words.split()) == 0, words\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pyarrow', 'sklearn', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_module_runs_as_a_program_and_a_closed_pipe_is_no_fault(shelf: Path) -> None:
    command = [sys.executable, "-m", "epigraph", "library", "list", "--library", str(shelf / "library")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "routing@1" in done.stdout
    reader, writer = os.pipe()
    os.close(reader)
    closed = subprocess.run([*command, "--json"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert closed.returncode == 141
    assert "epigraph" not in closed.stderr


# ---- JSON ------------------------------------------------------------------------------------------------------------


def check(value: Any, schema: Mapping[str, Any], where: str = "$") -> None:
    """Assert that a value is what the schema says (of JSON schema, as much as Epigraph uses)."""
    kinds = schema.get("type", [])
    types = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool}
    named = [kinds] if isinstance(kinds, str) else kinds
    fits = [value is None if kind == "null" else isinstance(value, types[kind]) for kind in named]
    assert not named or any(fits), f"{where} is {value!r}, {named} was promised"
    assert "enum" not in schema or value in schema["enum"], f"{where} is {value!r}"
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= set(value), f"{where} lacks {set(schema['required']) - set(value)}"
        known = schema.get("properties", {})
        for key, inner in value.items():
            assert not known or key in known or "additionalProperties" in schema, f"{where}.{key} is not in the schema"
            check(inner, known.get(key, schema.get("additionalProperties", {})), f"{where}.{key}")
    for i, inner in enumerate(value if isinstance(value, list) else []):
        check(inner, schema.get("items", {}), f"{where}[{i}]")


def schema_of(cli: Any, *words: str) -> Any:
    answer = cli("schema", *words)
    assert answer.code == 0
    return answer.json


def test_tune_prints_one_object_and_progress_elsewhere(
    cli: Any, shelf: Path, toy_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIGRAPH_HOME", str(tmp_path / "home"))  # where no text was read yet
    command = [
        "tune",
        shelf / "train.csv",
        "--test",
        shelf / "test.csv",
        "--name",
        "routing",
        "--epochs",
        "2",
        "--budget",
        "2",
        "--keep",
        "soft",
        *toy_flags,
    ]
    answer = cli(*command, "--json")
    assert answer.code == 0
    check(answer.json, schema_of(cli, "tune"))
    assert answer.json["prompt"] == "routing@1"
    assert answer.json["scores"]["split"] == "test"
    assert answer.json["settings"]["kind"] == "kv"
    assert "reading the texts once" in answer.err
    assert "epoch 2" in answer.err
    plain = cli(*command)
    assert "soft prompt routing@2" in plain.out
    assert "majority class" in plain.out
    assert "metric: accuracy" in plain.out
    assert "epoch 2" not in plain.out


def test_evaluate_scores_both_prompts_and_lists_labels_on_demand(cli: Any, shelf: Path, library: Path) -> None:
    command = ["evaluate", "routing", "--data", shelf / "test.csv"]
    answer = cli(*command, "--per-class", "--confusion", "--json")
    assert answer.code == 0
    check(answer.json, schema_of(cli, "evaluate"))
    assert answer.json["prompt"] == "routing@1"
    assert [row["label"] for row in answer.json["per_class"]] == list(LABELS)
    confusion = answer.json["confusion"]
    assert confusion["labels"] == list(LABELS)
    assert sum(map(sum, confusion["counts"])) == answer.json["scores"]["rows"] == 12
    right = sum(confusion["counts"][i][i] for i in range(3))
    assert right / 12 == pytest.approx(answer.json["scores"]["accuracy"]["value"])
    brief = cli(*command, "--json").json
    assert set(brief) == set(answer.json) - {"per_class", "confusion"}
    plain = cli(*command, "--per-class", "--confusion").out
    for part in ("soft prompt routing@1", "hard prompt", "by label", "true label (rows) by predicted label (columns)"):
        assert part in plain


def test_tables_stay_on_one_line_each_when_piped(cli: Any, shelf: Path, library: Path) -> None:
    """A piped table used to fold its intervals at 80 columns."""
    lines = cli("evaluate", "routing", "--data", shelf / "test.csv").out.splitlines()
    assert len([line for line in lines if "–" in line]) == 2
    assert max(map(len, lines)) <= 120


def test_many_labels_are_confused_in_a_list(cli: Any, shelf: Path, library: Path, capsys: Any) -> None:
    from epigraph.cli.evaluate import _show_confusion
    from epigraph.evaluation import Scores

    labels = tuple(f"label {i:02d}" for i in range(20))
    scores = Scores(values={}, truth=labels, predicted=(labels[1], *labels[1:]), labels=labels)
    _show_confusion(scores)
    out = capsys.readouterr().out
    assert "the most frequent errors" in out
    assert [line.split() for line in out.splitlines() if "label 00" in line] == [["label", "00", "label", "01", "1"]]


def test_library_and_cache_print_what_their_schemas_say(cli: Any, library: Path) -> None:
    for words in (["library", "list"], ["library", "verify"], ["cache", "list"]):
        answer = cli(*words, "--json")
        assert (answer.code, answer.err) == (0, "")
        check(answer.json, schema_of(cli, *words))
    card = cli("library", "show", "routing", "--json")
    assert card.json["name"] == "routing"
    assert card.json["version"] == 1
    required = schema_of(cli, "library", "show")
    check({key: card.json[key] for key in required["required"]}, required)
    assert "card_sha256" in cli("library", "show", "routing").out
    listed = cli("library", "list").out
    assert "routing@1" in listed
    assert "first@1" in listed


def test_verify_says_what_is_wrong_in_one_object(cli: Any, library: Path) -> None:
    (library / "routing" / "1" / "prompt.safetensors").write_bytes(b"nothing")
    answer = cli("library", "verify", "--json")
    assert answer.code == 2
    check(answer.json, schema_of(cli, "library", "verify"))
    assert [p["reference"] for p in answer.json["problems"]] == ["routing@1"]
    assert answer.json["error"]["type"] == "Corrupt"
    assert answer.err.splitlines()[-1].startswith("error: 1 problems were found")
    assert cli("library", "verify", "first").out.strip() == "everything is as it was written"


def test_errors_have_a_schema_and_every_schema_is_one(cli: Any) -> None:
    check(cli("tune", "no.csv", "--json").json, schema_of(cli, "error"))
    unknown = cli("schema", "nothing")
    assert unknown.code == 2
    for words in unknown.err.partition("There are: ")[2].strip(". \n").split(", "):
        found = schema_of(cli, *words.split())
        assert found["type"] == "object"
        assert set(found["required"]) <= set(found["properties"])


# ---- predict ---------------------------------------------------------------------------------------------------------


def test_predict_answers_texts_and_files_in_order(cli: Any, shelf: Path, library: Path) -> None:
    schema = schema_of(cli, "predict")
    answer = cli("predict", "routing", "one", "two", "--json")
    assert answer.code == 0
    assert [line["fields"]["text"] for line in answer.lines] == ["one", "two"]
    for line in answer.lines:
        check(line, schema)
        assert set(line["probabilities"]) == set(LABELS)
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert line["label"] == max(line["probabilities"], key=line["probabilities"].get)
    filed = cli("predict", "routing", "--file", shelf / "test.csv", "--json")
    assert [line["fields"]["text"] for line in filed.lines] == [f"text {i} of {LABELS[i % 3]}" for i in range(12)]
    label, probability, text = cli("predict", "routing", "one").out.strip().split("\t")
    assert (label, text) == (answer.lines[0]["label"], "one")
    alone = pytest.approx(answer.lines[0]["probabilities"][label], abs=5e-3)  # bf16, where the machine is faster with it
    assert float(probability) == alone


def test_answers_of_a_file_say_their_line_though_rows_are_skipped(cli: Any, library: Path, tmp_path: Path) -> None:
    """A skipped row left no trace, so that answers could not be put beside their rows."""
    new = tmp_path / "gaps.csv"
    new.write_text("text,number\n" + "".join(f"{f'row {i}' if i != 2 else ''},{i}\n" for i in range(30)))
    answer = cli("predict", "routing", "--file", new, "--json")
    assert [line["line"] for line in answer.lines] == [2, 3, *range(5, 32)]
    assert "1 rows were skipped: line 4: empty text" in answer.err
    assert "its rows are answered by --file" in cli("predict", "routing", new).err


def test_predict_withholds_what_it_is_not_sure_of(cli: Any, library: Path) -> None:
    answer = cli("predict", "routing", "one", "--min-confidence", "1", "--json")
    check(answer.lines[0], schema_of(cli, "predict"))
    assert answer.lines[0]["label"] is None
    assert answer.lines[0]["abstained"] is True
    assert cli("predict", "routing", "one", "--min-confidence", "1").out.startswith("(not sure)\t")


def test_a_file_needs_no_labels_to_be_answered_and_its_faulty_rows_are_named(
    cli: Any, tmp_path: Path, library: Path
) -> None:
    rows = "".join(f"{i},row {i}\n" for i in range(30))
    (tmp_path / "new.csv").write_text("id,text\n" + rows + "30,\n")
    answer = cli("predict", "routing", "--file", tmp_path / "new.csv", "--json")
    assert len(answer.lines) == 30
    assert "note: 1 rows were skipped: line 32: empty text" in answer.err
    assert cli("predict", "routing", "--file", tmp_path / "new.csv", "--strict").code == 2


class Live(io.StringIO):
    """Standard input as a pipe that waits; notes how many answers were out when each line was asked for."""

    def __init__(self, *lines: str) -> None:
        super().__init__()
        self.lines: tuple[str, ...] = lines
        self.answered: list[int] = []

    def seekable(self) -> bool:
        return False

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        for line in self.lines:
            self.answered.append(sys.stdout.getvalue().count("\n"))  # type: ignore[attr-defined]
            yield line


def test_standard_input_is_answered_line_by_line(cli: Any, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Live("\ufeffone\n", "\n", "two\r\n", '{"text": "three"}\n')
    monkeypatch.setattr(sys, "stdin", live)
    answer = cli("predict", "routing", "--json")
    assert answer.code == 0
    assert [line["fields"]["text"] for line in answer.lines] == ["one", "two", "three"]
    assert live.answered == [0, 1, 1, 2]


def test_standard_input_from_a_file_gives_the_same(cli: Any, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    piped = cli("predict", "routing", "--json").lines
    assert [line["label"] for line in piped] == [
        line["label"] for line in cli("predict", "routing", "one", "two", "--json").lines
    ]


def test_standard_input_in_another_encoding_is_refused(cli: Any, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of Latin-1 on standard input used to end as a fault of ours."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("café\n".encode("latin-1")), encoding="utf-8"))
    answer = cli("predict", "routing", "--json")
    assert answer.code == 2
    assert answer.json["error"]["message"] == "standard input is not UTF-8: after line 0 comes the byte 0xe9."


# ---- the library and the cache ---------------------------------------------------------------------------------------


def test_promote_use_and_remove(cli: Any, library: Path) -> None:
    shutil.copytree(library / "first" / "1", "copy")
    assert cli("library", "import", "copy", "--name", "routing", "--json").json == {"prompt": "routing@2"}
    promoted = cli("library", "promote", "routing@1", "prod", "--json")
    assert promoted.json == {"prompt": "routing@1", "alias": "routing@prod"}
    check(promoted.json, schema_of(cli, "library", "promote"))
    assert cli("library", "show", "routing@prod", "--json").json["version"] == 1
    held = cli("library", "remove", "routing@1")
    assert held.code == 2
    assert "in use as alias 'prod'" in held.err
    assert cli("library", "promote", "routing@2", "prod").err == "routing@prod is routing@2\n"
    removed = cli("library", "remove", "routing@1", "--json")
    check(removed.json, schema_of(cli, "library", "remove"))
    assert cli("library", "show", "routing@1").code == 2
    assert cli("library", "remove", "routing", "--force").code == 0
    assert Library(library).names() == ["first"]
    assert cli("library", "verify").code == 0


def test_export_and_import_give_the_same_prompt(cli: Any, library: Path) -> None:
    exported = cli("library", "export", "routing", "out/routing", "--json")
    check(exported.json, schema_of(cli, "library", "export"))
    assert exported.json["folder"] == str(Path("out/routing").absolute())
    imported = cli("library", "import", "out/routing", "--library", "elsewhere", "--json")
    check(imported.json, schema_of(cli, "library", "import"))
    assert imported.json == {"prompt": "routing@1"}
    here = cli("predict", "routing", "one", "--json")
    there = cli("predict", "routing", "one", "--json", "--library", "elsewhere")
    assert here == there


def test_a_portable_prompt_leaves_and_comes_back_as_a_peft_adapter(
    cli: Any, shelf: Path, library: Path, toy_folder: Path, other_folder: Path
) -> None:
    assert cli("library", "export", "first", "adapter", "--format", "peft").code == 0
    assert sorted(path.name for path in Path("adapter").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    back = ["library", "import", "adapter", "--task", shelf / "train.csv", "--base", toy_folder]
    assert cli(*back, "--name", "back", "--json").json == {"prompt": "back@1"}
    assert cli("library", "show", "back", "--json").json["base"]["verified"] is False
    assert cli("predict", "back", "one", "--json").lines == cli("predict", "first", "one", "--json").lines
    assert cli("predict", "back", "one", "--base", other_folder, "--json").json["error"]["type"] == BaseMismatch.__name__


def test_the_library_is_found_through_the_environment(
    cli: Any, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("library", "list").out == "no prompts in library\n"
    monkeypatch.setenv("EPIGRAPH_LIBRARY", str(shelf / "library"))
    assert {entry["prompt"] for entry in cli("library", "list", "--json").json["prompts"]} == {"first@1", "routing@1"}
    assert cli("library", "list", "--library", tmp_path / "none", "--json").json == {"prompts": []}


def test_clearing_removes_only_what_it_says(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPIGRAPH_HOME", str(tmp_path / "home"))
    parts = [part["part"] for part in cli("cache", "list", "--json").json["parts"]]
    for part in [*parts, "wheels"]:
        (home() / part / "inner").mkdir(parents=True)
        (home() / part / "inner" / "file").write_bytes(b"12345")
    assert [part["bytes"] for part in cli("cache", "list", "--json").json["parts"]] == [5] * len(parts)
    cleared = cli("cache", "clear", "--json")
    check(cleared.json, schema_of(cli, "cache", "clear"))
    assert cleared.json == {"cleared": ["frozen"], "bytes": 5}
    assert sorted(path.name for path in home().iterdir()) == sorted({*parts, "wheels"} - {"frozen"})
    assert cli("cache", "clear", "bases").err == "cleared bases: 5 B\n"
    assert sorted(path.name for path in home().iterdir()) == sorted({*parts, "wheels"} - {"frozen", "bases"})
    assert set(cli("cache", "clear", "all", "--json").json["cleared"]) == set(parts)
    assert [path.name for path in home().iterdir()] == ["wheels"]


def test_everything_that_home_holds_is_listed(cli: Any, library: Path) -> None:
    """The self-tests' results were kept in a folder that neither list nor clear knew of."""
    cli("predict", "routing", "one")
    listed = {part["part"] for part in cli("cache", "list", "--json").json["parts"]}
    assert {path.name for path in home().iterdir()} <= listed


def test_non_ascii_is_printed_as_it_is(cli: Any, library: Path) -> None:
    answer = cli("predict", "routing", "câu 你好", "--json")
    assert "câu 你好" in answer.out
    assert json.loads(answer.out)["fields"] == {"text": "câu 你好"}
