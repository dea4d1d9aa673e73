"""``epigraph evaluate``: score a stored prompt on a labelled file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epigraph.cli.options import LIBRARY, BaseFlag, DeviceFlag, DtypeFlag, JsonFlag, LibraryFlag
from epigraph.cli.output import METRIC_NAMES, metrics_in, print_json, print_table, say, score_text

if TYPE_CHECKING:
    from epigraph.evaluation import Scores


def evaluate(
    prompt: Annotated[str, typer.Argument(help="a stored prompt: routing, routing@3 or routing@prod")],
    *,
    data: Annotated[str, typer.Option("--data", help="labelled file to score on")],
    per_class: Annotated[bool, typer.Option("--per-class", help="precision, recall and F1 of every label")] = False,
    confusion: Annotated[bool, typer.Option("--confusion", help="counts of true label by predicted label")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="any faulty row ends the command")] = False,
    base: BaseFlag = "",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Score a stored prompt on a file, with 95% intervals."""
    from epigraph.evaluation import evaluate as score
    from epigraph.jobs import open_prompt

    stored, task = _check_data(prompt, data, library, strict)
    model = open_prompt(stored, base=base, device=device, dtype=dtype, note=say)
    scores = score(model.method, task.rows, split="test")
    for note in _notes(model.task, task):
        say(f"note: {note}")
    if json:
        print_json({"prompt": stored.card.reference, "scores": scores.json} | _details(scores, per_class, confusion))
    else:
        _show(stored.card.reference, scores, per_class, confusion)


def _check_data(prompt: str, data: str, library: Path, strict: bool) -> tuple[Any, Any]:
    from epigraph.library import Library
    from epigraph.tasks.task import Task

    stored = Library(library).get(prompt)
    return stored, Task.from_dict(stored.card.task).read_rows(data, strict=strict)


def _notes(task: Any, split: Any) -> list[str]:
    found = [
        f"label {label!r} was never trained: its {rows} rows count as wrong"
        for label, rows in task.unseen_labels(split).items()
    ]
    some = ", ".join(f"line {f.line}: {f.reason}" for f in split.faults[:5])
    return found + ([f"{len(split.faults)} rows were skipped: {some}"] if split.faults else [])


def _details(scores: "Scores", per_class: bool, confusion: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if per_class and scores.labels:
        found["per_class"] = [c.__dict__ for c in scores.per_class()]
    if confusion and scores.labels:
        table = scores.confusion()
        found["confusion"] = {"labels": list(table.labels), "counts": table.counts.tolist()}
    return found


def _show(reference: str, scores: "Scores", per_class: bool, confusion: bool) -> None:
    metrics = metrics_in(scores.json)
    rows = [[reference, *(score_text(scores.json, m) for m in metrics)]]
    if "majority" in scores.json:
        rows.append(["majority class", f"{scores.json['majority']:.3f}", *["" for _ in metrics[1:]]])
    print_table("", [f"{scores.json['rows']} rows, 95% intervals", *(METRIC_NAMES[m] for m in metrics)], rows)
    if per_class and scores.labels:
        classes = [
            [c.label, f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.f1:.3f}", str(c.rows)] for c in scores.per_class()
        ]
        print_table("by class", ["label", "precision", "recall", "F1", "rows"], classes)
    if confusion and scores.labels:
        table = scores.confusion()
        counts = [[label, *map(str, row)] for label, row in zip(table.labels, table.counts.tolist(), strict=True)]
        print_table("true label (rows) by predicted label (columns)", ["", *table.labels], counts)
