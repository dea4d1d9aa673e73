"""How far a single word, in one of a row's texts, tells the label by itself.

    share  = rows that have the word in that text / rows            purity = of these, the share with the label

A pair of texts is looked at text by text: a word that decides stands in the second of them as often as in the first ("not" in the
hypothesis: Gururangan et al. 2018, section 3, https://arxiv.org/abs/1803.02324), and may say nothing in the other.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from epigraph.explaining.words import words_of
from epigraph.tasks.row import Row

COMMON, BELIEVED, SUPPORT = 0.15, 0.8, 0.1
What = TypeVar("What", bound=Hashable)


class Mark(NamedTuple):
    """A word, in lower case, in one field of a row."""

    word: str
    field: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """How far a word alone tells the label in some rows: ``share`` of the rows have it, ``purity`` of these have the label."""

    rows: int
    share: float
    purity: float
    prior: float
    where: str

    @property
    def decides(self) -> bool:
        """Whether many rows could be answered by the word alone."""
        return self.share >= COMMON and self.purity >= max(BELIEVED, self.prior + SUPPORT)


@dataclass(frozen=True)
class Read:
    """Rows as their texts by field, the words of these in order, the marks of every row, and the truths where rows say any."""

    where: str
    texts: dict[str, list[str]]
    words: dict[str, list[list[str]]]
    marks: list[set[Mark]]
    truth: list[str | None]

    @classmethod
    def of(cls, rows: Sequence[Row], fields: Sequence[str], where: str) -> "Read":
        """All texts of these rows; ``where`` says what the rows are."""
        texts = {name: [row.fields.get(name, "") for row in rows] for name in fields}
        words = {name: [words_of(text) for text in some] for name, some in texts.items()}
        marks = [{Mark(word, name) for name in fields for word in words[name][i]} for i in range(len(rows))]
        return cls(where, texts, words, marks, [row.target for row in rows])

    def told(self, mark: Mark, label: str) -> Told:
        """How far the word alone tells this label, among the rows that say a truth."""
        known = [
            (mark in marks, truth == label) for marks, truth in zip(self.marks, self.truth, strict=True) if truth is not None
        ]
        inside = [right for has, right in known if has]
        return Told(
            rows=len(inside),
            share=len(inside) / max(1, len(known)),
            purity=sum(inside) / max(1, len(inside)),
            prior=sum(right for _, right in known) / max(1, len(known)),
            where=self.where,
        )


def associated(has: Sequence[Set[What]], answers: Sequence[str]) -> list[What]:
    """Words by how much their presence tells of the answer (mutual information), the most first; words of one row left out."""
    total, with_word = Counter(answers), dict[What, Counter[str]]()
    for words, answer in zip(has, answers, strict=True):
        for word in words:
            with_word.setdefault(word, Counter())[answer] += 1
    rows = len(has)
    gains = {}
    for word, inside in with_word.items():
        n = inside.total()
        if max(2, 0.005 * rows) <= n < rows:
            outside = total - inside
            gains[word] = sum(_told_by(part, total, rows) for part in (inside, outside))
    return sorted(gains, key=lambda w: (-gains[w], str(w)))


def _told_by(part: Counter[str], total: Counter[str], rows: int) -> float:
    """What being in this part of the rows tells of the answer, in nats."""
    n = part.total()
    return sum(count / rows * math.log(count / n / (total[answer] / rows)) for answer, count in part.items())
