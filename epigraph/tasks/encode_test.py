"""Segments apart, the longest field shortened, the cue never."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigraph.errors import TaskError
from epigraph.tasks.encode import Encoder, answer_text, build_trie, render
from epigraph.tasks.row import Row
from epigraph.tasks.template import Template


class Bytes:
    """A tokenizer of bytes."""

    def __init__(self, bos: int | None = None) -> None:
        self.bos = bos
        self.end = 256

    def tokenize(self, text: str) -> list[int]:
        return list(text.encode())

    def detokenize(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")


PAIR = Template("Is it so?\n{a}\n{b}{prompt}\nLabel:")


def test_segments_join_to_the_text_of_the_template() -> None:
    row = Encoder(PAIR, Bytes(), 100).encode(Row(fields={"a": "x", "b": "yz"}))
    assert [bytes(s).decode() for s in row.segments] == ["Is it so?\nx\nyz", "\nLabel:"]
    assert not row.truncated


@given(st.text(max_size=80), st.text(max_size=80), st.integers(25, 60))
def test_a_row_fits_and_keeps_instruction_and_cue(a: str, b: str, limit: int) -> None:
    row = Encoder(PAIR, Bytes(), limit).encode(Row(fields={"a": a, "b": b}))
    assert sum(map(len, row.segments)) <= limit
    assert bytes(row.segments[0]).startswith(b"Is it so?\n")
    assert bytes(row.segments[1]) == b"\nLabel:"
    assert row.truncated == (len(f"Is it so?\n{a}\n{b}\nLabel:".encode()) > limit)


def test_the_longest_field_is_shortened_and_the_other_is_whole() -> None:
    row = Encoder(PAIR, Bytes(), 40).encode(Row(fields={"a": "short", "b": "l" * 60}))
    text = bytes(row.segments[0]).decode()
    assert "\nshort\n" in text
    assert text.endswith("l" * (40 - len("Is it so?\nshort\n\nLabel:")))


def test_a_template_that_does_not_fit_is_refused() -> None:
    with pytest.raises(TaskError, match="the template alone takes 18 tokens, but 10 are left"):
        Encoder(PAIR, Bytes(), 10)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(TaskError, match="no field b"):
        Encoder(PAIR, Bytes(), 100).encode(Row(fields={"a": "x"}))


def test_the_beginning_token_stands_before_the_first_text() -> None:
    first = Encoder(Template("{prompt}{a}:"), Bytes(bos=7), 100).encode(Row(fields={"a": "x"}))
    assert first.segments == ((), (7, *b"x:"))
    later = Encoder(Template("{a}{prompt}:"), Bytes(bos=7), 100).encode(Row(fields={"a": "x"}))
    assert later.segments == ((7, *b"x"), (*b":",))


@pytest.mark.parametrize(
    ("template", "expected"), [("{a}{prompt}:", " yes"), ("{a}{prompt}: ", "yes"), ("{prompt}{a}", " yes")]
)
def test_an_answer_follows_after_one_space(template: str, expected: str) -> None:
    assert answer_text(Template(template), "yes") == expected


def test_the_trie_is_of_the_words_as_they_follow_the_template() -> None:
    trie = build_trie({"b": "bill", "c": "card"}, Template("{a}{prompt}:"), Bytes())
    assert trie.labels == ("b", "c")
    assert trie.spoken(0) == [ord(" ")]
    assert trie.tokens == (ord("b"), ord("c"))


@given(st.integers(0, 80), st.integers(0, 80), st.integers(18, 100))
def test_two_long_fields_are_shortened_evenly_and_no_more_than_needed(a: int, b: int, limit: int) -> None:
    row = Encoder(PAIR, Bytes(), limit).encode(Row(fields={"a": "x" * a, "b": "y" * b}))
    text = bytes(row.segments[0]).decode()
    kept = sorted([text.count("x"), text.count("y")])
    room, (short, _) = limit - 18, sorted([a, b])
    assert sum(kept) == min(room, a + b)
    if a + b > room:
        assert kept[0] >= min(short, room // 2)


@given(st.text(st.sampled_from("ab ế机🙂"), min_size=1, max_size=40))
def test_what_is_left_of_a_text_is_its_beginning(text: str) -> None:
    """A cut inside a character of several bytes leaves no � behind."""
    row = Encoder(Template("{a}{prompt}:"), Bytes(), 12).encode(Row(fields={"a": text}))
    assert text.startswith(bytes(row.segments[0]).decode())


def test_braces_in_a_text_are_no_fields() -> None:
    assert render(Template("{{{a}}}{prompt}:").segments[0], {"a": "x{a}{prompt}"}) == "{x{a}{prompt}}"
