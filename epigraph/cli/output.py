"""What commands print: JSON objects on standard output; messages, tables and progress for people."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

METRIC_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "expected_calibration_error": "calibration error",
    "bleu": "BLEU",
    "rouge_l": "ROUGE-L",
    "exact_match": "exact match",
}


def say(message: str) -> None:
    """A line for people, on standard error."""
    print(message, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One machine-readable object on standard output."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_error(kind: str, message: str, hint: str, as_json: bool) -> None:
    """The contract's error object, or one line."""
    if as_json:
        print_json({"error": {"type": kind, "message": message, "hint": hint}})
    say(f"error: {message} {hint}".rstrip())


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; the first column is left-aligned."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def score_text(scores: Mapping[str, Any], metric: str) -> str:
    """A score with its interval, such as ``.912 [.895, .926]``."""
    found = scores.get(metric)
    if not isinstance(found, Mapping):
        return "-"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def metrics_in(scores: Mapping[str, Any]) -> list[str]:
    """The metrics that a scores object holds, in the contract's order."""
    return [name for name in METRIC_NAMES if isinstance(scores.get(name), Mapping)]


def scores_rows(named: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> list[list[str]]:
    """Table rows: a name and its scores."""
    return [[name, *(score_text(scores, metric) for metric in metrics)] for name, scores in named.items()]


def size_text(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
