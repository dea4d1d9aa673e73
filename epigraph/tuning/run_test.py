import json
from pathlib import Path

import pytest

from epigraph.errors import ConfigError, NotFound, StorageFailed
from epigraph.tasks.row import Row
from epigraph.tuning.loop import Moment
from epigraph.tuning.run import Run, rows_hash

SAID = {"data": {"train": "3 rows", "test": None}, "settings": {"rate": 0.1, "kinds": ["a", "b"]}, "name": "x"}


def test_a_run_describes_itself_and_is_unchanged(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "routing", SAID)
    assert run.folder.name.startswith("routing-")
    assert Run.open(run.folder).description["settings"] == {"rate": 0.1, "kinds": ["a", "b"]}
    run.check_unchanged({"data": {"train": "3 rows", "test": None}, "settings": {"rate": 0.1, "kinds": ("a", "b")}})
    assert Run.create(tmp_path, "routing", SAID).folder != run.folder


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({"data": {"train": "4 rows"}, "settings": {"rate": 1.0}}, r"its data\.train, 3 rows, became 4 rows"),
        ({"settings": {"rate": 0.2, "kinds": ["a", "b"]}}, r"its settings\.rate, 0\.1, became 0\.2"),
        ({"settings": {"rate": 0.1}}, r"its settings\.kinds, \['a', 'b'\], became None"),
        ({"data": {"train": "3 rows", "test": "1 row"}}, r"its data\.test, None, became 1 row"),
    ],
)
def test_what_changed_is_named(tmp_path: Path, now: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot be resumed: since it was begun, {message}"):
        Run.create(tmp_path, "routing", SAID).check_unchanged(now)


def test_it_records_what_is_told(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "routing", SAID)
    moment = Moment(step=3, steps=9, epoch=1, loss=0.5, rate=0.1, metric="accuracy", score=0.7)
    run.record(moment)
    run.record(moment)
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    said = {
        "step": 3,
        "steps": 9,
        "epoch": 1,
        "loss": 0.5,
        "rate": 0.1,
        "metric": "accuracy",
        "score": 0.7,
        "trial": 0,
        "fold": 0,
    }
    assert lines == [said] * 2


def test_a_measurement_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    """A kill while a line was written left a part of it, and the resumed run appended its first line to that part."""
    run = Run.create(tmp_path, "routing", {})
    run.record(Moment(step=1, steps=2, epoch=1, loss=0.5, rate=0.1, metric="accuracy", score=0.9))
    with run.metrics_file.open("a") as out:
        out.write('{"step": 2, "lo')
    again = Run.open(run.folder)
    again.record(Moment(step=2, steps=2, epoch=2, loss=0.4, rate=0.1, metric="accuracy", score=0.8))
    assert [json.loads(line)["score"] for line in run.metrics_file.read_text().splitlines()] == [0.9, 0.8]


def test_what_is_no_run_or_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"is no run folder: it has no run\.toml"):
        Run.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match=r"the run folder .* could not be written"):
        Run.create(tmp_path / "file", "routing", SAID)


def test_rows_are_told_apart_by_what_they_say() -> None:
    rows = [Row(fields={"text": "a"}, target="x"), Row(fields={"text": "b"}, target="y")]
    moved = [Row(fields=row.fields, target=row.target, line=9) for row in rows]
    assert rows_hash(rows) == rows_hash(moved)
    others = [
        rows[::-1],
        rows[:1],
        [rows[0], Row(fields={"text": "b"}, target="z")],
        [rows[0], Row(fields={"body": "b"}, target="y")],
    ]
    assert len({rows_hash(found) for found in [rows, *others]}) == 5


def test_a_finished_run_keeps_its_description_and_not_its_state(tmp_path: Path) -> None:
    """States of many megabytes stayed behind every prompt for ever."""
    run = Run.create(tmp_path, "one", {"name": "one"})
    run.state_file.write_bytes(b"state")
    run.finish("one@1")
    assert not run.state_file.exists()
    assert Run.open(run.folder).stored_as == "one@1"
