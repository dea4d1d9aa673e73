"""Words of a text in any script, and texts with a word put in, taken out or changed.

A word is a run of letters and digits with the marks that combine with them, one ideograph, or one mark of punctuation.
"""

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from epigraph.tasks.row import Row

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_NO_SPACES = re.compile(f"[{_CJK}]")
_LAST_MARK = 0x1F000
_JOINERS = r"\u200c\u200d"
_ENGLISH_WORDS = (
    "the of and to is it this that was with for are be have has had not you i'm he she they we my your his her from but what which "
    "there were will would can could should does did do don't isn't doesn't didn't wasn't can't won't it's"
)
_ENGLISH = frozenset(_ENGLISH_WORDS.split())


@cache
def word_pattern() -> "re.Pattern[str]":
    """One ideograph; a run of letters, digits and the marks that combine with them (vowel signs, accents); or one mark of punctuation."""
    marks = _ranges([c for c in range(0x300, _LAST_MARK) if unicodedata.category(chr(c))[0] == "M"])
    letter = f"(?:[^\\W{_CJK}][{marks}{_JOINERS}]*)"
    return re.compile(f"[{_CJK}][{marks}]*|{letter}+(?:['’](?:[^\\W\\d_][{marks}{_JOINERS}]*)+)*|[^\\w\\s]")


def _ranges(codes: Sequence[int]) -> str:
    """Code points as the inside of a character class."""
    found: list[list[int]] = []
    for code in codes:
        if found and code == found[-1][1] + 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in found)


def begins_word(tokenizer: Any, token: int) -> bool:
    """Whether a token of the vocabulary begins a word: SentencePiece writes "▁" before it, byte-level BPE "Ġ"."""
    return str(tokenizer.convert_ids_to_tokens(token))[:1] in ("▁", "Ġ")


def looks_english(text: str) -> bool:
    """Whether a text has a word that hardly another language has; an edit of English words is made to such texts only."""
    return not _ENGLISH.isdisjoint(words_of(text.replace("’", "'")))


def without_punctuation(text: str) -> str:
    """The text without punctuation and symbols; the marks that combine with letters stay."""
    return "".join(c for c in text if unicodedata.category(c)[0] not in "PS")


def words_of(text: str) -> list[str]:
    """The words of a text in order, in lower case."""
    return [found.group(0).lower() for found in word_pattern().finditer(text)]


def spellings(texts: Sequence[str]) -> dict[str, str]:
    """Every word in the spelling that it most often has in these texts: capitals, as they stand."""
    counts: dict[str, Counter[str]] = {}
    for text in texts:
        for found in word_pattern().finditer(text):
            counts.setdefault(found.group(0).lower(), Counter())[found.group(0)] += 1
    return {word: spelled.most_common(1)[0][0] for word, spelled in counts.items()}


def longest_field(row: Row, fields: Sequence[str]) -> str:
    """The field that edits are made to: the longest text of the row."""
    return max(fields, key=lambda name: len(row.fields.get(name, "")))


def with_text(row: Row, field: str, text: str) -> Row:
    """The row with another text in this field; its choices and labels stay."""
    return replace(row, fields={**row.fields, field: text})


def put_in(text: str, word: str, place: float) -> str:
    """The text with a word put in, 0 at its beginning and 1 at its end."""
    spans = [found.span() for found in word_pattern().finditer(text)]
    at = round(place * len(spans))
    gap = "" if _NO_SPACES.search(word) else " "
    if at >= len(spans):
        return f"{text.rstrip()}{gap}{word}"
    start = spans[at][0]
    before = gap if start and not text[start - 1].isspace() and text[start - 1].isalnum() else ""
    return f"{text[:start]}{before}{word}{gap}{text[start:]}"


def take_out(text: str, word: str) -> str:
    """The text without any occurrence of the word."""
    kept = word_pattern().sub(lambda found: "" if found.group(0).lower() == word else found.group(0), text)
    return re.sub(r"[ \t]{2,}", " ", kept).strip()


def place_of(texts: Sequence[Sequence[str]], word: str) -> float:
    """Where in these texts, given as their words, the word usually stands, 0 at the beginning and 1 at the end."""
    places = [words.index(word) / max(1, len(words) - 1) for words in texts if word in words]
    return sorted(places)[len(places) // 2] if places else 1.0


def swap_letters(text: str, rng: random.Random) -> str:
    """Two neighbouring letters swapped inside one word in eight: typing errors."""

    def typo(found: "re.Match[str]") -> str:
        letters = _letters(found.group(0))
        if len(letters) < 4 or rng.random() > 1 / 8:
            return found.group(0)
        at = rng.randrange(1, len(letters) - 2)
        letters[at], letters[at + 1] = letters[at + 1], letters[at]
        return "".join(letters)

    return word_pattern().sub(typo, text)


def _letters(word: str) -> list[str]:
    """The letters of a word, each with the marks that combine with it."""
    found: list[str] = []
    for character in word:
        if found and (unicodedata.category(character)[0] == "M" or character in "\u200c\u200d"):
            found[-1] += character
        else:
            found.append(character)
    return found
