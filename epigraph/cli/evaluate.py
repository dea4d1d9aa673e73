"""``epigraph evaluate``: score a stored prompt on a labelled file."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from epigraph.cli.options import LIBRARY, BaseFlag, CalibrateFlag, DeviceFlag, DtypeFlag, JsonFlag, LibraryFlag, examples
from epigraph.cli.output import METRIC_NAMES, metrics_in, print_json, print_table, say, scores_rows, share_text

if TYPE_CHECKING:
    from epigraph.evaluation import Scores
    from epigraph.jobs import Evaluation

EXAMPLES = examples(
    "epigraph evaluate routing --data test.csv",
    "epigraph evaluate routing@prod --data test.csv --per-class --confusion",
)
MOST_COLUMNS = 12
"""A confusion matrix of more labels than this is shown as a list of its largest errors."""


def evaluate(
    prompt: Annotated[str, typer.Argument(help="a stored prompt: routing, routing@3 or routing@prod")],
    *,
    data: Annotated[str, typer.Option("--data", help="labelled file to score on")],
    per_class: Annotated[bool, typer.Option("--per-class", help="precision, recall and F1 of every label")] = False,
    confusion: Annotated[bool, typer.Option("--confusion", help="counts of true label by predicted label")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="any faulty row ends the command")] = False,
    calibrate: CalibrateFlag = "",
    base: BaseFlag = "",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Score a stored prompt on a labelled file beside the hard prompt of its task, with 95% intervals."""
    from epigraph.jobs import evaluate_prompt

    done = evaluate_prompt(
        prompt,
        data,
        library=library,
        strict=strict,
        base=base,
        device=device,
        dtype=dtype,
        note=say,
        calibration=calibrate,
    )
    for warning in done.warnings:
        say(f"note: {warning}")
    if json:
        print_json(done.json | _details(done.scored, per_class, confusion))
    else:
        _show(done, per_class, confusion)


def _details(scores: "Scores", per_class: bool, confusion: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if per_class and scores.labels:
        found["per_class"] = [c.__dict__ for c in scores.per_class()]
    if confusion and _has_table(scores):
        table = scores.confusion()
        found["confusion"] = {"labels": list(table.labels), "counts": table.counts.tolist()}
    return found


def _show(done: "Evaluation", per_class: bool, confusion: bool) -> None:
    scores = done.scored
    metrics = metrics_in(scores.json)
    rows = scores_rows({f"soft prompt {done.reference}": scores.json, "hard prompt": done.hard.json}, metrics)
    print_table("", [f"{scores.json['rows']} rows, 95% intervals", *(METRIC_NAMES[m] for m in metrics)], rows)
    if (per_class or confusion) and not scores.labels:
        say("note: this prompt's answers are not labels of a list: there are none to show")
    if confusion and scores.sets is not None:
        say("note: a row may have several labels, so there is no table of true by predicted labels; --per-class works")
    if per_class and scores.labels:
        classes = [
            [c.label, share_text(c.precision), share_text(c.recall), share_text(c.f1), str(c.rows)]
            for c in scores.per_class()
        ]
        print_table("by label", ["label", "precision", "recall", "F1", "rows"], classes)
    if confusion and _has_table(scores):
        _show_confusion(scores)


def _has_table(scores: "Scores") -> bool:
    return bool(scores.labels) and scores.sets is None


def _show_confusion(scores: "Scores") -> None:
    table = scores.confusion()
    counts = table.counts.tolist()
    if len(table.labels) <= MOST_COLUMNS:
        rows = [[label, *map(str, row)] for label, row in zip(table.labels, counts, strict=True)]
        print_table("true label (rows) by predicted label (columns)", ["", *table.labels], rows)
        return
    errors = [
        (count, true, said)
        for true, row in zip(table.labels, counts, strict=True)
        for said, count in zip(table.labels, row, strict=True)
        if count and true != said
    ]
    errors.sort(key=lambda error: -error[0])
    print_table("the most frequent errors", ["true", "predicted", "rows"], [[t, p, str(n)] for n, t, p in errors[:20]])
