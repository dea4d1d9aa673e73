"""Tasks one after another, from the command line: three scenarios, nothing forgotten, interrupted and gone on with, bad input."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from epigraph.config import read_toml
from epigraph.continual import sequence
from epigraph.library import Library, read_prompt

QUICK = ["--epochs", "1", "--batch", "4", "--rate", "0.3", "--length", "2"]
SWAPS = ({}, {"a": "x", "Z": "Y"}, {"a": "n", "Z": "M"})
LABELS = (("animal", "metal"), ("low", "metal"), ("odd", "even"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, toy_rows: Any, write_csv: Any) -> list[Path]:
    """Three tasks of other letters; the first two share a label."""
    home = tmp_path_factory.mktemp("tasks")
    found = []
    for name, swaps, labels in zip(("one", "two", "three"), SWAPS, LABELS, strict=True):
        rows = [(_swapped(text, swaps), label) for text, label in toy_rows(24, labels=labels)]
        found.append(write_csv(home / f"{name}.csv", rows))
    return found


def _swapped(text: str, swaps: dict[str, str]) -> str:
    return "".join(swaps.get(letter, letter) for letter in text)


def folder_of(answer: Any) -> Path:
    return Path(answer.json["sequence"])


def test_the_whole_way(cli: Any, toy_flags: list[str], files: list[Path], tmp_path: Path) -> None:
    """Two tasks by three methods; a third later, without the data of the first; auto answers from what was stored."""
    mine = [Path(shutil.copy(file, tmp_path / file.name)) for file in files]
    methods = ["--methods", "separate,progressive,pool"]
    answer = cli("continual", *mine[:2], *methods, *toy_flags, *QUICK, "--json", "--report", "r.html")
    assert answer.code == 0, answer.err
    found = answer.json
    assert found["order"] == ["one", "two"]
    assert found["labels"] == {"union": 3, "shared": {"metal": ["one", "two"]}, "distinct": False}
    for method in found["methods"]:
        assert set(method["scenarios"]) == {"known", "inferred", "union"}
        if method["name"] != "pool":
            assert method["scenarios"]["known"]["forgetting"] == 0.0
    assert found["scenarios"] == found["methods"][0]["scenarios"]
    growth = {one["name"]: [step["inference_tokens"] for step in one["growth"]] for one in found["methods"]}
    assert growth == {"separate": [2, 2], "progressive": [2, 4], "pool": [2, 2]}
    assert "<svg" in Path("r.html").read_text()

    kept = {path: path.read_bytes() for path in folder_of(answer).rglob("prompt/*")}
    mine[0].unlink()
    later = cli("continual", mine[2], "--resume", folder_of(answer), "--json")
    assert later.code == 0, later.err
    assert "the data of task one is gone" in later.err
    known = later.json["scenarios"]["known"]["matrix"]
    assert len(known) == 3
    assert known[2][1] == known[1][1]
    assert later.json["scenarios"]["union"]["matrix"][2][0] is None
    assert later.json["prompts"] == ["one@1", "two@1", "three@1"]
    assert all(path.read_bytes() == content for path, content in kept.items())

    routed = cli("predict", "auto", "xx xxx x", "n nn nnnn", "--min-route", "0", "--json", *toy_flags)
    assert [line["prompt"] for line in routed.lines] == ["two", "three"]
    assert all(0 <= line["route"]["confidence"] <= 1 for line in routed.lines)
    nobody = cli("predict", "auto", "something else entirely, and longer", "--min-route", "0.9", "--json", *toy_flags).lines[
        0
    ]
    assert (nobody["prompt"], nobody["label"], nobody["abstained"]) == ("", None, True)
    alone = cli("predict", "auto", "something else", "--min-route", "1", "--otherwise", "base", "--json", *toy_flags).lines[
        0
    ]
    assert alone["prompt"] == "base"
    assert "output" in alone
    assert cli("library", "verify").code == 0
    kept = cli("library", "verify", "--privacy", "--json").json["holdings"]
    assert not [one["where"] for one in kept if "look into it" in one["what"]]
    assert cli("library", "remove", "one", "--force").code == 0
    left = cli(
        "predict", "auto", "xx xxx x", "--min-route", "0", "--json"
    )  # the router's first prompt is gone: so was its base
    assert (left.code, left.lines[0]["prompt"]) == (0, "two"), left.err


def test_a_pool_is_stored_whole_and_answers_by_its_name(cli: Any, toy_flags: list[str], files: list[Path]) -> None:
    flags = [*toy_flags, *QUICK, "--name", "all", "--methods", "pool,sequential,replay,joint", "--distinct-labels"]
    answer = cli("continual", *files[:2], *flags, "--json")
    assert answer.code == 0, answer.err
    assert answer.json["labels"]["union"] == 4
    joint = next(one for one in answer.json["methods"] if one["name"] == "joint")
    assert joint["scenarios"]["known"]["matrix"][0] == [None, None]
    assert joint["scenarios"]["known"]["forgetting"] is None
    assert answer.json["prompts"] == ["all@1", "all@2"]
    assert Library(Path("library")).card("all").form == "Dependent"
    (line,) = cli("predict", "all", "aa aaa a", "--json", *toy_flags).lines
    assert set(line["probabilities"]) == {"animal", "metal", "low"}
    refused = cli("tune", files[0], "--from", "all", "--name", "new", *toy_flags)
    assert refused.code == 2
    assert "needs a prompt whose vectors are the same for every text" in refused.err


@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_are_carried_from_task_to_task(cli: Any, toy_flags: list[str], files: list[Path], method: str) -> None:
    answer = cli("continual", *files[:2], *toy_flags, *QUICK, "--methods", method, "--json")
    assert answer.code == 0, answer.err
    assert len(answer.json["scenarios"]["union"]["matrix"]) == 2
    assert answer.json["prompts"] == []
    weights = list(folder_of(answer).rglob("weights.safetensors"))
    assert [file.parent.name for file in weights] == ["1-two"]
    later = cli("continual", files[2], "--resume", folder_of(answer), "--json")
    assert later.code == 0, later.err
    assert len(later.json["order"]) == 3


def test_an_interrupted_sequence_goes_on_in_the_task_it_was_in(
    cli: Any, toy_flags: list[str], files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*toy_flags, *QUICK, "--json"]
    whole = cli("continual", *files[:2], *flags, "--library", "other").json
    learned = sequence.PromptEach.learn

    def stop_in_the_second(self: Any, t: int) -> None:
        def listen(moment: Any) -> None:
            if moment.step == 3:
                raise KeyboardInterrupt

        if t == 1:
            self.world.listener = listen
        learned(self, t)

    with monkeypatch.context() as patched:
        patched.setattr(sequence.PromptEach, "learn", stop_in_the_second)
        answer = cli("continual", *files[:2], *flags)
    assert answer.code == 130
    assert "go on with: epigraph continual --resume" in answer.err
    folder = Path(answer.json["error"]["hint"].split("--resume ")[1].split(" --library")[0])
    first = {path: path.stat().st_mtime_ns for path in (folder / "separate" / "0-one").rglob("*") if path.is_file()}
    later = cli("continual", "--resume", folder, "--library", answer.json["error"]["hint"].split("--library ")[1], "--json")
    assert later.code == 0, later.err
    assert later.json["scenarios"] == whole["scenarios"]
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert len(list((folder / "separate" / "1-two" / "runs").iterdir())) == 1


def test_bad_input_ends_with_one_line_and_nothing_written(
    cli: Any, toy_flags: list[str], files: list[Path], tmp_path: Path, other_folder: Path, write_csv: Any, toy_rows: Any
) -> None:
    (tmp_path / "sub").mkdir()
    same = Path(shutil.copy(files[1], tmp_path / "sub" / files[0].name))
    other = write_csv(tmp_path / "pairs.csv", toy_rows(20), ("message", "label"))
    pairs = tmp_path / "pairs.toml"
    pairs.write_text('template = "{message}{prompt}:"\n[data]\ntrain = "pairs.csv"\n[columns]\nmessage = "message"\n')
    written = write_csv(tmp_path / "said.csv", [(t, t) for t, _ in toy_rows(20)], ("input", "output"))
    assert other.exists()
    cases: list[tuple[list[Any], str]] = [
        ([files[0], same], "two tasks are called 'one'"),
        ([files[0], pairs], "task 'pairs' has the columns message; the sequence"),
        ([files[0]], "a sequence of 1 task was asked"),
        ([files[0], written], "a sequence is measured by accuracy"),
        ([*files[:2], "--methods", "magic"], "method magic is not known"),
        ([*files[:2], "--kind", "pool"], "kind 'pool' was asked for a sequence"),
        ([*files[:2], "--ensemble", "2"], "an ensemble of 2 was asked for a sequence"),
        ([*files[:2], "--calibrate", "contextual"], "calibration 'contextual' was asked for a sequence"),
        ([*files[:2], "--resume", tmp_path], "--resume was given with --base, --batch, --dtype"),
        ([*files[:2], "--holdout", "0"], "task 'one' has no test set, and holdout 0 keeps none of its 24 rows"),
        ([*files[:2], "--holdout", "0.9"], "task 'one' has 24 rows, of which holdout 0.9 leaves 2; tuning needs 4"),
        ([*files[:2], "--test-rows", "0"], "test_rows 0 was asked"),
    ]
    for arguments, message in cases:
        answer = cli("continual", *arguments, *toy_flags, *QUICK)
        assert (answer.code, message in answer.err) == (2, True), answer.err
        assert len(answer.err.strip().splitlines()) == 1
    nowhere = cli("continual", files[0], "--resume", tmp_path)
    assert (nowhere.code, "is no sequence of tasks" in nowhere.err) == (2, True)
    assert not Path("library").exists()


def test_a_sequence_stays_on_its_base(
    cli: Any, toy_folder: Path, other_folder: Path, files: list[Path], tmp_path: Path
) -> None:
    """The folder of the base was replaced by another base's: its pool would mean nothing."""
    mine = Path(shutil.copytree(toy_folder, tmp_path / "base"))
    flags = ["--base", str(mine), "--dtype", "float32", *QUICK, "--methods", "pool", "--json"]
    answer = cli("continual", *files[:2], *flags)
    assert answer.code == 0, answer.err
    shutil.rmtree(mine)
    shutil.copytree(other_folder, mine)
    refused = cli("continual", files[2], "--resume", folder_of(answer))
    assert refused.code == 2
    assert "was begun on a base of fingerprint" in refused.err


