import pytest

from epigraph.config import TuneConfig
from epigraph.errors import ConfigError, TaskError, Unsupported
from epigraph.prompts import KINDS
from epigraph.tasks.task import Task
from epigraph.tuning.choices import FEWEST_EPOCHS, MOST_EPOCHS, choose

TASK = Task.from_rows([f"text {i}" for i in range(8)], ["good", "bad"] * 4, template="Say: {text}{prompt}\nLabel:")


def test_what_is_not_asked_is_chosen_with_a_reason() -> None:
    choices = choose(TuneConfig(), TASK, 100)
    assert (choices.kind, choices.place, choices.length) == ("kv", "template", 8)
    assert choices.loop.rate == KINDS["kv"].default_rate
    assert set(choices.reasons) == {"readings", "length", "batch", "epochs", "rate", "place"}


def test_what_is_asked_is_obeyed_and_needs_no_reason() -> None:
    asked = TuneConfig(kind="token", length=3, place="first", epochs=2, rate=0.5, batch=4, readings=1)
    choices = choose(asked, TASK, 100)
    found = choices.to_dict()
    assert found["template"] == "{prompt}Say: {text}\nLabel:"
    assert [found[name] for name in ("kind", "length", "place", "epochs", "rate", "batch")] == [
        "token",
        3,
        "first",
        2,
        0.5,
        4,
    ]
    assert choices.reasons == {}


def test_short_rows_are_read_twice_where_answers_are_labels() -> None:
    short, long = ["some words"] * 8, ["many words, " * 50] * 8
    labels = ["good", "bad"] * 4
    twice = choose(TuneConfig(), Task.from_rows(short, labels), 8)
    assert (twice.readings, twice.task.template.text) == (2, "{text}\n{text}\nLabel{prompt}:")
    assert "every token sees the whole row" in twice.reasons["readings"]
    once = {
        "are long": choose(TuneConfig(), Task.from_rows(long, labels), 8),
        "your own": choose(TuneConfig(), TASK, 8),
        "before the prompt": choose(TuneConfig(place="first"), Task.from_rows(short, labels), 8),
        "every step": choose(TuneConfig(), Task.from_rows(short, labels), 8, plain="ALiBi"),
    }
    for why, choices in once.items():
        assert choices.readings == 1
        assert why in choices.reasons["readings"]
    asked = choose(TuneConfig(readings=2), TASK, 8)
    assert asked.task.template.text == "Say: {text}\n{text}{prompt}\nLabel:"


def test_portable_is_a_token_prompt_that_stands_first() -> None:
    choices = choose(TuneConfig(portable=True), TASK, 100)
    assert (choices.kind, choices.place) == ("token", "first")
    assert not choices.task.template.segments[0]


@pytest.mark.parametrize("rows", [1, 40, 1000, 10**6])
def test_epochs_and_batches_follow_the_rows(rows: int) -> None:
    loop = choose(TuneConfig(), TASK, rows).loop
    assert FEWEST_EPOCHS <= loop.epochs <= MOST_EPOCHS
    assert loop.batch == (16 if rows <= 200 else 32)


def test_more_labels_get_more_vectors_and_see_more_examples() -> None:
    """banking77 ended at .68 with what two labels need; with four times the vectors it gained five points."""
    many = Task.from_rows([f"text {i}" for i in range(154)], [f"label {i % 77}" for i in range(154)])
    two, all77 = choose(TuneConfig(), TASK, 4000), choose(TuneConfig(), many, 4000)
    assert (two.length, all77.length) == (8, 32)
    assert all77.loop.epochs > two.loop.epochs
    assert all77.reasons["length"] == "32 vectors a block: the default for 77 labels"


def test_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"kind 'prefixes' is not known\. Choose one of: token, kv"):
        choose(TuneConfig(kind="prefixes"), TASK, 10)
    ends = Task.from_rows(["a", "b"] * 2, ["x", "y"] * 2, template="{text}{prompt}")
    with pytest.raises(TaskError, match="nothing stands after it, so the base has no token to answer from"):
        choose(TuneConfig(), ends, 10)


def test_a_start_from_examples_has_room_for_them() -> None:
    """With the default of 8 vectors no training row fitted, and ``--start examples`` alone was refused."""
    choices = choose(TuneConfig(start="examples"), TASK, 100)
    assert (choices.kind, choices.length) == ("kv", 128)
    assert choices.reasons["length"].startswith("128 vectors a block: the default for a start from examples")
    assert choose(TuneConfig(start="examples", length=40), TASK, 100).length == 40


def test_blocks_that_depend_on_the_input_are_not_shared() -> None:
    """``--kind pool --share-blocks`` ended with an assertion in the middle of a tuning, as if it were our fault."""
    two = Task.from_rows(["a", "b"] * 2, ["x", "y"] * 2, template="{prompt}{text}{prompt}\nIs:")
    with pytest.raises(Unsupported, match=r"the vectors of kind 'pool' depend on the input.*Leave --share-blocks out"):
        choose(TuneConfig(kind="pool", share_blocks=True), two, 10)
    assert choose(TuneConfig(kind="kv", share_blocks=True), two, 10).share_blocks
    assert not choose(TuneConfig(kind="pool", share_blocks=True), TASK, 10).share_blocks
