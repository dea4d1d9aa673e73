"""How evenly rows spread over labels, and what follows: the metric and the weights.

skewed:  largest share > 3 · (1/K)   or   largest share ≥ 0.75
weight:  w_k ∝ n_k^(-1/2),  mean over the labels 1
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import median

from epigraph.tasks.cells import count_words
from epigraph.tasks.row import Row

METRICS = {
    "classification": ("accuracy", "macro_f1"),
    "generation": ("bleu", "exact_match", "rouge_l"),
}
_MAJORITY = 0.75
_TIMES_MEAN = 3.0
_SHORT = 3  # words


def count_labels(rows: Iterable[Row]) -> Counter[str]:
    """How many rows each label has; rows without a target do not count."""
    return Counter(row.target for row in rows if row.target is not None)


def skew_reason(counts: Mapping[str, int]) -> str:
    """Why the labels are skewed, in numbers; empty where they are not."""
    if len(counts) < 2:
        return ""
    label, most = max(counts.items(), key=lambda item: item[1])
    total = sum(counts.values())
    share, times = most / total, most * len(counts) / total
    if share < _MAJORITY and times <= _TIMES_MEAN:
        return ""
    return f"label {label!r} has {most} of {total} rows ({share:.0%}), {times:.1f} times the mean share"


def weigh(counts: Mapping[str, int]) -> dict[str, float]:
    """The weight of every label that has rows."""
    raw = {label: count**-0.5 for label, count in counts.items() if count > 0}
    mean = sum(raw.values()) / max(len(raw), 1)
    return {label: weight / mean for label, weight in raw.items()}


def choose_metric(kind: str, rows: Iterable[Row]) -> tuple[str, str]:
    """The metric that fits the training rows, and why."""
    rows = list(rows)
    if kind == "classification":
        reason = skew_reason(count_labels(rows))
        return ("macro_f1", reason) if reason else ("accuracy", "no label has many more rows than the others")
    words = median(count_words(row.target or "") for row in rows) if rows else 0
    reason = f"the median output has {words:g} words"
    return ("exact_match", reason) if rows and words <= _SHORT else ("bleu", reason)
