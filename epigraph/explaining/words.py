"""Words of a text in any script, and texts with a word put in, taken out or changed.

A word is a run of letters and digits, one ideograph, or one mark of punctuation.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence

from epigraph.tasks.row import Row

_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+(?:['’][^\W\d_]+)*|[^\w\s]"
)
_NO_SPACES = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")


def words_of(text: str) -> list[str]:
    """The words of a text in order, in lower case."""
    return [found.group(0).lower() for found in _WORD.finditer(text)]


def spellings(texts: Sequence[str]) -> dict[str, str]:
    """Every word in the spelling that it most often has in these texts: capitals, as they stand."""
    counts: dict[str, Counter[str]] = {}
    for text in texts:
        for found in _WORD.finditer(text):
            counts.setdefault(found.group(0).lower(), Counter())[found.group(0)] += 1
    return {word: spelled.most_common(1)[0][0] for word, spelled in counts.items()}


def longest_field(row: Row, fields: Sequence[str]) -> str:
    """The field that edits are made to: the longest text of the row."""
    return max(fields, key=lambda name: len(row.fields.get(name, "")))


def with_text(row: Row, field: str, text: str) -> Row:
    """The row with another text in this field."""
    return Row(fields={**row.fields, field: text}, target=row.target, references=row.references, line=row.line)


def put_in(text: str, word: str, place: float) -> str:
    """The text with a word put in, 0 at its beginning and 1 at its end."""
    spans = [found.span() for found in _WORD.finditer(text)]
    at = round(place * len(spans))
    gap = "" if _NO_SPACES.search(word) else " "
    if at >= len(spans):
        return f"{text.rstrip()}{gap}{word}"
    start = spans[at][0]
    before = gap if start and not text[start - 1].isspace() and text[start - 1].isalnum() else ""
    return f"{text[:start]}{before}{word}{gap}{text[start:]}"


def take_out(text: str, word: str) -> str:
    """The text without any occurrence of the word."""
    kept = _WORD.sub(lambda found: "" if found.group(0).lower() == word else found.group(0), text)
    return re.sub(r"[ \t]{2,}", " ", kept).strip()


def place_of(texts: Sequence[Sequence[str]], word: str) -> float:
    """Where in these texts, given as their words, the word usually stands, 0 at the beginning and 1 at the end."""
    places = [words.index(word) / max(1, len(words) - 1) for words in texts if word in words]
    return sorted(places)[len(places) // 2] if places else 1.0


def swap_letters(text: str, rng: random.Random) -> str:
    """Two neighbouring letters swapped inside one word in eight: typing errors."""

    def typo(found: "re.Match[str]") -> str:
        word = found.group(0)
        if len(word) < 4 or rng.random() > 1 / 8:
            return word
        at = rng.randrange(1, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _WORD.sub(typo, text)
