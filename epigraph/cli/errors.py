"""``epigraph errors``: the worst mistakes of a stored prompt, in groups, exportable for a person to correct."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epigraph.cli.options import LIBRARY, BaseFlag, DeviceFlag, DtypeFlag, JsonFlag, LibraryFlag, examples
from epigraph.cli.output import print_json, print_table, say, share_text

if TYPE_CHECKING:
    from epigraph.correct.mistakes import Mistake, Mistakes

EXAMPLES = examples(
    "epigraph errors routing --data test.csv --csv corrections.csv",
    "epigraph errors routing@2 --data test.csv --worst 20 --report mistakes.html --json",
)
TABLE_ROWS, TEXT = 20, 60


def errors(
    prompt: Annotated[str, typer.Argument(help="a stored prompt: routing, routing@3 or routing@prod")],
    *,
    data: Annotated[str, typer.Option("--data", help="labelled file to find mistakes on")],
    worst: Annotated[int, typer.Option("--worst", min=1, help="so many mistakes, those with the largest loss")] = 50,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="write them as a CSV: correct the labels in it, then epigraph fix takes it")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="write the whole as one HTML page")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="any faulty row ends the command")] = False,
    base: BaseFlag = "",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Find the worst mistakes of a stored prompt, between which labels and on what texts, and labels that are likely wrong."""
    from epigraph.correct.corrections import skipped_note
    from epigraph.correct.export import write_mistakes
    from epigraph.correct.mistakes import errors_of
    from epigraph.correct.page import mistakes_page
    from epigraph.explaining.known_rows import find_rows
    from epigraph.jobs import RUNS, open_prompt
    from epigraph.library import Library
    from epigraph.library.disk import replace_file, storing
    from epigraph.model import task_of

    stored = Library(library).get(prompt)
    rows = task_of(stored.card).read_rows(data, strict=strict)
    references = [stored.card.reference, *stored.card.lineage.parents]
    known = next((there for one in references if (there := find_rows(library / RUNS, one)) is not None), None)
    model = open_prompt(stored, base=base, device=device, dtype=dtype, note=say, keep=True)
    trained = known.train if known is not None else ()
    found = errors_of(model, rows.rows, worst=worst, trained=trained, source=Path(data).name)
    found = replace(found, warnings=[*skipped_note(rows, data), *found.warnings])
    extra = {}
    if csv is not None:
        extra["csv"] = str(write_mistakes(csv, model.task, data, found.worst))
        say(f"wrote {csv}: correct the labels in it, then: epigraph fix {stored.card.name} {csv}")
    if report is not None:
        with storing("the report", report):
            report.parent.mkdir(parents=True, exist_ok=True)
            replace_file(report, mistakes_page(found).encode())
        extra["report"] = str(report)
        say(f"wrote {report}")
    for warning in found.warnings:
        say(f"note: {warning}")
    print_json(found.json | extra) if json else _show(found)


def _show(found: "Mistakes") -> None:
    print(f"{found.prompt} answers {found.wrong} of {found.rows} rows wrong")
    if found.suspected:
        print(f"{found.suspected} labels in the data are likely wrong themselves")
    if found.pairs:
        rows = [[group.name, str(group.rows), f"{group.loss:.2f}"] for group in found.pairs[:TABLE_ROWS]]
        print_table("right → answered", ["labels", "rows", "mean loss"], rows)
    if found.similar:
        rows = [[g.name, str(g.rows), f"{g.loss:.2f}", _text(found.worst[g.members[0]])] for g in found.similar]
        print_table("on similar texts", ["words of their own", "rows", "mean loss", "most typical"], rows)
    rows = [
        [
            str(one.row.line),
            _text(one),
            one.truth,
            one.answer,
            "-" if one.probability is None else share_text(one.probability),
            f"{one.loss:.2f}",
            f"{one.instead}?" if one.instead else "",
        ]
        for one in found.worst[:TABLE_ROWS]
    ]
    columns = ["line", "text", "label", "answer", "probability", "loss", "label may be"]
    if rows:
        print_table(f"the worst {len(rows)} by loss in nats", columns, rows)


def _text(one: "Mistake") -> str:
    whole = " | ".join(one.row.fields.values()).replace("\n", " ")
    return whole if len(whole) <= TEXT else whole[: TEXT - 1] + "…"
