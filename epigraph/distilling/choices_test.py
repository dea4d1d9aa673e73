"""What distilling chooses by itself."""

import pytest

from epigraph.distilling.choices import choose
from epigraph.distilling.session import MOST_VALIDATION, divide
from epigraph.distilling.settings import DistillConfig
from epigraph.errors import ConfigError
from epigraph.prompts import KINDS
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task


@pytest.fixture
def task() -> Task:
    """A task of two labels."""
    return Task.from_rows(["a b", "c d"] * 4, ["good", "bad"] * 4)


@pytest.mark.parametrize("kind", ["kv", "sink"])
def test_keys_and_values_learn_more_slowly_than_in_a_tuning(kind: str, task: Task) -> None:
    """At the rate of ``tune`` the student learned the soft labels of 255 texts by heart: kappa .547 on others, .637 at a fifth of it."""
    found = choose(DistillConfig(kind=kind), task, 255)
    assert found.loop.rate == 0.02 < KINDS[kind].default_rate
    assert "below that of tune" in found.reasons["rate"]
    asked = choose(DistillConfig(kind=kind, rate=0.3), task, 255)
    assert (asked.loop.rate, "rate" in asked.reasons) == (0.3, False)


def test_other_kinds_keep_their_rate(task: Task) -> None:
    assert choose(DistillConfig(kind="token"), task, 255).loop.rate == KINDS["token"].default_rate


@pytest.mark.parametrize(("texts", "epochs"), [(8, 20), (300, 20), (1000, 6), (1500, 4), (4000, 4)])
def test_the_more_texts_the_fewer_passes(texts: int, epochs: int, task: Task) -> None:
    assert choose(DistillConfig(), task, texts).loop.epochs == epochs


def test_of_many_texts_nearly_all_are_learned_from() -> None:
    """Of 4,000 texts 600 were read after every pass to see whether it should stop."""
    rows = [Row(fields={"text": f"text {i}"}) for i in range(4000)]
    train, validation, held = divide(rows, rows[:3], DistillConfig())
    assert (len(train), len(validation), len(held)) == (4000 - MOST_VALIDATION, MOST_VALIDATION, 3)
    train, validation, held = divide(rows[:100], (), DistillConfig())
    assert (len(train), len(validation), len(held)) == (68, 12, 20)


@pytest.mark.parametrize(
    ("asked", "before", "start"),
    [
        ({}, 1000, "matched"),
        ({"start": "text"}, 1000, "text"),
        ({}, 0, "text"),  # the teacher is no base, or another
        ({}, 16, "text"),  # nothing to compress
        ({"place": "last"}, 1000, "text"),
        ({"kind": "token"}, 1000, "text"),
    ],
)
def test_what_the_teacher_reads_is_matched_where_it_can_be(
    asked: dict[str, str], before: int, start: str, task: Task
) -> None:
    found = choose(DistillConfig(**asked), task, 100, before=before)  # type: ignore[arg-type]
    assert found.start == found.to_dict()["start"] == start
    assert found.reasons["start"].startswith(start)
    near = start == "matched"
    assert (found.states, "states" in found.reasons) == ((1.0, True) if near else (0.0, False))
    assert (found.loop.rate == 0.005) == near


def test_matching_that_cannot_be_is_refused(task: Task) -> None:
    with pytest.raises(ConfigError, match="start 'matched' was asked"):
        choose(DistillConfig(start="matched", place="last"), task, 100, before=1000)