def test_what_a_task_was_is_what_it_stays(
    cli: Any, toy_flags: list[str], files: list[Path], tmp_path: Path, write_csv: Any, toy_rows: Any
) -> None:
    """A learned task's TOML got other label words and another template, and its file another label: the prompt was asked for
    words it had not learned, and the union in which earlier rows of the matrix were measured became another."""
    said = tmp_path / "moods.toml"
    shutil.copy(files[0], tmp_path / "moods.csv")
    lines = 'template = "{text}{prompt}:"\n[data]\ntrain = "moods.csv"\n[labels]\nanimal = "%s"\nmetal = "%s"\n'
    said.write_text(lines % ("good", "bad"))
    answer = cli("continual", said, files[1], *toy_flags, *QUICK, "--methods", "separate,sequential", "--json")
    assert answer.code == 0, answer.err
    folder = folder_of(answer)
    began = read_toml(folder / "sequence.toml")["tasks"]
    said.write_text(lines.replace("{prompt}:", "{prompt} is") % ("great", "awful"))
    shutil.move(files_gone := tmp_path / "moods.csv", tmp_path / "away.csv")
    gone = cli("continual", "--resume", folder, "--json")
    assert (gone.code, "the data of task moods is gone" in gone.err) == (0, True), gone.err
    shutil.move(tmp_path / "away.csv", files_gone)

    later = cli("continual", files[2], "--resume", folder, "--json")
    assert later.code == 0, later.err
    assert "the labels of task moods stay what they were when the sequence began: animal = good, metal = bad" in later.err
    assert "the template of task moods stays what it was" in later.err
    assert later.json["labels"]["union"] == 2 + 2 + 2
    for before, after in zip(answer.json["methods"], later.json["methods"], strict=True):
        for scenario in ("known", "inferred", "union"):
            old, new = before["scenarios"][scenario]["matrix"], after["scenarios"][scenario]["matrix"]
            assert [row[:2] for row in new[:2]] == old
            assert new[2][0] is not None
    assert read_toml(folder / "sequence.toml")["tasks"][:2] == began

    write_csv(files_gone, [*toy_rows(24), ("another", "mineral"), ("one more", "mineral")])
    other = cli("continual", write_csv(tmp_path / "four.csv", toy_rows(24)), "--resume", folder, "--json")
    assert other.code == 0, other.err
    assert "the data of task moods is not what it was, so it is not measured again" in other.err
    assert other.json["scenarios"]["inferred"]["matrix"][3][0] is None
    assert other.json["labels"]["union"] == 2 + 2 + 2 + 1


