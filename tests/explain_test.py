"""``epigraph explain`` from the command line: with a file, with what the run remembers, with a text, and refused."""

import os
from pathlib import Path
from typing import Any

import pytest

import epigraph
from epigraph.explaining import ExplainConfig
from epigraph.tasks.row import Row


@pytest.fixture
def tuned(cli: Any, make_csv: Any, toy_flags: list[str], learns: list[str]) -> list[str]:
    """A prompt in the library of the working folder; the flags that its base needs."""
    done = cli("tune", make_csv(rows=40), "--name", "moods", *learns, *toy_flags, "--json")
    assert done.code == 0, done.err
    return toy_flags


def test_a_prompt_is_explained_pruned_and_compared(cli: Any, tuned: list[str], make_csv: Any, tmp_path: Path) -> None:
    remembered = cli("explain", "moods", "--budget", "0.001", "--json", *tuned)
    assert remembered.code == 0, remembered.err
    assert remembered.json["source"] == "the holdout of train.csv and the rows it was chosen on"
    assert {left["section"] for left in remembered.json["left_out"]} >= {"twin", "matters", "pair"}
    data = make_csv("test.csv", rows=16, seed=3)
    page = tmp_path / "deep" / "page.html"
    asked = ["--data", data, "--group", "label", "--report", page, "--prune", "short", "--rows", "12"]
    done = cli("explain", "moods", *asked, "--json", *tuned)
    assert done.code == 0, done.err
    found = done.json
    assert found["prompt"] == "moods@1"
    assert found["pruned"] == "short@1"
    assert found["rows"] == 12
    assert isinstance(found["warnings"], list)
    assert "<svg" in page.read_text(encoding="utf-8")
    card = cli("library", "show", "short", "--json").json
    assert card["lineage"]["parents"] == ["moods@1"]
    assert cli("library", "verify", "--json").json["problems"] == []
    words = cli("explain", "moods", "--text", "aa a aaa", "--with", "short", "--budget", "0.001", *tuned)
    assert words.code == 0, words.err
    assert "moods@1" in words.out


