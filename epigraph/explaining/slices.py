"""Where it is worst: slices by length, label and single words; groups by a column.

    gap(slice) = accuracy inside − accuracy outside        Fisher's exact test; Benjamini–Hochberg at 5% over all slices tried
    selection rate(group, label) = share of the group's rows that get the label        difference to all others, with interval

Intervals of differences of two shares: Newcombe 1998, method 10 (https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I).
Correction: Benjamini & Hochberg 1995 (https://doi.org/10.1111/j.2517-6161.1995.tb02031.x). Selection rates are the demographic-parity view
and accuracies the overall-accuracy view of Hardt et al. 2016 (https://arxiv.org/abs/1610.02413).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from epigraph import metrics
from epigraph.explaining.case import Case, share
from epigraph.explaining.words import words_of
from epigraph.metrics import Interval

FEWEST, MOST_WORDS = 8, 200
ALPHA = 0.05
GROUPS = 12


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Rows that have something in common. ``gap`` is accuracy inside minus outside; ``sure`` that it withstands the correction."""

    what: str
    rows: int
    accuracy: Interval
    gap: Interval
    p: float
    sure: bool


@dataclass(frozen=True, kw_only=True)
class Slices:
    """The slices where accuracy is lowest against the rest, the worst first, of ``tried`` ones."""

    worst: tuple[Slice, ...]
    tried: int
    how: str


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How often a group gets a label, and how much more often than all other rows; ``due`` is the same difference of the truths."""

    label: str
    rate: Interval
    difference: Interval
    due: float | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """One value of a column: its accuracy (None without truths), against the others', and its selection rates."""

    column: str
    value: str
    rows: int
    accuracy: Interval | None
    gap: Interval | None
    rates: tuple[Rate, ...]


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Every group of every column that was asked for."""

    groups: tuple[Group, ...]
    how: str


def measure_slices(case: Case, most: int = 10) -> Slices:
    """The slices with the lowest accuracy against the rest."""
    right = metrics.right(case.truth, case.answers)
    found = []
    for what, inside in _slices(case):
        if FEWEST <= int(inside.sum()) <= len(right) - FEWEST:
            found.append(_slice(what, inside, right))
    found = _corrected(found)
    worse = [s for s in found if s.gap.value < 0]
    worst = tuple(sorted(worse, key=lambda s: (not s.sure, s.p))[:most])
    return Slices(
        worst=worst,
        tried=len(found),
        how=f"{len(found)} slices of {len(right)} rows of {case.source} (length, label, words in at least {FEWEST} rows), Fisher's exact "
        "test, Benjamini–Hochberg at 5%: what is not marked sure may be chance.",
    )


def _slices(case: Case) -> list[tuple[str, np.ndarray]]:
    texts = [" ".join(row.fields.values()) for row in case.rows]
    words = [set(words_of(text)) for text in texts]
    sizes = np.array([len(text) for text in texts])
    low, high = np.quantile(sizes, [1 / 3, 2 / 3])
    found = [
        (f"short texts (up to {low:.0f} characters)", sizes <= low),
        (f"long texts (over {high:.0f} characters)", sizes > high),
    ]
    found += [(f"true label {label}", np.array([t == label for t in case.truth])) for label in dict.fromkeys(case.truth)]
    counts = Counter(word for each in words for word in each)
    often = [w for w, n in counts.most_common() if FEWEST <= n <= len(texts) - FEWEST and any(c.isalnum() for c in w)]
    found += [(f"the word {w!r}", np.array([w in each for each in words])) for w in often[:MOST_WORDS]]
    return found


def _slice(what: str, inside: np.ndarray, right: np.ndarray) -> Slice:
    gap, p = difference(right[inside], right[~inside])
    return Slice(what=what, rows=int(inside.sum()), accuracy=share(right[inside]), gap=gap, p=p, sure=False)


def difference(inside: np.ndarray, outside: np.ndarray) -> tuple[Interval, float]:
    """Share inside minus share outside with Newcombe's interval, and Fisher's two-sided p-value."""
    a, b = share(inside), share(outside)
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Interval(value, max(-1.0, low), min(1.0, high)), fisher(
        int(inside.sum()), int((~inside).sum()), int(outside.sum()), int((~outside).sum())
    )


def fisher(a: int, b: int, c: int, d: int) -> float:
    """The two-sided p-value of a table of two by two."""
    from scipy.stats import fisher_exact

    return float(fisher_exact([[a, b], [c, d]])[1])


def _corrected(found: Sequence[Slice]) -> list[Slice]:
    """Mark those that withstand Benjamini–Hochberg."""
    ordered = sorted(found, key=lambda s: s.p)
    last = max((i + 1 for i, s in enumerate(ordered) if s.p <= ALPHA * (i + 1) / len(ordered)), default=0)
    return [Slice(**{**s.__dict__, "sure": i < last}) for i, s in enumerate(ordered)]


def measure_groups(case: Case) -> Groups:
    """Accuracy and selection rates of every group with enough rows."""
    found = []
    for column, values in case.groups.items():
        for value, rows in Counter(values).most_common(GROUPS):
            if FEWEST <= rows <= len(values) - 1:
                found.append(_group(case, column, value, np.array([v == value for v in values])))
    return Groups(
        groups=tuple(found),
        how=f"Groups of at least {FEWEST} rows of {case.source}, each against all other rows; intervals of differences after Newcombe.",
    )


def _group(case: Case, column: str, value: str, inside: np.ndarray) -> Group:
    accuracy = gap = None
    if case.labelled and case.has_labels:
        right = metrics.right(case.truth, case.answers)
        accuracy, gap = share(right[inside]), difference(right[inside], right[~inside])[0]
    rates = []
    for label in case.labels:
        gets = np.array([answer == label for answer in case.answers])
        is_due = np.array([truth == label for truth in case.truth])
        due = float(is_due[inside].mean() - is_due[~inside].mean()) if case.labelled else None
        rates.append(
            Rate(label=label, rate=share(gets[inside]), difference=difference(gets[inside], gets[~inside])[0], due=due)
        )
    return Group(column=column, value=value, rows=int(inside.sum()), accuracy=accuracy, gap=gap, rates=tuple(rates))