def test_a_later_task_that_does_not_fit_leaves_the_sequence_as_it_is(
    cli: Any, toy_flags: list[str], files: list[Path], tmp_path: Path, write_csv: Any, toy_rows: Any
) -> None:
    answer = cli("continual", *files[:2], *toy_flags, *QUICK, "--json")
    assert answer.code == 0, answer.err
    folder = folder_of(answer)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_csv(tmp_path / "pairs.csv", toy_rows(20), ("message", "label"))
    pairs = tmp_path / "pairs.toml"
    pairs.write_text('template = "{message}{prompt}:"\n[data]\ntrain = "pairs.csv"\n[columns]\nmessage = "message"\n')
    for task, message in (
        (files[0], "two tasks are called 'one'"),
        (pairs, "task 'pairs' has the columns message; the sequence"),
    ):
        refused = cli("continual", task, "--resume", folder)
        assert (refused.code, message in refused.err) == (2, True), refused.err
        assert len(refused.err.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_task_it_is_in_must_be_what_it_was(
    cli: Any, toy_flags: list[str], files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One method had scored the task, then its rows changed: the methods after it were measured on others, side by side."""
    mine = [Path(shutil.copy(file, tmp_path / file.name)) for file in files[:2]]

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sequence.OnePrompt, "learn", stop)
        answer = cli("continual", *mine, *toy_flags, *QUICK, "--methods", "separate,sequential", "--json")
    assert answer.code == 130
    folder = Path(answer.json["error"]["hint"].split("--resume ")[1].split(" --library")[0])
    content = mine[0].read_text()
    mine[0].write_text(content + "aa a aaa,metal\n")
    refused = cli("continual", "--resume", folder)
    assert refused.code == 2
    assert "rows of task 'one', which it is in, are not what they were" in refused.err
    mine[0].write_text(content)
    mine[1].write_text(mine[1].read_text() + "aa a aaa,metal\n")  # not begun: as it is now
    later = cli("continual", "--resume", folder, "--json")
    assert later.code == 0, later.err
    assert later.json["order"] == ["one", "two"]


def test_one_prompt_keeps_its_template_whatever_the_length_of_later_rows(
    cli: Any,
    toy_flags: list[str],
    files: list[Path],
    write_csv: Any,
    toy_rows: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each task's own rows chose how often they are read: after short rows and long ones all tests were read as the long ones."""
    monkeypatch.setattr("epigraph.tuning.choices.SHORT_ROW", 60)
    long = write_csv(tmp_path / "long.csv", [(" ".join([text] * 12), label) for text, label in toy_rows(16)])
    flags = [*toy_flags, *QUICK, "--methods", "pool,replay", "--test-rows", "4"]
    answer = cli("continual", files[0], long, *flags, "--json")
    assert answer.code == 0, answer.err
    for method in ("pool", "replay"):
        cards = [read_prompt(folder).card for folder in sorted((folder_of(answer) / method).glob("*/prompt"))]
        assert len(cards) == 2
        assert {card.task["template"] for card in cards} == {"{text}\n{text}\nLabel{prompt}:"}
