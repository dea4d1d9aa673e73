"""Keys and values that are read as a whole text is."""

import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.distilling import matching
from epigraph.distilling.matching import match
from epigraph.distilling.start import text_form
from epigraph.engine import Engine
from epigraph.engine.inspection import own_reads
from epigraph.engine.stream import Tail
from epigraph.engine.turning import turn_of
from epigraph.prompts import KeyValue
from epigraph.tasks.encode import Encoded
from epigraph.tasks.task import Task

TEXT = "Say what it is made of: wood, stone, iron, or none of these things."


@pytest.fixture(scope="module")
def engine() -> Engine:
    """A tiny base."""
    return Engine(toy_base(), keep=False)


@pytest.fixture(scope="module")
def rows(engine: Engine) -> list[Encoded]:
    """Texts of several lengths behind a prompt."""
    drawn = torch.Generator().manual_seed(0)
    return [Encoded(((), tuple(torch.randint(97, 122, (6 + i % 5,), generator=drawn).tolist()))) for i in range(24)]


def whole(engine: Engine, text: str = TEXT) -> KeyValue:
    """A text as keys and values."""
    return engine.key_values(engine.embedded_text(engine.base.tokenize(text)))


def last_states(engine: Engine, rows: list[Encoded], form: KeyValue) -> torch.Tensor:
    """From what the rows would be answered."""
    with torch.no_grad():
        done = engine.forward(rows, [form], Tail([()] * len(rows)))
    return done.at(torch.arange(len(rows)), done.stream.ends - 1)


def test_as_many_vectors_as_the_text_has_are_the_text(engine: Engine, rows: list[Encoded]) -> None:
    text = whole(engine)
    found = match(engine, text, rows, text.length, seed=0)
    assert found is not None
    assert found.missed < 1e-9
    torch.testing.assert_close(last_states(engine, rows, found.form), last_states(engine, rows, text), atol=1e-4, rtol=1e-4)


def test_rows_find_nearly_what_they_find_in_the_text(engine: Engine, rows: list[Encoded]) -> None:
    """Fewer vectors than tokens: far nearer to the text than its own tokens, and so are rows that were not among those asked."""
    text, length = whole(engine), 8
    task = Task.from_rows(["a b", "c d"] * 4, ["good", "bad"] * 4)
    tokens = text_form(engine, task, TEXT, length, KeyValue)
    assert isinstance(tokens, KeyValue)
    found = match(engine, text, rows[:16], length, seed=0)
    assert found is not None
    assert found.form.length == length
    asked, others = rows[:16], rows[16:]
    for some in (asked, others):
        wanted = last_states(engine, some, text)
        off = [float((last_states(engine, some, form) - wanted).norm()) for form in (found.form, tokens)]
        assert off[0] < 0.5 * off[1]


def test_the_first_key_and_value_stay_those_of_the_text(engine: Engine, rows: list[Encoded]) -> None:
    """Attention rests there, and a student of kind ``sink`` freezes them."""
    text, length = whole(engine), 4
    found = match(engine, text, rows, length, seed=0)
    turn = turn_of(engine, length - text.length)
    assert found is not None
    assert turn is not None
    torch.testing.assert_close(found.form.keys[:, :, 0], (text.keys.float() @ turn[:, None])[:, :, 0])
    torch.testing.assert_close(found.form.values[:, :, 0], text.values[:, :, 0].float())


def test_sums_are_those_of_the_pass(engine: Engine, rows: list[Encoded]) -> None:
    """What a token finds in the text and among its own row, put together, is what the attention divided by."""
    text = whole(engine)
    reads = own_reads(engine, rows[:3], text, [[0, 5], [2], [5, 1, 3]])
    assert reads.sums.shape[:2] == (engine.base.layers, 6)
    keys = text.keys.float()
    inside = torch.einsum("lnagd,latd->lnagt", reads.queries, keys).logsumexp(-1)
    torch.testing.assert_close(torch.logaddexp(inside, reads.own_sums), reads.sums, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["mistral", "gemma2"])
def test_a_window_or_a_cap_is_not_matched(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that sees a part of the text only does not find what is in all of it."""
    monkeypatch.setattr(matching, "STEPS", 2)
    other = Engine(toy_base(architecture), keep=False)
    rows = [Encoded(((), tuple(range(97, 97 + n)))) for n in (6, 7, 8)]
    assert match(other, whole(other), rows, 4, seed=0) is None


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3", "gpt_neox"])
def test_other_bases_are_matched(architecture: str, rows: list[Encoded]) -> None:
    """With learned positions, with norms on keys, with positions on a part of each head."""
    other = Engine(toy_base(architecture), keep=False)
    text = whole(other)
    found = match(other, text, rows, 8, seed=0)
    assert found is not None
    assert found.missed < 0.2
