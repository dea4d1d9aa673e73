"""Mistakes from the command line: found, exported, corrected, compared, taken back; what is private is named."""

import csv
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from epigraph.cli import main
from epigraph.compare.drafts import FILE as DRAFTS
from epigraph.correct.privacy import COMPARISONS, FIELDS, KEPT, OWN, check_privacy, embedded
from epigraph.jobs import RUNS
from epigraph.library import Library, Lineage
from epigraph.routing.shelf import FOLDER as ROUTER

LABELS = ("animal", "metal")
QUICK = ["--tolerance", "0.5", "--keep-rows", "40"]


def mixed(rows: int, seed: int) -> list[tuple[str, str]]:
    """Words of both labels' marks: some are answered wrong, whatever was learned."""
    draw = random.Random(seed)
    found = [" ".join("aZ"[draw.randrange(2)] * draw.randint(1, 5) for _ in range(3)) for _ in range(rows)]
    both = [text for text in dict.fromkeys(found) if {"a", "Z"} <= set(text)]
    return [(text, LABELS[i % 2]) for i, text in enumerate(both)]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, toy_folder: Path, toy_rows: Any, write_csv: Any) -> Path:
    """A folder with a library of moods@1, its train.csv, and test.csv with texts that it gets wrong."""
    parent = tmp_path_factory.mktemp("shelf")
    write_csv(parent / "train.csv", toy_rows(40))
    write_csv(parent / "test.csv", mixed(40, 1))
    asked = ["--epochs", "3", "--length", "2", "--rate", "0.3", "--batch", "8", "--library", str(parent / "library")]
    asked += ["--readings", "1", "--validation", "0.15", "--keep", "soft"]
    shared = ["--base", str(toy_folder), "--dtype", "float32"]
    assert main.run(["tune", str(parent / "train.csv"), "--name", "moods", *asked, *shared, "--json"]) == 0
    return parent


