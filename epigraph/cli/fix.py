"""``epigraph fix``: teach a stored prompt a handful of corrections, so that its other answers stay."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epigraph.cli.options import LIBRARY, BaseFlag, DeviceFlag, DtypeFlag, JsonFlag, LibraryFlag, examples, with_settings
from epigraph.cli.output import METRIC_NAMES, metrics_in, print_error, print_json, print_table, say, scores_rows
from epigraph.cli.progress import Progress
from epigraph.correct.settings import FixConfig

if TYPE_CHECKING:
    from epigraph.correct.fixed import FixResult

EXAMPLES = examples(
    "epigraph fix routing corrections.csv --data heldout.csv",
    "epigraph fix routing@prod corrections.csv --keep texts.csv --tolerance 0.01 --json",
    "epigraph library rollback routing",
)


@with_settings(FixConfig)
def fix(
    prompt: Annotated[str, typer.Argument(help="a stored prompt: routing, routing@3 or routing@prod")],
    corrections: Annotated[str, typer.Argument(help="file of texts with the right answers, such as errors --csv wrote")],
    *,
    config: FixConfig,
    keep: Annotated[
        str,
        typer.Option(
            "--keep", help="file of texts whose answers shall stay, labels unseen; by default the base writes some"
        ),
    ] = "",
    data: Annotated[str, typer.Option("--data", help="labelled held-out file to score on before and after")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="any faulty row ends the command")] = False,
    base: BaseFlag = "",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Learn a handful of corrections without the training data and store a new version, or refuse where too much else changes."""
    from epigraph.correct.corrections import read_corrections, skipped_note
    from epigraph.correct.fixing import check_fixable
    from epigraph.correct.fixing import fix as fix_prompt
    from epigraph.jobs import open_prompt
    from epigraph.library import Library
    from epigraph.model import task_of
    from epigraph.tasks.row import Split

    shelf = Library(library)
    stored = shelf.get(prompt)
    task = task_of(stored.card)
    check_fixable(stored)
    rows = read_corrections(task, corrections)
    kept = task.read_rows(keep, need_target=False, strict=strict) if keep else Split(rows=())
    held = task.read_rows(data, strict=strict) if data else Split(rows=())
    model = open_prompt(stored, base=base, device=device, dtype=dtype, note=say, keep=True)
    with Progress() as progress:
        result = fix_prompt(
            model,
            rows,
            keep=kept.rows,
            held_out=held.rows,
            config=config,
            keep_source=Path(keep).name if keep else "",
            stage=progress.stage,
        )
    result = replace(result, warnings=(*skipped_note(kept, keep), *skipped_note(held, data), *result.warnings))
    reference = None if result.refused else result.store(shelf).reference
    for warning in result.warnings:
        say(f"note: {warning}")
    if json:
        print_json({"prompt": reference, **result.json, **_refusal(result)})
    else:
        _show(result)
    if result.refused is not None:
        print_error("Refused", *result.refused, as_json=False)
        raise typer.Exit(2)
    say(f"stored {reference}; back again: epigraph library rollback {stored.card.name}")


def _refusal(result: "FixResult") -> dict[str, Any]:
    if result.refused is None:
        return {}
    message, hint = result.refused
    return {"error": {"type": "Refused", "message": message, "hint": hint}}


def _show(result: "FixResult") -> None:
    mastered, elsewhere, held = result.mastered, result.elsewhere, result.held_out
    print(f"{mastered.mastered} of {mastered.rows} corrections mastered ({mastered.already} were right before)")
    if mastered.by_heart:
        print(
            f"{mastered.by_heart} of them by heart: for these very texts, since learning more would have moved other answers"
        )
    if mastered.given_up:
        print(
            f"{mastered.given_up} given up: with them an expected {result.expected_of_all:.1%} of other answers would change, without "
            f"{result.expected:.1%}"
        )
    if mastered.missed and any(mastered.missed):
        print(f"not mastered: line {', '.join(map(str, mastered.missed))}")
    print(f"{elsewhere.changed} of {elsewhere.rows} other answers changed ({elsewhere.share:.1%}), on {result.kept}")
    if held is None:
        return
    there = held.changes
    print(
        f"held out: {there.changed} of {there.rows} answers changed ({there.share:.1%}): {there.broken} broken (right before, wrong "
        f"now), {there.fixed} fixed"
    )
    before, after = held.before.json, held.after.json
    metrics = metrics_in(after)
    rows = scores_rows({result.parent.reference: before, "corrected": after}, metrics)
    print_table("", [f"{there.rows} rows, 95% intervals", *(METRIC_NAMES[m] for m in metrics)], rows)
    change = held.change
    print(
        f"share of right answers: {change.value:+.3f} [{change.low:+.3f} to {change.high:+.3f}], McNemar's p = {held.p:.3g}"
    )
