"""Several tasks together, from the command line: each beside its plain prompt, a start for new tasks, which are alike."""

from pathlib import Path
from typing import Any

import pytest

from epigraph.library import Library

QUICK = ["--epochs", "1", "--batch", "8", "--rate", "0.1", "--length", "2"]


@pytest.fixture
def files(make_csv: Any) -> list[Path]:
    return [make_csv("one.csv", rows=24), make_csv("two.csv", rows=24, seed=1, labels=("low", "high", "metal"))]


@pytest.mark.parametrize("form", ["kv", "token"])
def test_task_prompts_and_a_universal_one_are_stored_plain_and_a_new_task_starts_there(
    form: str, cli: Any, toy_flags: list[str], files: list[Path], make_csv: Any
) -> None:
    flags = [*toy_flags, *QUICK, "--form", form, "--transfer", "4", "--picture", "alike.svg", "--json"]
    answer = cli("multitask", *files, *flags)
    assert answer.code == 0, answer.err
    found = answer.json
    assert [one["prompt"] for one in found["tasks"]] == ["one@1", "two@1"]
    assert found["universal"] == "universal@1"
    assert all(one["plain"]["rows"] == one["scores"]["rows"] for one in found["tasks"])
    assert found["similarity"]["gain"][0][0] is None
    assert isinstance(found["similarity"]["gain"][0][1], float)
    assert Path("alike.svg").read_text().startswith("<svg")
    library = Library(Path("library"))
    assert {library.card(name).form for name in ("one", "two", "universal")} == {"KeyValue" if form == "kv" else "Embedded"}
    assert len(cli("predict", "two", "aa a", "--json", *toy_flags).lines[0]["probabilities"]) == 3
    new = cli("tune", make_csv("new.csv", rows=8), "--from", "universal", "--kind", form, *toy_flags, *QUICK, "--json")
    assert new.code == 0, new.err
    assert library.card("new").lineage.parents == ("universal@1",)
    refused = cli("predict", "universal", "a", *toy_flags)
    assert refused.code == 2
    assert "--from universal" in refused.err


@pytest.mark.parametrize("kind", ["mixture", "spot", "average"])
def test_the_other_kinds(kind: str, cli: Any, toy_flags: list[str], files: list[Path]) -> None:
    answer = cli("multitask", *files, "--kind", kind, *toy_flags, *QUICK, "--transfer", "0", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["universal"] == ("" if kind == "mixture" else "universal@1")
    assert answer.json["similarity"]["gain"] is None
    card = Library(Path("library")).card("one")
    assert (card.form, card.kind) == (("Dependent", "mixture") if kind == "mixture" else ("KeyValue", "kv"))
    assert cli("evaluate", "one", "--data", files[0], "--json", *toy_flags).code == 0


def test_an_interrupted_one_goes_on(
    cli: Any, toy_flags: list[str], files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from epigraph.multitask import training

    flags = [*toy_flags, *QUICK, "--transfer", "0", "--json"]
    whole = cli("multitask", *files, *flags, "--library", "other").json
    step = training.Together.step

    def stop(self: Any, number: int) -> float:
        if number == 1:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(training.Together, "step", stop)
    answer = cli("multitask", *files, *flags)
    assert answer.code == 130
    monkeypatch.undo()
    hint = answer.json["error"]["hint"]
    folder = hint.split("--resume ")[1].split(" --library")[0]
    later = cli("multitask", "--resume", folder, "--json")
    assert later.code == 0, later.err
    assert [one["scores"] for one in later.json["tasks"]] == [one["scores"] for one in whole["tasks"]]


def test_bad_input_ends_with_one_line(cli: Any, toy_flags: list[str], files: list[Path]) -> None:
    cases: list[tuple[list[Any], str]] = [
        ([files[0]], "1 task was given"),
        ([files[0], files[0]], "two prompts would be called 'one'"),
        ([*files, "--name", "two"], "two prompts would be called 'two'"),
        ([*files, "--kind", "pool"], "kind 'pool' is none of several tasks"),
        ([*files, "--transfer", "2"], "transfer on 2 rows was asked"),
        ([*files, "--resume", "x"], "both tasks and --resume were given"),
    ]
    for arguments, message in cases:
        answer = cli("multitask", *arguments, *toy_flags, *QUICK)
        assert (answer.code, message in answer.err) == (2, True), answer.err
    assert not Path("library").exists()
    alone = cli("tune", files[0], "--kind", "mixture", *toy_flags)
    assert (alone.code, "epigraph multitask" in alone.err) == (2, True)