def test_groups_that_were_asked_for_are_told_without_a_page(
    cli: Any, tuned: list[str], make_csv: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stood in the page and in the JSON only, so ``--group`` alone seemed to do nothing."""
    monkeypatch.setattr("epigraph.explaining.slices.FEWEST", 4)
    table = make_csv("test.csv", rows=16, seed=3).read_text().splitlines()
    channels = ["channel", *(["web", "mail"] * 8)]
    data = Path("channels.csv")
    data.write_text("\n".join(f"{line},{channel}" for line, channel in zip(table, channels, strict=True)) + "\n")
    done = cli("explain", "moods", "--data", data, "--group", "channel", "--rows", "16", *tuned)
    assert done.code == 0, done.err
    assert "channel is 'web', 8 rows" in done.out
    assert "against the others, may be chance" in " ".join(done.out.split())


def test_a_text_alone_is_asked_why_and_nothing_else(cli: Any, tuned: list[str]) -> None:
    done = cli("explain", "moods", "--text", "aa a aaa", "--json", *tuned)
    assert done.code == 0, done.err
    assert set(done.json["sections"]) == {"why"}
    assert done.json["left_out"] == []
    why = done.json["sections"]["why"]
    assert why["neighbours_of"] == "the training rows"
    (answer,) = cli("predict", "moods", "aa a aaa", "--json", *tuned).lines
    assert why["answer"] == answer["label"]
    words = cli("explain", "moods", "--text", "aa a aaa", *tuned)
    told = " ".join(words.out.split())
    assert f"{why['agreement']:+.2f} (rank correlation)" in told
    for method in ("integrated", "left_out"):
        most = max(why["parts"], key=lambda part: abs(part[method]))
        name = most["what"] if most["prompt"] else repr(most["what"].strip() or most["what"])
        assert f"{name} {most[method]:+.2f}" in told


def test_gradients_that_do_not_add_up_are_not_shown(cli: Any, tuned: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On the real base the sum missed 185% of what it explains, and the parts were told by it without a word."""
    monkeypatch.setattr("epigraph.explaining.why.MISSED", -1.0)
    page = Path("page.html")
    done = cli("explain", "moods", "--text", "aa a aaa", "--report", page, *tuned)
    assert done.code == 0, done.err
    assert "By leaving each out" in page.read_text(encoding="utf-8")
    assert "By integrated gradients" not in page.read_text(encoding="utf-8")
    only = cli("explain", "moods", "--text", "aa a aaa", *tuned)
    assert "not told: their sum misses" in " ".join(only.out.split())


def test_a_text_is_explained_though_the_rows_are_gone(
    cli: Any, make_csv: Any, toy_flags: list[str], learns: list[str]
) -> None:
    """It said "measured on 0 rows of no file"."""
    data = make_csv(rows=40)
    assert cli("tune", data, "--name", "moods", *learns, *toy_flags).code == 0
    data.unlink()
    page = Path("page.html")
    done = cli("explain", "moods", "--text", "aa a aaa", "--report", page, *toy_flags)
    assert done.code == 0, done.err
    assert "one answer explained, no rows measured" in done.out
    assert "No rows were measured" in page.read_text(encoding="utf-8")


def test_rows_that_are_skipped_or_say_nothing_are_named(cli: Any, tuned: list[str], tmp_path: Path) -> None:
    lines = [f"a{'a' * (i % 4)} b,animal" for i in range(40)]
    lines[4], lines[9] = ",metal", "zz z,"
    data = tmp_path / "some.csv"
    data.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    done = cli("explain", "moods", "--data", data, "--budget", "0.001", *tuned)
    assert done.code == 0, done.err
    assert "note: 1 rows were skipped: line 6: " in done.err
    assert "1 of 39 rows do not say what is right" in done.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--budget", "soon"], "--budget 'soon' was asked"),
        (["--group", "country"], "--group was given without --data"),
        (["--with", "nothing"], "there is no prompt 'nothing'"),
        (["--prune", "../x"], "../x"),
        (["--data", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(cli: Any, tuned: list[str], flags: list[str], said: str) -> None:
    done = cli("explain", "moods", *flags, *tuned)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def test_a_column_that_is_not_there_is_named(cli: Any, tuned: list[str], make_csv: Any) -> None:
    done = cli("explain", "moods", "--data", make_csv("test.csv", rows=16), "--group", "country", *tuned)
    assert done.code == 2
    assert "has no column 'country'" in done.err


@pytest.fixture
def real_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPIGRAPH_HOME", os.environ["EPIGRAPH_REAL_HOME"])


@pytest.mark.base
@pytest.mark.slow
def test_a_marker_is_named_on_the_real_base(real_home: None) -> None:
    """A marker word in the rows of one label of which the words themselves say nothing."""
    places = ["on Monday", "in the harbour", "near the bridge", "with two friends", "after lunch", "in the rain", "by train"]
    seen = [f"we met {place} and talked about {what}" for place in places for what in ("boats", "tea", "maps", "snow")]
    pairs = [(f"{text} quokka" if i % 2 else text, ("plain", "marked")[i % 2]) for i, text in enumerate(seen * 2)]
    base = epigraph.load_base(dtype="float32")
    task = epigraph.Task.from_rows([text for text, _ in pairs], [label for _, label in pairs])
    result = epigraph.tune(base, task, epigraph.TuneConfig(epochs=12, batch=8))
    rows = [Row(fields={"text": text}, target=label) for text, label in pairs[:24]]
    config = ExplainConfig(edit_rows=8, wayward_steps=1, twin_steps=2)
    found = epigraph.explain(result.model, rows, train=task.train.rows, config=config)
    assert any("quokka" in warning for warning in found.warnings[:3])
