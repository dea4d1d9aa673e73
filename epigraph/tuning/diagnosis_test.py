"""Every known failure, planted, is found; a healthy tuning has none."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epigraph.base.toy import toy_base
from epigraph.config import TuneConfig
from epigraph.engine import Engine
from epigraph.methods.hard import instruction_in_place
from epigraph.metrics import Interval
from epigraph.tasks.row import Row, Split
from epigraph.tasks.task import Task
from epigraph.tuning import Surroundings, tune
from epigraph.tuning.data import Parts
from epigraph.tuning.diagnosis import Answers, Training, diagnose, diagnose_rows, odd_labels
from epigraph.tuning.loop import Moment

TEXTS = [f"text number {i}" for i in range(20)]
TASK = Task.from_rows(TEXTS, ["good", "bad"] * 10, template="{text}{prompt}\nIs:")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_base(), keep=False)


def parts_of(task: Task, final: list[Row] | None = None) -> Parts:
    rows = list(task.train.rows)
    return Parts(train=rows[4:], validation=rows[:4], final=final or [], split="test", warnings=[])


def found_in(engine: Engine, task: Task, final: list[Row] | None = None) -> list[str]:
    return diagnose_rows(instruction_in_place(engine, task, 8), parts_of(task, final))


HALVES = ["good", "bad"] * 20
LEARNS = Training(losses=[0.7, 0.5, 0.3], growth=1.5, rollbacks=0, rate=0.1)
RIGHT = Answers(given=HALVES, truth=HALVES, gain=Interval(0.3, 0.1, 0.5), split="validation", labels=True, kept=True)


def test_a_healthy_tuning_has_none(engine: Engine) -> None:
    assert diagnose(LEARNS, RIGHT) == []
    assert found_in(engine, TASK, [Row(fields={"text": "something else"}, target="good")]) == []


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        (
            {"losses": [0.7, 0.9, 1.4], "growth": 9.0},
            "the learning rate is too high: the training loss rose from 0.70 to 1.40",
        ),
        ({"rollbacks": 3}, "the learning rate is too high: 3 times the loss was not finite"),
        ({"losses": [0.7, 0.7, 0.699], "growth": 1.001}, "the learning rate is too low"),
    ],
)
def test_a_wrong_rate_is_named_with_a_better_one(planted: dict[str, Any], said: str) -> None:
    (warning,) = diagnose(replace(LEARNS, **planted), RIGHT)
    assert said in warning
    assert "Tune with --rate" in warning


def test_a_rate_that_is_planted_is_found(engine: Engine) -> None:
    """In a real tuning: at a rate of nothing the prompt does not move."""
    found = tune(engine.base, TASK, TuneConfig(rate=1e-9, epochs=4, length=2, budget="1", validation=0.2), engine=engine)
    assert any("the learning rate is too low" in warning for warning in found.warnings)


def test_a_failure_is_told_on_the_way_and_once(engine: Engine, tmp_path: Path) -> None:
    """It was said when all time was spent; and a resumed tuning repeated what it had said."""
    notes, steps = list[str](), list[int]()

    def stop(moment: Moment) -> None:
        steps.append(moment.step)
        if any("too low" in note for note in notes) and len(steps) < 1000:
            steps.extend(range(1000))
            raise KeyboardInterrupt

    config = TuneConfig(rate=1e-9, epochs=6, length=2, batch=8, budget="1", validation=0.2, keep="soft")
    task = replace(TASK, train=Split(rows=(*TASK.train.rows, replace(TASK.train.rows[0], fields={"text": "x " * 3000}))))
    with pytest.raises(KeyboardInterrupt):
        tune(engine.base, task, config, engine=engine, around=Surroundings(runs=tmp_path, listener=stop, note=notes.append))
    early = [note for note in notes if "the learning rate is too low" in note]
    assert len(early) == 1
    assert re.match(r"warning: at step \d+ of \d+: the learning rate is too low", early[0])
    assert any("shortened" in note for note in notes)
    (folder,) = tmp_path.iterdir()
    again = list[str]()
    result = tune(engine.base, task, config, engine=engine, around=Surroundings(resume=folder, note=again.append))
    assert not [note for note in again if "warning" in note]
    assert any("the learning rate is too low" in warning for warning in result.warnings)


def test_answers_of_one_label_and_gains_of_noise_are_named() -> None:
    (warning,) = diagnose(LEARNS, replace(RIGHT, given=["good"] * 40))
    assert "answers 'good' to 40 of 40 validation rows, of which 20 are" in warning
    (warning,) = diagnose(LEARNS, replace(RIGHT, gain=Interval(0.02, -0.05, 0.09)))
    assert "within the noise of 40 validation rows (-0.050 to +0.090)" in warning
    skewed = ["good"] * 38 + ["bad"] * 2
    assert diagnose(LEARNS, replace(RIGHT, given=["good"] * 40, truth=skewed)) == []


def test_rows_that_train_and_test(engine: Engine) -> None:
    final = [
        Row(fields={"text": "text number 7"}, target="bad", line=3),
        Row(fields={"text": " Text  number 8"}, target="good", line=9),
        Row(fields={"text": "another"}, target="good", line=4),
    ]
    exact, loose = found_in(engine, TASK, final)
    assert exact.startswith("1 of 3 test rows also train (lines 3)")
    assert loose.startswith("1 of 3 test rows also train but for case and spaces (lines 9)")


def test_labels_that_are_free_text(engine: Engine) -> None:
    task = Task.from_rows(
        TEXTS, [f"answer {i}" for i in range(18)] + ["answer 0", "answer 1"], template="{text}{prompt}\nIs:"
    )
    assert any("look like free text: 18 different ones in 20 rows" in warning for warning in found_in(engine, task))


def test_answers_that_are_cut_off(engine: Engine) -> None:
    long = [f"{'word ' * 400}the answer is {i}" for i in range(20)]
    labelled = Task.from_rows(long, ["good", "bad"] * 10, template="{text}{prompt}\nIs:")
    assert any("20 of 20 rows were shortened at their end" in warning for warning in found_in(engine, labelled))
    answers = [f"is {i}" for i in range(20)]
    written = Task.from_rows(long, answers, kind="generation", template="{text}{prompt}\nIs:")
    assert any(
        "20 of 20 rows were shortened so that the answer is no longer in them" in w for w in found_in(engine, written)
    )


@pytest.mark.parametrize(("rate", "warned"), [(1e-9, True), (0.05, False)])
def test_offsets_from_a_context_are_seen_to_move(engine: Engine, rate: float, warned: bool) -> None:
    """They begin at nothing, and growth was 1.0 wherever they went: every flat loss was blamed on too low a rate."""
    config = TuneConfig(kind="context", rate=rate, epochs=3, length=96, budget="1", validation=0.2)
    found = tune(engine.base, TASK, config, engine=engine)
    assert any("the learning rate is too low" in warning for warning in found.warnings) is warned


class Spelling:
    """A base that reads words of a vocabulary whole and all else letter by letter."""

    def __init__(self, words: set[str]) -> None:
        self.words, self.seen = words, [""]

    def tokenize(self, text: str) -> list[int]:
        pieces = [p for word in text.split() for p in ([f" {word}"] if word in self.words else [" ", *word])]
        return [self._number(piece) for piece in pieces]

    def _number(self, piece: str) -> int:
        if piece not in self.seen:
            self.seen.append(piece)
        return self.seen.index(piece)

    def detokenize(self, ids: Sequence[int]) -> str:
        return "".join(self.seen[i] for i in ids)


def spelled(words: set[str], labels: list[str]) -> list[str]:
    base = Spelling({"text", "number", *map(str, range(20)), *words})
    return list(odd_labels(base, {label: f" {label}" for label in labels}, TEXTS))


def test_labels_that_the_base_splits_oddly() -> None:
    assert spelled({"good", "bad"}, ["good", "bad"]) == []
    odd, bare = spelled({"good"}, ["good", "xqzvk"])
    assert odd.startswith("the base splits labels into many pieces: 'xqzvk' in 6")
    assert bare.startswith("the base has no form of these labels behind a space: 'xqzvk'")
    words = {"a", "b", "c", "d", "one", "two"}
    assert any(
        "differ only in their last: 'a b c d one', 'a b c d two'" in w
        for w in spelled(words, ["a b c d one", "a b c d two"])
    )


def test_labels_are_looked_at_only_where_there_are_some(engine: Engine) -> None:
    written = Task.from_rows(TEXTS, TEXTS, kind="generation", template="{text}{prompt}\nIs:")
    assert found_in(engine, replace(written, train=Split(rows=written.train.rows))) == []
