"""What commands print: JSON objects on standard output; messages, tables and progress for people."""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAME = "epigraph"
PIPED_WIDTH = 120
"""Columns of a table that is not shown on a terminal."""

METRIC_NAMES = {
    "accuracy": "accuracy",
    "mae": "MAE in ranks",
    "quadratic_kappa": "quadratic kappa",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "subset_accuracy": "exact sets",
    "expected_calibration_error": "calibration error",
    "bleu": "BLEU",
    "rouge_l": "ROUGE-L",
    "exact_match": "exact match",
    "token_f1": "token F1",
}


def say(message: str) -> None:
    """A line for people, on standard error."""
    print(message, file=sys.stderr, flush=True)


def program() -> str:
    """How this program was called, so that commands that are printed run where they are pasted."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == NAME:
        return f"python -m {NAME}"
    found = shutil.which(NAME)
    elsewhere = called.name == NAME and not (found and Path(found).resolve() == called.resolve())
    return shlex.quote(sys.argv[0]) if elsewhere else NAME


def print_json(value: Any) -> None:
    """One machine-readable object on standard output."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_error(kind: str, message: str, hint: str, as_json: bool) -> None:
    """The contract's error object, and one line for people, whatever line breaks a library put into its message."""
    message, hint = _one_line(message), _one_line(hint)
    if as_json:
        print_json({"error": {"type": kind, "message": message, "hint": hint}})
    say(f"error: {message} {hint}".rstrip())


def print_stop(way_on: str, as_json: bool) -> None:
    """That the user stopped a command, and how to go on."""
    if as_json:
        print_json({"error": {"type": "Interrupted", "message": "interrupted", "hint": way_on}})
    say(f"interrupted; {way_on}" if way_on else "interrupted")


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output, under its title; numbers are right-aligned."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    if title:
        print(title)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        numbers = i > 0 and all(row[i][:1] in "0123456789.-" for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    Console(highlight=False, markup=False, width=width).print(table)


def score_text(scores: Mapping[str, Any], metric: str) -> str:
    """A score with its interval, such as ``.912 [.895–.926]``."""
    found = scores.get(metric)
    if not isinstance(found, Mapping):
        return "-"
    return f"{share_text(found['value'])} [{share_text(found['low'])}–{share_text(found['high'])}]"


def share_text(value: float) -> str:
    """A number from 0 to 1 with three places, such as ``.912``; others in full."""
    text = f"{value:.3f}"
    return text.removeprefix("0") if value >= 0 else text


def metrics_in(scores: Mapping[str, Any]) -> list[str]:
    """The metrics that a scores object holds, in the contract's order."""
    return [name for name in METRIC_NAMES if isinstance(scores.get(name), Mapping)]


def scores_rows(named: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> list[list[str]]:
    """Table rows: a name and its scores, and below them the floor where the scores know it."""
    rows = [[name, *(score_text(scores, metric) for metric in metrics)] for name, scores in named.items()]
    floor = next((scores["majority"] for scores in named.values() if "majority" in scores), None)
    return rows if floor is None else [*rows, ["majority class", share_text(floor), *("" for _ in metrics[1:])]]


def size_text(size: int) -> str:
    """Bytes for people."""
    shown = float(size)
    for unit in ("B", "KB", "MB"):
        if shown < 1000:
            return f"{shown:.0f} {unit}"
        shown /= 1000
    return f"{shown:.1f} GB"
