"""Words of any script; put in and taken out they leave the rest as it was."""

import random

import pytest

from epigraph.explaining.sensitivity import EDITS
from epigraph.explaining.words import place_of, put_in, spellings, swap_letters, take_out, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's fine, Tom!", ["it's", "fine", ",", "tom", "!"]),
        ("很好吃", ["很", "好", "吃"]),
        ("Tốt lắm", ["tốt", "lắm"]),
        ("", []),
    ],
)
def test_words_of_any_script(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("text", ["one two three", "一二三", "a, b; c."])
def test_what_is_put_in_can_be_taken_out(text: str, place: float) -> None:
    longer = put_in(text, "quokka", place)
    assert "quokka" in words_of(longer)
    assert words_of(take_out(longer, "quokka")) == words_of(text)


def test_places_and_spellings_are_those_of_the_texts() -> None:
    texts = ["end STOP", "the end STOP", "a b c STOP", "a stop b STOP"]
    words = [words_of(text) for text in texts]
    assert place_of(words, "stop") == 1
    assert place_of(words, "a") == 0
    assert place_of(words, "nowhere") == 1
    assert spellings(texts)["stop"] == "STOP"


def test_typing_errors_keep_the_letters() -> None:
    text = "several longer words standing together here " * 40
    changed = swap_letters(text, random.Random(0))
    assert changed != text
    assert sorted(changed) == sorted(text)


def test_every_edit_changes_a_text_that_it_is_for() -> None:
    text = "The movie isn't very good, it is a long story about Tom and his neighbours"
    for edit in EDITS:
        rng = random.Random(1)
        assert any(edit.make(text, rng) != text for _ in range(9)), edit.name
