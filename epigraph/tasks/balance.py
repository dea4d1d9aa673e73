"""How evenly rows spread over labels, and what follows: the metric and the weights.

skewed:  largest share > 3 · (1/K)   or   largest share ≥ 0.75
weight:  w_k ∝ n_k^(-1/2),  mean over the labels 1
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import median

from epigraph.tasks.cells import count_words
from epigraph.tasks.kinds import KINDS_OF_TASK, Kind
from epigraph.tasks.row import Row

_MAJORITY = 0.75
_TIMES_MEAN = 3.0
_SHORT = 3  # words
_EXTRACTED = 0.9  # share of the outputs that stand in their input


def count_labels(rows: Iterable[Row]) -> Counter[str]:
    """How many rows each label has; rows without a target do not count."""
    return Counter(row.target for row in rows if row.target is not None)


def count_sets(rows: Iterable[Row]) -> Counter[str]:
    """How many rows have each label, where a row may have several."""
    return Counter(label for row in rows for label in row.labels)


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


def choose_metric(kind: Kind, rows: Iterable[Row]) -> tuple[str, str]:
    """The metric that fits the training rows, and why."""
    rows, asked = list(rows), KINDS_OF_TASK[kind]
    if asked.one_label:
        reason = skew_reason(count_labels(rows))
        return ("macro_f1", reason) if reason else ("accuracy", "no label has many more rows than the others")
    if not asked.writes:
        return asked.metrics[0], f"the default of {kind}"
    words = median(count_words(row.target or "") for row in rows) if rows else 0
    reason = f"the median output has {words:g} words"
    if rows and words <= _SHORT:
        return "exact_match", reason
    copied = sum(any((row.target or "") in text for text in row.fields.values()) for row in rows)
    if rows and copied >= _EXTRACTED * len(rows):
        return "token_f1", f"{copied} of {len(rows)} outputs stand word for word in their input"
    return "bleu", reason
