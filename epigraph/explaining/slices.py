"""Where it is worst: slices by length, label and single words; groups by a column.

    gap(slice) = accuracy inside − accuracy outside        Fisher's exact test; Benjamini–Hochberg at 5% over all slices tried
    selection rate(group, label) = share of the group's rows that get the label        difference to all others, with interval
    undue(group, label) = mean inside − mean outside of (answered − true)              bootstrap; permutations; Benjamini–Hochberg
    gap(group)   = as of a slice                                                       Fisher's exact test; Benjamini–Hochberg over groups

Intervals of differences of two shares: Newcombe 1998, method 10 (https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I).
Correction: Benjamini & Hochberg 1995 (https://doi.org/10.1111/j.2517-6161.1995.tb02031.x). Selection rates are the demographic-parity view
and accuracies the overall-accuracy view of Hardt et al. 2016 (https://arxiv.org/abs/1610.02413).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from epigraph.explaining.case import Case, share
from epigraph.explaining.words import words_of
from epigraph.methods.judge import Answer
from epigraph.metrics import Interval
from epigraph.tasks.row import Row

FEWEST, MOST_WORDS = 8, 200
ALPHA = 0.05
GROUPS = 12
RESAMPLES, PERMUTATIONS = 1000, 4999


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
    """How often a group gets a label, and how much more often than all other rows; ``due`` is the same difference of the truths.

    ``undue`` is the difference of the two, row by row (``difference`` where no truths are known); ``sure`` that it withstands the
    correction over all groups and labels."""

    label: str
    rate: Interval
    difference: Interval
    due: float | None
    undue: Interval
    p: float
    sure: bool = False


@dataclass(frozen=True, kw_only=True)
class Group:
    """One value of a column: its accuracy (None without truths), against the others', and its selection rates.

    ``p`` is Fisher's of the gap, ``sure`` that it withstands the correction over all groups."""

    column: str
    value: str
    rows: int
    accuracy: Interval | None
    gap: Interval | None
    rates: tuple[Rate, ...]
    p: float = 1.0
    sure: bool = False


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Every group of every column that was asked for; ``dropped`` are those that are not compared, each with the reason."""

    groups: tuple[Group, ...]
    dropped: tuple[str, ...]
    how: str


def measure_slices(case: Case, most: int = 10) -> Slices:
    """The slices with the lowest accuracy against the rest."""
    right = case.right(case.known)
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
    rows = case.known_rows
    texts = [" ".join(row.fields.values()) for row in rows]
    words = [set(words_of(text)) for text in texts]
    sizes = np.array([len(text) for text in texts])
    low, high = np.quantile(sizes, [1 / 3, 2 / 3])
    found = [
        (f"short texts (up to {low:.0f} characters)", sizes <= low),
        (f"long texts (over {high:.0f} characters)", sizes > high),
    ]
    truths = [_labels_of(case, row) for row in rows]
    names = dict.fromkeys(label for labels in truths for label in labels)
    found += [(f"true label {label}", np.array([label in labels for labels in truths])) for label in names]
    counts = Counter(word for each in words for word in each)
    often = [w for w, n in counts.most_common() if FEWEST <= n <= len(texts) - FEWEST and any(c.isalnum() for c in w)]
    found += [(f"the word {w!r}", np.array([w in each for each in words])) for w in often[:MOST_WORDS]]
    return found


def _labels_of(case: Case, row: Row) -> tuple[str, ...]:
    """The true labels of a row; none where it has choices of its own, which are no labels."""
    if not case.task.knows_labels or row.target is None:
        return ()
    return (row.target,) if case.has_labels else row.labels


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
    sure = withstanding([s.p for s in found])
    return [replace(one, sure=flag) for one, flag in zip(found, sure, strict=True)]


def withstanding(p_values: Sequence[float]) -> list[bool]:
    """Which withstand Benjamini–Hochberg at 5%."""
    ordered = sorted(p_values)
    line = [p for i, p in enumerate(ordered, 1) if p <= ALPHA * i / len(ordered)]
    return [bool(line) and p <= line[-1] for p in p_values]


def measure_groups(case: Case) -> Groups:
    """Accuracy and selection rates of every group with enough rows: of the rows that say what is right, where any do."""
    among = case.known if case.labelled else tuple(range(len(case.rows)))
    found, dropped = [], []
    for column, values in case.groups.items():
        some = [values[i] for i in among]
        for place, (value, rows) in enumerate(Counter(some).most_common()):
            if reason := _dropped(place, rows, len(some)):
                dropped.append(f"{column} {value!r} ({reason})")
            else:
                found.append(_group(case, among, column, value, np.array([v == value for v in some])))
    sure = iter(withstanding([rate.p for group in found for rate in group.rates]))
    apart = withstanding([group.p for group in found])
    groups = tuple(
        replace(g, sure=far, rates=tuple(replace(r, sure=next(sure)) for r in g.rates))
        for g, far in zip(found, apart, strict=True)
    )
    left = f" Not compared: {', '.join(dropped)}." if dropped else ""
    return Groups(
        groups=groups,
        dropped=tuple(dropped),
        how=f"Groups of at least {FEWEST} of {len(among)} rows of {case.source}, each against all other rows; intervals of differences "
        "after Newcombe, Fisher's exact test of accuracies, Benjamini–Hochberg at 5% over all groups. Whether a group gets a label more "
        "often than is due: answers minus truths row by row, bootstrap over the rows, "
        f"permutation test, Benjamini–Hochberg at 5% over all groups and labels.{left}",
    )


def _dropped(place: int, rows: int, of: int) -> str:
    """Why the group at this place, by size, is not compared."""
    if rows < FEWEST:
        return f"{rows} rows"
    if rows >= of:
        return "all rows"
    return f"beyond the {GROUPS} largest" if place >= GROUPS else ""


def _group(case: Case, among: Sequence[int], column: str, value: str, inside: Bool[np.ndarray, "N"]) -> Group:
    accuracy, gap, p = None, None, 1.0
    if case.labelled:
        right = case.right(among)
        accuracy, (gap, p) = share(right[inside]), difference(right[inside], right[~inside])
    gets = _gets(case.labels, [case.answers[i] for i in among])
    due = _gets(case.labels, [case.truth[i] for i in among]) if case.labelled else np.zeros_like(gets)
    undue = gets.astype(np.float64) - due
    p_values = permuted(undue, inside, case.config.seed)
    rates = [
        Rate(
            label=label,
            rate=share(gets[inside, c]),
            difference=difference(gets[inside, c], gets[~inside, c])[0],
            due=float(due[inside, c].mean() - due[~inside, c].mean()) if case.labelled else None,
            undue=_between(undue[:, c], inside, case.config.seed),
            p=p_values[c],
        )
        for c, label in enumerate(case.labels)
    ]
    return Group(column=column, value=value, rows=int(inside.sum()), accuracy=accuracy, gap=gap, rates=tuple(rates), p=p)


def _gets(labels: Sequence[str], answers: Sequence[Answer]) -> Bool[np.ndarray, "N C"]:
    """Which answer has, or is, which label."""
    return np.array(
        [[label == a or (isinstance(a, tuple) and label in a) for label in labels] for a in answers], dtype=np.bool_
    )


def _between(values: Float[np.ndarray, "N"], inside: Bool[np.ndarray, "N"], seed: int) -> Interval:
    """Mean inside minus mean outside with its 95% interval over rows, each side resampled by itself."""
    rng, sides = np.random.default_rng(seed), (values[inside], values[~inside])
    drawn = [side[rng.integers(0, len(side), (RESAMPLES, len(side)))].mean(1) for side in sides]
    value = float(sides[0].mean() - sides[1].mean())
    low, high = np.percentile(drawn[0] - drawn[1], [2.5, 97.5])
    return Interval(value, min(value, float(low)), max(value, float(high)))


def permuted(values: Float[np.ndarray, "N C"], inside: Bool[np.ndarray, "N"], seed: int) -> list[float]:
    """For every column the two-sided p-value of "as much inside as outside", by drawing the group anew."""
    flags = np.random.default_rng(seed).permuted(np.tile(inside, (PERMUTATIONS, 1)), axis=1).astype(np.float64)
    n, total = inside.sum(), values.sum(0)

    def gaps(sums: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(sums / n - (total - sums) / (len(inside) - n)))

    met = gaps(flags @ values) >= gaps(values[inside].sum(0)) - 1e-9
    return [float((hits + 1) / (PERMUTATIONS + 1)) for hits in met.sum(0)]
