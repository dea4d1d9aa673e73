"""The texts given out, put together, are the text of all tokens; characters stay whole, and stop texts never show."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epigraph.base import Base
from epigraph.base.toy import toy_base
from epigraph.serve.spelling import UNFINISHED, Speller


@pytest.fixture(scope="module")
def base() -> Base:
    return toy_base()


def spell(base: Base, tokens: list[int], stops: tuple[str, ...] = ()) -> tuple[list[str], str | None]:
    speller, parts = Speller(base.detokenize, stops), []
    for number, token in enumerate(tokens):
        text, found = speller.push(token, last=number == len(tokens) - 1)
        parts.append(text)
        if found is not None:
            return parts, found
    return parts, None


@given(text=st.text(max_size=40))
@settings(max_examples=25)
def test_parts_are_the_text_and_characters_are_whole(base: Base, text: str) -> None:
    parts, _ = spell(base, base.tokenize(text))
    assert "".join(parts) == text
    if UNFINISHED not in text:
        assert not any(UNFINISHED in part for part in parts)


@given(tokens=st.lists(st.integers(0, 257), max_size=40))
@settings(max_examples=25)
def test_bytes_that_are_no_text_come_out_as_decoded_at_once(base: Base, tokens: list[int]) -> None:
    assert "".join(spell(base, tokens)[0]) == base.detokenize(tokens)


@given(text=st.text("ab机", max_size=30), stops=st.lists(st.text("ab机", min_size=1, max_size=4), max_size=3))
@settings(max_examples=40)
def test_text_ends_before_the_first_stop_and_never_shows_a_part_of_it(base: Base, text: str, stops: list[str]) -> None:
    parts, found = spell(base, base.tokenize(text), tuple(stops))
    said = "".join(parts)
    ends = [text.index(stop) for stop in stops if stop in text]
    if found is None:
        assert said == text
        assert not ends
    else:
        # the first stop to be complete ends it; one that begins earlier but is complete only later is not waited for
        assert text.startswith(said + found)
        assert not any(stop in said for stop in stops)


def test_what_may_become_a_stop_is_held_back_until_it_cannot(base: Base) -> None:
    speller = Speller(base.detokenize, ("abc",))
    given_out = [speller.push(token)[0] for token in base.tokenize("xababd")]
    assert given_out == ["x", "", "", "ab", "", "abd"]


def test_a_token_without_text_lets_out_what_was_held(base: Base) -> None:
    speller = Speller(base.detokenize, ("stop",))
    speller.push(*base.tokenize("s"))
    assert speller.push(None, last=True) == ("s", None)
