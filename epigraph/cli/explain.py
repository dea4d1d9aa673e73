"""``epigraph explain``: what a stored prompt does, why it answers as it does, what could go wrong."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epigraph.cli.options import LIBRARY, BaseFlag, DeviceFlag, DtypeFlag, JsonFlag, LibraryFlag, examples
from epigraph.cli.output import print_json, print_table, say, share_text
from epigraph.cli.progress import Progress
from epigraph.errors import ConfigError, DataError, InputError

if TYPE_CHECKING:
    from epigraph.explaining import Explanation
    from epigraph.explaining.slices import Group
    from epigraph.explaining.why import Part, Why
    from epigraph.metrics import Interval
    from epigraph.model import Given
    from epigraph.tasks.row import Row

EXAMPLES = examples(
    "epigraph explain routing --data test.csv --report routing.html",
    'epigraph explain routing --text "my card was swallowed"',
    "epigraph explain routing --with routing@1 --group country --data test.csv --budget 60s --json",
    "epigraph explain routing --data test.csv --prune routing-short",
)
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def explain(
    prompt: Annotated[str, typer.Argument(help="a stored prompt: routing, routing@3 or routing@prod")],
    *,
    data: Annotated[
        str, typer.Option("--data", help="file to measure on; by default the rows that its run was scored on")
    ] = "",
    text: Annotated[
        str,
        typer.Option(
            "--text", help="explain the answer to this text (or JSON object of fields); without --data or --report only that"
        ),
    ] = "",
    other: Annotated[str, typer.Option("--with", help="another stored prompt of the same task to compare with")] = "",
    group: Annotated[
        list[str] | None, typer.Option("--group", help="compare the groups that this column of --data names")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="write the whole as one HTML page")] = None,
    prune: Annotated[
        str, typer.Option("--prune", help="store the fewest vectors that keep 99% of the score under this name")
    ] = "",
    budget: Annotated[
        str, typer.Option("--budget", help="begin no further section after this time, such as 60s or 5m")
    ] = "",
    rows: Annotated[int, typer.Option("--rows", min=8, help="the most rows that are measured on")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="seed of draws and resamples")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="any faulty row ends the command")] = False,
    base: BaseFlag = "",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Explain a stored prompt: what matters in it, what it pushes, why an answer, what could go wrong. Warnings come first."""
    from epigraph.explaining import ExplainConfig
    from epigraph.explaining import explain as explain_prompt
    from epigraph.explaining.explanation import FEWEST
    from epigraph.explaining.known_rows import find_rows
    from epigraph.explaining.matters import prune as shorten
    from epigraph.jobs import RUNS, open_prompt
    from epigraph.library import Library, check_name
    from epigraph.model import PromptModel
    from epigraph.tasks.task import Task

    config = ExplainConfig(rows=rows, seed=seed, budget=read_budget(budget))
    if prune:
        check_name(prune)
    if group and not data:
        raise InputError("--group was given without --data.", "Name the file that has the column with --data.")
    shelf = Library(library)
    stored = shelf.get(prompt)
    second = shelf.get(other) if other else None
    task = Task.from_dict(stored.card.task)
    known = find_rows(library / RUNS, stored.card.reference)
    only_why = bool(text) and not (data or report or other or prune)
    split = task.read_rows(data, need_target=False, strict=strict) if data else None
    if split is not None and split.skipped:
        say(f"note: {split.skipped}")
    found_rows = split.rows if split is not None else known.rows if known is not None else ()
    if not found_rows and not text:
        raise DataError(
            f"there are no rows to measure {stored.card.reference!r} on: its run's data is not there any more.",
            "Give a file with --data, or one --text.",
        )
    if split is None and known is not None and len(found_rows) < FEWEST and text:
        found_rows = ()  # too few to measure on; the text can be explained without
    source = f"{Path(data).name}" if split is not None else known.source if known is not None else ""
    groups = {name: group_values(data, name, found_rows) for name in group or ()}
    model = open_prompt(stored, base=base, device=device, dtype=dtype, note=say, keep=True)
    compared = PromptModel(second, model.method.engine.base, engine=model.method.engine) if second is not None else None
    with Progress() as progress:
        found = explain_prompt(
            model,
            found_rows,
            text=_given(text) if text else None,
            other=compared,
            groups=groups,
            train=known.train if known is not None else (),
            source=source,
            split=known.split if split is None and known is not None else "test",
            only=("why",) if only_why else (),
            config=config,
            stage=progress.stage,
        )
    extra = {}
    if prune:
        if "matters" not in found.sections:
            raise InputError("nothing was pruned: what matters was not measured.", "Give rows and a larger --budget.")
        forms, card = shorten(found.case, found.sections["matters"], prune)
        extra["pruned"] = shelf.add(prune, forms, card).reference
        say(f"stored the shorter prompt as {extra['pruned']}")
    if report is not None:
        found.save(report)
        extra["report"] = str(report)
        say(f"wrote {report}")
    print_json(found.json | extra) if json else _show(found)


def _given(text: str) -> "Given":
    """A text, or the fields of a JSON object, as ``predict`` reads them: lists, such as choices, stay lists."""
    from epigraph.cli.predict import _given as read

    return read(text)


