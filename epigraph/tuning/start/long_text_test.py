from pathlib import Path

import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.config import TuneConfig
from epigraph.engine import Engine
from epigraph.errors import DataError, NotFound
from epigraph.prompts import Embedded, KeyValue
from epigraph.tasks.task import Task
from epigraph.tuning import tune
from epigraph.tuning.start.long_text import long_form, spread


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_base(context=128))


def test_the_first_token_and_the_last_of_each_stretch() -> None:
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(5, 5) == [0, 1, 2, 3, 4]
    assert spread(7, 1) == [0]


def test_a_short_text_is_kept_whole(engine: Engine, tmp_path: Path) -> None:
    """As many vectors as tokens: its own keys and values, unturned."""
    (tmp_path / "t.txt").write_text("twelve bytes")
    found = long_form(engine, tmp_path / "t.txt", 12, KeyValue)
    expected = engine.key_values(engine.embedded_text(engine.base.tokenize("twelve bytes")))
    assert isinstance(found, KeyValue)
    torch.testing.assert_close(found.keys, expected.keys)
    torch.testing.assert_close(found.values, expected.values)


def test_values_are_those_of_the_kept_tokens_after_reading_all_before(engine: Engine, tmp_path: Path) -> None:
    text = "The house opens at nine and closes at five, and on Sundays it stays shut."
    (tmp_path / "t.txt").write_text(text)
    found = long_form(engine, tmp_path / "t.txt", 4, KeyValue)
    ids = engine.base.tokenize(text)
    whole = engine.key_values(engine.embedded_text(ids))
    assert isinstance(found, KeyValue)
    torch.testing.assert_close(found.values, whole.values[:, :, spread(len(ids), 4)])
    vectors = long_form(engine, tmp_path / "t.txt", 4, Embedded)
    assert isinstance(vectors, Embedded)
    torch.testing.assert_close(vectors.vectors[-1], engine.embedded_text(ids[-1:]).vectors[0])


def test_what_is_beyond_the_context_is_not_read(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("a" * 127 + "b" + "c" * 500)
    vectors = long_form(engine, tmp_path / "long.txt", 2, Embedded)
    assert isinstance(vectors, Embedded)
    torch.testing.assert_close(vectors.vectors[-1], engine.embedded_text(engine.base.tokenize("b")).vectors[0])


def test_no_text_is_no_start(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("abc")
    with pytest.raises(DataError, match=r"has 3 tokens, but 8 vectors shall start from it\. Give a longer text"):
        long_form(engine, tmp_path / "t.txt", 8, KeyValue)
    with pytest.raises(NotFound, match="no file"):
        long_form(engine, tmp_path / "none.txt", 8, KeyValue)


def test_a_longer_trial_that_nobody_asked_for_is_left_out(engine: Engine, tmp_path: Path) -> None:
    """A text of 20 tokens starts 8 vectors well, but the search tried 32 besides, and "32 vectors shall start from it" ended it."""
    (tmp_path / "t.txt").write_text("twenty bytes of text")
    task = Task.from_rows([f"text {i}" for i in range(20)], ["good", "bad"] * 10, template="{text}{prompt}\nIs:")
    wide = Engine(toy_base(), keep=False)
    found = tune(wide.base, task, TuneConfig(start=f"text:{tmp_path / 't.txt'}", epochs=1, keep="soft"), engine=wide)
    assert {trial["length"] for trial in found.trials} == {8}
