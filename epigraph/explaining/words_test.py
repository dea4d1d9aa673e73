"""Words of any script; put in and taken out they leave the rest as it was."""

import random

import pytest

from epigraph.explaining.sensitivity import EDITS, EMPTY_TEXTS, empty_rows, measure_sensitivity
from epigraph.explaining.toys_test import toy_case
from epigraph.explaining.words import (
    begins_word,
    looks_english,
    place_of,
    put_in,
    spellings,
    swap_letters,
    take_out,
    without_punctuation,
    words_of,
)
from epigraph.tasks.row import Row


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's fine, Tom!", ["it's", "fine", ",", "tom", "!"]),
        ("很好吃", ["很", "好", "吃"]),
        ("Tốt lắm", ["tốt", "lắm"]),
        ("", []),
        ("हिन्दी में।", ["हिन्दी", "में", "।"]),
        ("e\u0301te\u0301!", ["e\u0301te\u0301", "!"]),
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


def test_marks_that_combine_with_letters_are_no_punctuation() -> None:
    assert without_punctuation("हिन्दी, में।") == "हिन्दी में"
    assert without_punctuation("5 € — «ja»!") == "5   ja"


def test_typing_errors_keep_marks_with_their_letters() -> None:
    text = "समाचारपत्र मोबाइल " * 40
    changed = swap_letters(text, random.Random(0))
    assert changed != text
    assert sorted(changed) == sorted(text)
    assert changed.count("चा") == text.count("चा")


@pytest.mark.parametrize(
    ("text", "english"),
    [("It isn’t what I ordered", True), ("die Karte war weg", False), ("很好吃", False), ("la carta de mi banco", False)],
)
def test_english_is_known_by_its_small_words(text: str, english: bool) -> None:
    assert looks_english(text) is english


def test_edits_of_english_words_leave_other_languages_alone() -> None:
    rows = [Row(fields={"text": f"die Karte {i} war nicht da"}, target="good") for i in range(8)]
    found = measure_sensitivity(toy_case(rows=rows))
    assert found.edits
    assert not {e.name for e in EDITS if e.english} & {e.name for e in found.edits}


def test_empty_texts_of_several_fields_differ() -> None:
    rows = empty_rows(["premise", "hypothesis"])
    assert len(rows) == len(EMPTY_TEXTS)
    assert all(row.fields["premise"] != row.fields["hypothesis"] for row in rows)


def test_a_token_begins_a_word_in_either_spelling() -> None:
    class Pieces:
        def convert_ids_to_tokens(self, token: int) -> str:
            return ["▁good", "Ġgood", "good"][token]

    assert [begins_word(Pieces(), i) for i in range(3)] == [True, True, False]