def read_budget(text: str) -> float:
    """Seconds of "60s", "5m", "1h" or "90"; 0 where nothing is given. ConfigError on anything else."""
    if not text:
        return 0.0
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text.lower())
    if found is None or float(found.group(1)) <= 0:
        raise ConfigError(f"--budget {text!r} was asked; it must be a time above zero.", "Write 60s, 5m or 1h.")
    return float(found.group(1)) * SECONDS[found.group(2)]


def group_values(data: str, column: str, rows: "Sequence[Row]") -> list[str]:
    """The value that a column of the file has in each of these rows; DataError if there is no such column."""
    from epigraph.tasks.cells import cell_text
    from epigraph.tasks.sources import read_table

    table = read_table(data)
    if column not in table.columns:
        raise DataError(f"{data} has no column {column!r}.", f"It has: {', '.join(table.columns)}.")
    by_line = {line: cell_text(record.get(column)) or "" for line, record in zip(table.lines, table.records, strict=True)}
    return [by_line.get(row.line, "") for row in rows]


def _show(found: "Explanation") -> None:
    measured = f"measured on {found.rows} rows of {found.source}" if found.rows else "one answer explained, no rows measured"
    print(f"{found.prompt}, {measured} in {found.seconds:.0f} s")
    if found.unlabelled:
        say(f"note: {found.unlabelled} of {found.rows} rows do not say what is right; scores are of the others")
    if found.seen_before:
        print(found.seen_before)
    if found.warnings:
        print("warnings, the most serious first:")
        for number, warning in enumerate(found.warnings, 1):
            print(f"  {number}. {warning}")
    elif set(found.sections) != {"why"}:
        print("nothing of what was tried gave reason for a warning")
    rows = _facts(found)
    if rows:
        print_table("", ["", "", ""], rows)
    for left in found.left_out:
        say(f"not measured: {left.section} ({left.reason})")


def _signed(found: "Interval") -> str:
    return f"{found.value:+.3f} [{found.low:+.3f} to {found.high:+.3f}]"


def _facts(found: "Explanation") -> list[list[str]]:
    """One line a section."""
    parts, rows = found.sections, []
    if "score" in parts and isinstance(parts["score"].get("accuracy"), dict):
        rows.append(["score", "accuracy", share_text(parts["score"]["accuracy"]["value"])])
    if "why" in parts:
        why = parts["why"]
        rows += _why(why)
        if why.reliable is not None:
            rows.append(["", why.reliable.words, ""])
        if why.neighbours:
            rows.append(["", f"nearest among {why.neighbours_of}", "; ".join(n.text for n in why.neighbours[:2])])
    if "matters" in parts:
        m = parts["matters"]
        rows.append(
            [
                "matters",
                f"{len(m.fewest.kept)} of {len(m.vectors)} vectors kept 99% of the {m.metric} where they were chosen",
                f"on other rows {_signed(m.fewest.change)}",
            ]
        )
    if "pushes" in parts:
        p = parts["pushes"]
        rows.append(["pushes", "tokens it raises most", ", ".join(repr(t.token) for t in p.up[:4])])
    if "says" in parts:
        rows.append(["says", parts["says"].verdict, "; ".join(d.text for d in parts["says"].descriptions[:1])])
    if "twin" in parts:
        t = parts["twin"]
        rows.append(
            ["twin", t.best.text[:200], f"agrees {share_text(t.best.agreement.value)}, {t.metric} {_signed(t.change)}"]
        )
    if "waywardness" in parts:
        w = parts["waywardness"]
        rows.append(["nearest words", w.verdict, f"{share_text(w.soft.value)} / {share_text(w.wayward.value)}"])
    if "pair" in parts:
        c = parts["pair"]
        rows.append(["pair", f"same answer as {c.second}", share_text(c.agreement.value)])
    if "groups" in parts:
        rows += [["groups", *_group(one)] for one in parts["groups"].groups]
        rows += [["groups", left, ""] for left in parts["groups"].dropped]
    return rows


def _why(found: "Why") -> list[list[str]]:
    """The five parts that count most, by each method that can be relied on."""
    if found.sums:
        gradients = ["", "integrated gradients", _largest(found.parts, [part.integrated for part in found.parts])]
    else:
        gradients = ["", "integrated gradients", f"not told: their sum misses {found.gap:.0%} of what it should explain"]
    return [
        ["why", f"{found.answer} rather than {found.instead}", f"by {found.margin:.1f} nats"],
        gradients,
        ["", "leave-one-out", _largest(found.parts, [part.left_out for part in found.parts])],
        ["", "how far the two agree", f"{found.agreement:+.2f} (rank correlation)"],
    ]


def _largest(parts: "Sequence[Part]", worth: Sequence[float]) -> str:
    """The five that are worth most, tokens in quotation marks."""
    top = sorted(zip(parts, worth, strict=True), key=lambda pair: -abs(pair[1]))[:5]
    return ", ".join(f"{part.what if part.prompt else repr(part.what.strip() or part.what)} {w:+.2f}" for part, w in top)


def _group(one: "Group") -> list[str]:
    """Which rows they are, and how right it is there against elsewhere."""
    what = f"{one.column} is {one.value!r}, {one.rows} rows"
    if one.accuracy is None or one.gap is None:
        return [what, ", ".join(f"answers {rate.label!r} in {rate.rate.value:.0%}" for rate in one.rates[:3])]
    chance = "" if one.sure else ", may be chance"
    return [what, f"accuracy {share_text(one.accuracy.value)}, {_signed(one.gap)} against the others{chance}"]
