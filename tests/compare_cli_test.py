"""``epigraph compare`` and ``epigraph prompt`` as people use them: from files to a report, interrupted, refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from epigraph.cli.schema import SCHEMAS

FAST = ["--seeds", "1", "--curve", "none", "--trials", "1", "--epochs", "1"]


def required(schema: dict[str, Any], value: dict[str, Any]) -> None:
    assert set(schema["required"]) <= set(value)


def test_from_a_file_to_a_verdict_and_a_report(cli: Any, make_csv: Any, toy_flags: list[str], tmp_path: Path) -> None:
    data, test = make_csv(rows=32), make_csv("test.csv", rows=12, seed=1)
    mine = tmp_path / "mine.txt"
    mine.write_text("Say whether it is an animal or a metal.")
    command = ["compare", data, "--test", test, "--hard-prompt", mine, "--methods", "hard-prompt,probe,kv", *FAST]
    done = cli(*command, *toy_flags, "--report", "here.html", "--json")
    assert done.code == 0, done.err
    said = done.json
    required(SCHEMAS["compare"], said)
    assert [method["name"] for method in said["methods"]] == ["hard-prompt:mine", "probe", "kv"]
    assert all(method["status"] == "done" for method in said["methods"])
    assert said["base"]["fingerprint"]
    assert "[3/3]" in done.err
    for path in ("here.html", said["report"]):
        html = Path(path).read_text()
        assert "Which method for" in html
        assert "Say whether it is an animal" in html
    folder = Path(said["folder"])
    assert {p.name for p in folder.iterdir()} == {"cells", "comparison.json", "report.html", "report.md", "result.json"}
    again = cli("compare", "--resume", folder)
    assert again.code == 0
    assert again.err.count("read, not run again") == 3
    assert said["verdict"].split(":")[0] in again.out


def test_ctrl_c_prints_the_command_that_goes_on(
    cli: Any, make_csv: Any, toy_flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from epigraph.compare import session

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session, "run_cell", stop)
        stopped = cli("compare", make_csv(rows=24), "--methods", "probe", *FAST, *toy_flags, "--folder", "mine")
    assert stopped.code == 130
    assert "go on with: epigraph compare --resume mine" in stopped.err
    assert cli("compare", "--resume", "mine").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no TASK was given"),
        (["none.csv"], "none.csv"),
        (["train.csv", "--methods", "magic"], "method 'magic' is not known"),
        (["train.csv", "--hard-prompt", "none.txt"], "hard prompt none.txt was asked, but there is no such file"),
        (["train.csv", "--hard-prompt", "empty.txt"], "hard prompt empty.txt is empty"),
        (["train.csv", "--folder", "."], "exists and holds no comparison"),
        (["--resume", "nowhere"], "nowhere holds no comparison to go on with"),
        (["train.csv", "--resume", "nowhere"], "--resume was given with TASK"),
        (["--resume", "nowhere", "--seeds", "2", "--methods", "kv"], "--resume was given with --methods, --seeds"),
        (["--resume", "nowhere", "--limit", "3", "--json"], "nowhere holds no comparison to go on with"),
        (["train.csv", "--seeds", "0"], "seeds 0 was asked"),
        (["train.csv", "--task-kind", "choise"], "kind 'choise' is not a kind of task"),
        (["train.csv", "--report", "x.pdf"], "a report is a page (.html) or Markdown (.md). Write --report x.html"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(
    cli: Any, make_csv: Any, arguments: list[str], message: str
) -> None:
    Path("train.csv").write_text(make_csv(rows=24).read_text())
    Path("empty.txt").write_text(" \n")
    answer = cli("compare", *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert not Path("comparisons").exists()


def test_a_folder_of_another_task_is_left_alone(cli: Any, make_csv: Any, toy_flags: list[str]) -> None:
    probe = ["--methods", "probe", *FAST, *toy_flags, "--folder", "mine"]
    assert cli("compare", make_csv(rows=24), *probe).code == 0
    refused = cli("compare", make_csv("other.csv", rows=24, seed=3), *probe)
    assert refused.code == 2
    assert "holds a comparison of" in refused.err


def test_hard_prompts_are_tried_kept_and_listed(cli: Any, make_csv: Any, toy_flags: list[str], tmp_path: Path) -> None:
    data = make_csv("kinds.csv", rows=30)
    file = tmp_path / "longer.txt"
    file.write_text("Text: {text}\nKind:")
    first = cli("prompt", "try", data, "--text", "Which kind?", "--rows", "20", *toy_flags, "--json").json
    second = cli("prompt", "try", data, "--file", file, "--rows", "20", *toy_flags, "--json").json
    for said in (first, second):
        required(SCHEMAS["prompt try"], said)
        score = said["draft"]["score"]
        assert len(said["wrong"]) == round(20 * (1 - score["value"]))
        assert said["scores"]["split"] == "train"
    assert second["best_before"]["text"] == "Which kind?"
    listed = cli("prompt", "list", "kinds", "--json").json["drafts"]
    assert [(d["number"], d["text"]) for d in listed] == [(1, "Which kind?"), (2, "Text: {text}\nKind:")]
    assert cli("prompt", "list", "others", "--json").json == {"drafts": []}
    assert "Which kind?" in cli("prompt", "list").out
    shown = cli("prompt", "try", data, "--text", "Which kind?", "--rows", "20", *toy_flags)
    assert "draft 3 of kinds" in shown.out
    assert cli("library", "verify", "--json").json == {"problems": []}
    assert cli("library", "list", "--json").json == {"prompts": []}


def test_a_hard_prompt_that_cannot_be_tried(cli: Any, make_csv: Any, toy_flags: list[str]) -> None:
    data = make_csv(rows=20)
    assert "one of them" in cli("prompt", "try", data).err
    assert "is empty" in cli("prompt", "try", data, "--text", " ", *toy_flags).err
    assert "not a kind of task" in cli("prompt", "try", data, "--text", "Which?", "--task-kind", "x", *toy_flags).err
    unknown = cli("prompt", "try", data, "--text", "{text} of {title}:", *toy_flags)
    assert unknown.code == 2
    assert "{title}" in unknown.err
    Path("library").mkdir()
    Path("library/.hard_prompts.jsonl").write_text("{}\n")
    assert "line 1 of library/.hard_prompts.jsonl" in cli("prompt", "list").err


def test_wrong_answers_are_those_that_the_task_takes_for_wrong(cli: Any, toy_flags: list[str], tmp_path: Path) -> None:
    """Correct sets of labels were listed as wrong, since the data has its labels in another order than the answers."""
    data = tmp_path / "sets.jsonl"
    lines = [json.dumps({"text": f"cloth {n}", "tags": ["red", "blue"] if n % 2 else ["blue", "red"]}) for n in range(12)]
    data.write_text("\n".join(lines))
    said = cli("prompt", "try", data, "--text", "Which?", "--rows", "12", *toy_flags, "--json").json
    exact = said["scores"]["subset_accuracy"]["value"]
    assert len(said["wrong"]) == round(12 * (1 - exact))
    assert {wrong["truth"] for wrong in said["wrong"]} <= {"blue, red"}


def test_the_best_draft_before_is_the_nearest_one(cli: Any, toy_flags: list[str], tmp_path: Path) -> None:
    """Of a mean error the draft with the highest was said to be the best."""
    data = tmp_path / "stars.toml"
    rows = "".join(f"review {n},{1 + n % 5}\n" for n in range(20))
    (tmp_path / "stars.csv").write_text(f"text,stars\n{rows}")
    data.write_text(
        'kind = "ordinal"\nmetric = "mae"\n[columns]\ntext = "text"\nlabel = "stars"\n[data]\ntrain = "stars.csv"\n'
    )
    command = ["prompt", "try", data, "--rows", "20", *toy_flags, "--json"]
    assert cli(*command, "--text", "How many stars?").code == 0
    book = Path("library/.hard_prompts.jsonl")
    first = json.loads(book.read_text())
    worse, better = (
        {**first, "text": text, "score": {**first["score"], "value": v}} for text, v in (("w", 4.0), ("b", 0.0))
    )
    book.write_text("".join(json.dumps(draft) + "\n" for draft in (worse, better)))
    assert cli(*command, "--text", "Stars?").json["best_before"]["text"] == "b"
