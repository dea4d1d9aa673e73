"""Labels with an order: from the task TOML, or from the numbers in the labels.

[labels] "poor" = "poor", "fair" = "fair", "good" = "good"      their order is that of the file, if it names them all
1, 2, 3, 4, 5      "1 star" … "5 stars"                         their order is that of the numbers
"""

import re
from collections.abc import Collection, Iterable, Mapping

from epigraph.errors import TaskError
from epigraph.tasks.headers import plain

NAMES = ("stars", "rating", "score", "ratings", "star_rating", "star", "số_sao", "so_sao", "điểm", "星级", "评分", "打分")
FEWEST, MOST = 3, 10
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def order_labels(labels: Collection[str], given: Mapping[str, str], source: str) -> tuple[list[str], str]:
    """The labels from lowest to highest, and whence the order is known. TaskError where it is not."""
    if given and set(labels) <= set(given):
        return list(given), "as [labels] lists them"  # a level that no row has keeps its place
    numbers = {label: _NUMBER.findall(label) for label in labels}
    if all(len(found) == 1 for found in numbers.values()):
        value = {label: float(found[0]) for label, found in numbers.items()}
        if len(set(value.values())) == len(value):
            return sorted(labels, key=lambda label: value[label]), "by the numbers in them"
    left_out = sorted(set(labels) - set(given)) if given else []
    what = (
        f"[labels] leaves out {', '.join(left_out[:8])}" if left_out else f"{', '.join(sorted(labels)[:8])} are no numbers"
    )
    raise TaskError(
        f"{source}: the order of the labels is not known: {what}.",
        "List every label under [labels] in a task TOML, from the lowest to the highest.",
    )


def scale_reason(header: str, labels: Iterable[str]) -> str:
    """Why these labels are a scale though the task does not say so; empty where they are not."""
    found = sorted({int(label) if label.isdecimal() else 0 for label in labels})
    if plain(header) not in NAMES or not FEWEST <= len(found) <= MOST or found != list(range(1, len(found) + 1)):
        return ""
    return (
        f"{header!r} holds the whole numbers 1 to {len(found)}, so how far off an answer is counts; "
        'kind = "classification" in a task TOML (or --task-kind) ignores their order'
    )