@pytest.fixture
def library(shelf: Path, cli: Any) -> Path:
    """A copy of the library in the working folder, where commands look for it."""
    return Path(shutil.copytree(shelf / "library", Path("library").absolute()))


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def write(file: Path, rows: Sequence[Sequence[str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows(rows)
    return file


def test_mistakes_are_found_corrected_compared_and_taken_back(
    cli: Any, library: Path, shelf: Path, toy_flags: list[str], tmp_path: Path
) -> None:
    sheet, page = tmp_path / "deep" / "corrections.csv", tmp_path / "mistakes.html"
    asked = ["--data", shelf / "test.csv", "--worst", "40", "--csv", sheet, "--report", page, "--json"]
    done = cli("errors", "moods", *asked, *toy_flags)
    assert done.code == 0, done.err
    found = done.json
    assert len(found["worst"]) == found["wrong"] >= 8
    losses = [one["loss"] for one in found["worst"]]
    assert losses == sorted(losses, reverse=True)
    assert sum(pair["rows"] for pair in found["pairs"]) == found["wrong"]
    assert sum(group["rows"] for group in found["similar"]) == len(found["worst"])
    assert found["trained_rows"] == 0, "no training row has both marks"
    assert "confident learning" in page.read_text(encoding="utf-8")
    rows = read(sheet)
    assert list(rows[0]) == ["text", "label", "answer", "probability", "suspicion"]
    assert [row["text"] for row in rows] == [one["fields"]["text"] for one in found["worst"]]
    learned = write(tmp_path / "two.csv", [list(rows[0]), *(list(row.values()) for row in rows[-2:])])
    done = cli("fix", "moods", learned, "--data", shelf / "test.csv", *QUICK, "--json", *toy_flags)
    assert done.code == 0, (done.out, done.err)
    fixed = done.json
    assert fixed["prompt"] == "moods@2"
    assert fixed["corrections"]["mastered"] >= 1
    assert "texts that the base wrote" in fixed["elsewhere"]["source"]
    assert fixed["held_out"]["rows"] == len(mixed(40, 1)) - 2
    card = cli("library", "show", "moods", "--json").json
    assert card["lineage"] == {"parents": ["moods@1"], "how": "fixed: 2 corrections"}
    differs = cli("library", "diff", "moods@1", "moods@2", "--data", shelf / "test.csv", "--json", *toy_flags)
    assert differs.code == 0, differs.err
    answers = differs.json["answers"]
    assert answers["changed"] == len(answers["differs"]) >= fixed["corrections"]["mastered"]
    assert answers["broken"] + answers["fixed"] + answers["otherwise"] == answers["changed"]
    assert 0 <= answers["p_mcnemar"] <= 1
    assert differs.json["similarity"]["cosine"] > 0.5
    assert "lineage.how" in {one["field"] for one in differs.json["card"]}
    assert "moods@2" in cli("library", "diff", "moods@1", "moods@2").out
    back = cli("library", "rollback", "moods", "--json").json
    assert back == {"prompt": "moods@3", "to": "moods@1", "before": "moods@2", "aliases": []}
    forms = [(library / "moods" / version / "prompt.safetensors").read_bytes() for version in "123"]
    assert forms[0] == forms[2] != forms[1]
    assert cli("library", "verify", "--json").json["problems"] == []
    texts = [row["text"].encode() for row in [*read(shelf / "train.csv"), *read(shelf / "test.csv")]]
    stored = [path for path in (library / "moods").rglob("*") if path.is_file()]
    assert not [path for path in stored if any(text in path.read_bytes() for text in texts if len(text) > 5)]


def test_tables_for_people(cli: Any, library: Path, shelf: Path, toy_flags: list[str], tmp_path: Path) -> None:
    faulty = write(
        tmp_path / "faulty.csv",
        [("text", "label"), *(list(row.values()) for row in read(shelf / "train.csv")), ("", "animal")],
    )
    done = cli("errors", "moods", "--data", faulty, "--worst", "3", *toy_flags)
    assert done.code == 0, done.err
    assert "1 rows of faulty.csv were skipped: line 42:" in done.err
    assert "rows are ones that the prompt was trained on" in done.err
    rows = mixed(40, 1)
    answers = [line["label"] for line in cli("predict", "moods", *(text for text, _ in rows), "--json", *toy_flags).lines]
    wrong = [(text, LABELS[1 - LABELS.index(said)]) for (text, _), said in zip(rows, answers, strict=True)][:1]
    file, keep = (
        write(tmp_path / "one.csv", [("text", "label"), *wrong]),
        write(tmp_path / "keep.csv", [["text"], *([t] for t, _ in rows)]),
    )
    done = cli("fix", "moods", file, "--keep", keep, *QUICK, *toy_flags)
    assert done.code in (0, 2)
    assert "other answers changed" in done.out
    assert "keep.csv" in done.out


def test_a_refusal_says_what_to_do_and_writes_nothing(
    cli: Any, library: Path, shelf: Path, toy_flags: list[str], tmp_path: Path
) -> None:
    """Texts that the base reads as the same one, since it reads no further: no step turns one of them alone."""
    long = "aa a ZZ " * 100
    file, keep = tmp_path / "one.csv", write(tmp_path / "keep.csv", [["text"], *([f"{long} {i}"] for i in range(10))])
    said = cli("predict", "moods", f"{long} x", "--json", *toy_flags).lines[0]["label"]
    write(file, [("text", "label"), (f"{long} x", LABELS[1 - LABELS.index(said)])])
    done = cli("fix", "moods", file, "--keep", keep, "--json", *toy_flags)
    assert done.code == 2
    assert done.json["prompt"] is None
    assert done.json["error"]["type"] == "Refused"
    assert "nothing was stored" in done.json["error"]["message"]
    assert "--tolerance" in done.json["error"]["hint"]
    assert done.err.count("error:") == 1
    assert [path.name for path in (library / "moods").iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["aa a", "metal"], ["ZZ Z", "metal"], ["aa  a", "animal"]], "lines 2 and 4 contradict each other"),
        ([["aa a", "metall"]], "the label 'metall' in line 2 is not one that the prompt knows"),
        ([], "has a header but no rows"),
        ([["aa a", ""]], "is empty in all 1 rows"),
    ],
)
def test_corrections_that_cannot_be_learned_are_named_by_their_lines(
    rows: list[list[str]], said: str, cli: Any, library: Path, toy_flags: list[str], tmp_path: Path
) -> None:
    file = write(tmp_path / "bad.csv", [["text", "label"], *rows])
    done = cli("fix", "moods", file, *toy_flags)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fix", "moods", "nowhere.csv"], "nowhere.csv"),
        (["fix", "nothing", "x.csv"], "there is no prompt 'nothing'"),
        (["fix", "moods", "x.csv", "--tolerance", "2"], "tolerance 2.0 was asked"),
        (["errors", "moods", "--data", "nowhere.csv"], "nowhere.csv"),
        (["library", "rollback", "moods"], "nothing before moods@1"),
        (["library", "rollback", "moods@1"], "is one version, which never changes"),
        (["library", "rollback", "moods", "--to", "7"], "there is no 'moods@7'"),
        (["library", "diff", "moods@1", "moods@7"], "there is no 'moods@7'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments: list[str], said: str, cli: Any, library: Path) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def test_going_back_twice_goes_back_twice_and_an_alias_goes_back_by_itself(cli: Any, library: Path) -> None:
    shelf = Library(library)
    for _ in range(2):
        stored = shelf.get("moods")
        lineage = Lineage(parents=(stored.card.reference,), how="fixed: 1 correction")
        shelf.add("moods", stored.forms, replace(stored.card, lineage=lineage))
    cli("library", "promote", "moods@3", "prod")
    back = cli("library", "rollback", "moods", "--json").json
    assert (back["prompt"], back["to"], back["aliases"]) == ("moods@4", "moods@2", ["moods@prod"])
    again = cli("library", "rollback", "moods", "--json").json
    assert (again["prompt"], again["to"]) == ("moods@5", "moods@1")
    assert "nothing before" in cli("library", "rollback", "moods").err
    done = cli("library", "rollback", "moods@prod", "--json").json
    assert (done["alias"], done["to"], done["before"]) == ("moods@prod", "moods@2", "moods@3")
    assert shelf.resolve("moods@prod") == ("moods", 2)
    assert cli("library", "rollback", "moods", "--to", "3").code == 0
    assert cli("library", "verify", "--json").json["problems"] == []


def test_what_could_hold_texts_is_named_file_by_file_and_field_by_field(cli: Any, library: Path) -> None:
    (library / DRAFTS).write_text("{}\n")
    (library / ".surprise").write_text("?")
    sequence = library / RUNS / "continual-x"
    sequence.mkdir(parents=True)
    (sequence / "replay.jsonl").write_text("{}\n")
    (sequence / "weights.safetensors").write_bytes(b"")
    nested = sequence / "separate" / "0-one" / "prompt" / "prompt.safetensors"
    nested.parent.mkdir(parents=True)
    nested.write_bytes(b"")
    (sequence / "separate" / "strange.bin").write_bytes(b"")
    Path(COMPARISONS, "task", "cells").mkdir(parents=True)
    found = cli("library", "verify", "--privacy", "--json").json
    where = {Path(one["where"]).name: one["holds"] for one in found["holdings"] if not one["field"]}
    assert where[DRAFTS] == "texts"
    assert where["replay.jsonl"] == "texts"
    assert where["weights.safetensors"] == "vectors"
    assert str(nested) in {one["where"] for one in found["holdings"]}
    assert where["cells"] == "answers"
    assert where[RUNS] == where["run.toml"] == "texts"
    assert where[".surprise"] == "texts"
    assert where["prompt.safetensors"] == "vectors"
    assert where["metrics.jsonl"] == "numbers"
    assert where["README.md"] == "names"
    fields = {one["field"] for one in found["holdings"] if one["prompt"] == "moods@1"}
    assert {"task.labels", "task.instruction", "task.template", "task.columns", "reasons", "lineage"} <= fields
    assert found["embeds"] == {}
    assert {"context", "examples", "text:"} <= set(found["kinds"])
    unknown = {Path(one["where"]).name for one in found["holdings"] if "look into it" in one["what"]}
    assert unknown == {".surprise", "strange.bin"}
    assert {RUNS, ROUTER, DRAFTS} == set(KEPT)
    student = replace(Library(library).get("moods").card, lineage=Lineage(how="distilled from moods@1"))
    assert embedded(student).startswith("a student of another prompt")
    averaged = replace(student, task={}, settings={"together": "average", "start": "examples"}, lineage=Lineage())
    assert "training rows" in embedded(averaged)
    kept = replace(student, settings={"verdict": "hard", "hard_prompt": "4-shot", "start": "text"}, lineage=Lineage())
    assert "training rows, which can be read off them exactly" in embedded(kept)
    assert "its words" in embedded(replace(kept, settings={"verdict": "hard", "hard_prompt": "instruction first"}))
    assert "no prompt here embeds texts" in cli("library", "verify", "--privacy", "moods").out
    assert cli("library", "verify", "nothing", "--privacy").code == 2


def test_what_a_corrected_prompt_came_from_is_told_when_it_alone_is_asked_for(library: Path) -> None:
    """Asked about one version, the parents were not looked at: a correction of a few-shot context seemed to hold no texts."""
    shelf = Library(library)
    stored = shelf.get("moods")
    card = replace(stored.card, settings={**stored.card.settings, "start": "examples"})
    began = shelf.add("reviews", stored.forms, card).reference
    later = replace(stored.card, lineage=Lineage(parents=(began,), how="fixed: 2 corrections"))
    fixed = shelf.add("answers", stored.forms, later).reference
    again = replace(stored.card, lineage=Lineage(parents=(fixed,), how="pruned"))
    last = shelf.add("actions", stored.forms, again).reference
    for reference in (fixed, last):
        found = check_privacy(library, reference)
        assert set(found.embeds) == {reference}
        assert "training rows" in found.embeds[reference]
        assert {one.prompt for one in found.holdings if one.prompt} == {reference}


def test_every_field_of_a_card_is_either_told_or_epigraphs_own(library: Path) -> None:
    """A field that is added must be put on one of the two lists."""
    card = asdict(Library(library).get("moods").card)
    fields = {*card, *(f"base.{name}" for name in card["base"]), *(f"task.{name}" for name in card["task"])} - {
        "base",
        "task",
    }
    told = set(FIELDS) - {name for name in FIELDS if name.startswith("settings.")}
    assert not told & set(OWN)
    assert fields <= told | set(OWN)
