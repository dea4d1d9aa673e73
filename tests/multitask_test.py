"""Several tasks together, from the command line: each beside its plain prompt, a start for new tasks, which are alike."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epigraph.base import Base
from epigraph.config import TuneConfig
from epigraph.engine import Engine
from epigraph.library import Library
from epigraph.multitask.settings import MultitaskConfig
from epigraph.multitask.workshop import Workshop
from epigraph.tasks.task import Task
from epigraph.tuning.choices import choose

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

    with monkeypatch.context() as patched:
        patched.setattr(training.Together, "step", stop)
        answer = cli("multitask", *files, *flags)
    assert answer.code == 130
    hint = answer.json["error"]["hint"]
    folder = hint.split("--resume ")[1].split(" --library")[0]
    later = cli("multitask", "--resume", folder, "--json")
    assert later.code == 0, later.err
    assert Library(Path("library")).card("one").settings["dtype"] == "float32", (
        "it went on in the dtype that it was begun in"
    )
    again = cli("multitask", "--resume", folder)
    assert (again.code, "is finished: its prompts are one@1, two@1" in again.err) == (2, True)
    flags = cli("multitask", "--resume", folder, "--form", "token")
    assert (flags.code, "--resume was given with --form" in flags.err) == (2, True)
    assert [one["scores"] for one in later.json["tasks"]] == [one["scores"] for one in whole["tasks"]]


def test_changed_test_rows_are_noticed_when_it_goes_on(
    cli: Any, toy_flags: list[str], files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only training rows were compared: scores of the plain prompts were of one test set and those beside them of another."""
    folders = []
    for file in files:
        folders.append(tmp_path / "sets" / file.stem)
        folders[-1].mkdir(parents=True)
        for part in ("train", "test"):
            (folders[-1] / f"{part}.csv").write_text(file.read_text())

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("epigraph.multitask.workshop.tune", stop)
        answer = cli("multitask", *folders, *toy_flags, *QUICK, "--transfer", "0", "--json")
    assert answer.code == 130
    folder = answer.json["error"]["hint"].split("--resume ")[1].split(" --library")[0]
    tests = folders[1] / "test.csv"
    tests.write_text("\n".join(tests.read_text().splitlines()[:-1]) + "\n")
    refused = cli("multitask", "--resume", folder)
    assert refused.code == 2
    assert f"cannot be resumed: the test rows of task '{folders[1].name}' are not what they were" in refused.err


def test_bad_input_ends_with_one_line(cli: Any, toy_flags: list[str], files: list[Path], tmp_path: Path) -> None:
    sets = tmp_path / "sets.jsonl"
    sets.write_text("".join(f'{{"text": "aa {i}", "labels": ["low", "high"]}}\n' for i in range(12)))
    cases: list[tuple[list[Any], str]] = [
        ([files[0]], "1 task was given"),
        ([files[0], files[0]], "two prompts would be called 'one'"),
        ([*files, "--name", "two"], "two prompts would be called 'two'"),
        ([*files, "--kind", "pool"], "kind 'pool' is none of several tasks"),
        ([*files, "--transfer", "2"], "transfer on 2 rows was asked"),
        ([*files, "--resume", "x"], "both tasks and --resume were given"),
        ([*files, "--ensemble", "2"], "an ensemble of 2 was asked for tasks together"),
        ([*files, "--start", "prompt:x"], "start 'prompt:x' was asked for tasks together"),
        ([files[0], sets], "task 'sets' is multilabel, which has no loss in one pass with other tasks"),
    ]
    for arguments, message in cases:
        answer = cli("multitask", *arguments, *toy_flags, *QUICK)
        assert (answer.code, message in answer.err) == (2, True), answer.err
    assert not Path("library").exists()
    alone = cli("tune", files[0], "--kind", "mixture", *toy_flags)
    assert (alone.code, "epigraph multitask" in alone.err) == (2, True)


def test_all_prompts_have_one_length_and_stay_soft(toy: Base, tmp_path: Path) -> None:
    """Answers had 16 vectors and labels 8, or a hard prompt's own number: they could not be averaged, nor mixed."""
    labels = Task.from_rows([f"text {i}" for i in range(8)], ["up", "down"] * 4, name="labels")
    said = Task.from_rows([f"say {i}" for i in range(8)], [f"said {i}" for i in range(8)], name="said", kind="generation")
    config = MultitaskConfig(kind="average", tune=TuneConfig(keep="better"))
    choices = [choose(replace(config.tune, kind=config.form), task, 8) for task in (labels, said)]
    shop = Workshop(
        engine=Engine(toy, keep=False),
        folder=tmp_path,
        config=config,
        tasks=[labels, said],
        choices=choices,
        parts=[],
        sources=[],
    )
    assert [one.length for one in choices] == [8, 16]
    assert (shop.single.length, shop.single.keep, shop.single.kind) == (16, "soft", "kv")


def test_prompts_are_served_as_they_were_measured(cli: Any, toy_flags: list[str], make_csv: Any) -> None:
    """Scores were measured without the calibration with which the stored prompt answers, and costs were the plain prompt's."""
    test, tasks = make_csv("test.csv", rows=8, seed=7), []
    for seed, name in enumerate(("left", "right")):
        train = make_csv(f"{name}.csv", rows=16, seed=seed)
        tasks.append(train.with_suffix(".toml"))
        tasks[-1].write_text(f'[data]\ntrain = "{train.name}"\ntest = "{test.name}"\n')
    flags = [*toy_flags, *QUICK, "--transfer", "0", "--calibrate", "contextual"]
    answer = cli("multitask", *tasks, *flags, "--json")
    assert answer.code == 0, answer.err
    card = Library(Path("library")).card("left")
    assert card.settings["calibration"]["how"] == "contextual"
    assert card.cost["tasks"] == 2
    served = cli("evaluate", "left", "--data", test, "--json", *toy_flags).json["scores"]
    assert served["accuracy"] == card.scores["accuracy"]
