"""What a cell says as text, and what the values of a column look like."""

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_WHOLE = re.compile(r"[+-]?\d+\.0+$")


def cell_text(value: Any) -> str | None:
    """The text of a cell without outer whitespace; None where the cell is missing, NaN or blank.

    Booleans become ``true`` and ``false``; numbers their digits, 1.0 becomes ``1``.
    """
    if hasattr(value, "item") and not isinstance(value, str):  # a numpy scalar
        value = value.item()
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value).strip() or None


def whole_number(text: str) -> str:
    """``1.0`` as ``1``, which is what a table with a gap makes of its whole numbers; any other text as it is."""
    return text.split(".")[0] if _WHOLE.match(text) else text


def count_words(text: str) -> int:
    """Words between whitespace; two characters of Chinese, Japanese or Korean count as one word."""
    return len(_CJK.sub(" ", text).split()) + (len(_CJK.findall(text)) + 1) // 2


def distinct_texts(values: Iterable[Any]) -> Counter[str]:
    """How often each text occurs; missing cells and lists are left out."""
    texts = (cell_text(value) for value in values if not isinstance(value, list | dict))
    return Counter(text for text in texts if text is not None)


def looks_like_labels(values: Iterable[Any], *, most: int = 200, words: int = 5) -> bool:
    """Whether a column holds labels: at most ``most`` distinct short values, on average three rows or more each."""
    counts = distinct_texts(values)
    if not 1 < len(counts) <= most or counts.total() < 3 * len(counts):
        return False
    return all(count_words(text) <= words and len(text) <= 60 for text in counts)


def cell_list(value: Any, delimiter: str = "") -> list[Any] | None:
    """The items of a cell: a list, a list written as text (JSON, or as Python prints it), or texts between delimiters.

    None where the cell is missing, blank or no list; "" as delimiter splits nothing.
    """
    if hasattr(value, "tolist"):  # a numpy array
        value = value.tolist()
    if isinstance(value, list | tuple):
        return list(value)
    text = cell_text(value) if not isinstance(value, dict) else None
    if text is None:
        return None
    if text.startswith("[") and text.endswith("]"):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(found, list):
                return found
    return [part.strip() for part in text.split(delimiter) if part.strip()] if delimiter else None
