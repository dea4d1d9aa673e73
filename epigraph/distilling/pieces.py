"""Pieces of texts as texts of their own: more to learn from where texts are few, since a teacher answers any text.

    text = sentence | sentence | …        piece: some neighbouring sentences, but not all

A text of one sentence is cut at its commas, and one without any at a word. Pieces stand beside the texts that a student learns from,
never among those that it is stopped by or measured on.
"""

import random
import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from epigraph.tasks.row import Row

SENTENCE, CLAUSE, WORD = (
    re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+"),
    re.compile(r"(?<=[,;:])\s+|(?<=[，；：、])|\s+[-–—]+\s+"),
    re.compile(r"\s+"),
)
LEAST, TRIES = 8, 4  # characters of a piece; draws before a text is given up


def cut(rows: Sequence[Row], each: int, *, seed: int, but: Collection[Row] = ()) -> list[Row]:
    """At most ``each`` pieces of every row, none twice, and none that is one of these rows or of ``but``. Fields other than the longest
    stay as they are; a label is not a piece's."""
    taken = {_said(row) for row in (*rows, *but)}
    rng, found = random.Random(seed), []
    for row in rows:
        for _ in range(each):
            piece = next((one for one in (_piece(row, rng) for _ in range(TRIES)) if one and _said(one) not in taken), None)
            if piece is not None:
                taken.add(_said(piece))
                found.append(piece)
    return found


def _piece(row: Row, rng: random.Random) -> Row | None:
    field = max(row.fields, key=lambda name: len(row.fields[name]))
    text = row.fields[field]
    for mark in (SENTENCE, CLAUSE, WORD):
        spans = _spans(text, mark)
        if len(spans) > 1:
            size = rng.randint(1, len(spans) - 1)
            first = rng.randint(0, len(spans) - size)
            piece = text[spans[first][0] : spans[first + size - 1][1]].strip()
            return replace(row, fields={**row.fields, field: piece}, target=None) if len(piece) >= LEAST else None
    return None


def _spans(text: str, mark: "re.Pattern[str]") -> list[tuple[int, int]]:
    """Where the parts between these marks begin and end; empty ones left out."""
    ends = [found.span() for found in mark.finditer(text)]
    starts = [0, *(end for _, end in ends)]
    stops = [*(start for start, _ in ends), len(text)]
    return [(a, b) for a, b in zip(starts, stops, strict=True) if text[a:b].strip()]


def _said(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, " ".join(text.casefold().split())) for name, text in row.fields.items()))
