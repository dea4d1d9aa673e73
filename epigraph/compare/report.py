"""The report of a comparison as a page: verdict, table, pictures, differences by label and row, how to run it again."""

from collections.abc import Mapping
from typing import Any

from epigraph.compare.amounts import IN_RANKS, gain_bounds, gain_text
from epigraph.compare.comparison import Comparison, Result, shared_rows
from epigraph.compare.disagreement import divided_rows, scores_by_label, shown_methods
from epigraph.compare.measuring import TASKS_HELD
from epigraph.compare.pace import duration
from epigraph.compare.session import RATE_ROWS
from epigraph.compare.spent import made
from epigraph.compare.verdict import FLOORS, verdict
from epigraph.metrics import LOWER_IS_BETTER
from epigraph.report import Code, Figure, List, Page, Part, Point, Section, Series, Table, Text, draw_curves, draw_scatter
from epigraph.report.numbers import bytes_text, count_text, interval_text, seconds_text, share_text

NONE = "–"
MOST_LABELS = 20


def make_page(comparison: Comparison, command: str = "") -> Page:
    """Everything that is known, the verdict first."""
    task, said = comparison.material.task, verdict(comparison)
    sections = [
        Section(
            title="What was found", parts=[List(items=said[1:]), *_notes(comparison)] if said[1:] else _notes(comparison)
        ),
        Section(title="All methods", parts=_table(comparison)),
        Section(title="What each costs", parts=_costs(comparison)),
        Section(title="Score against cost", parts=_scatter(comparison)),
        Section(title="How many rows does it take?", parts=_curves(comparison)),
        Section(title="Which differences are more than chance?", parts=_pairs(comparison)),
        Section(title="Where methods differ", parts=_differences(comparison)),
        Section(title="What was chosen", parts=_choices(comparison)),
        Section(title="To run it again", parts=_again(comparison, command)),
    ]
    rows = f"{comparison.every:,} training rows, {len(comparison.material.test):,} {comparison.material.split} rows"
    seeds = f"{comparison.config.seeds} seed{'s' if comparison.config.seeds > 1 else ''}"
    return Page(
        title=f"Which method for {task.name}?",
        subtitle=f"{rows}, {seeds}, {comparison.metric}; base {comparison.base.name} in {comparison.base.precision.name}",
        lead=said[:1],
        sections=[section for section in sections if section.parts],
    )


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The contract's object."""
    material, said = comparison.material, verdict(comparison)
    return {
        "verdict": said[0],
        "findings": said[1:],
        "methods": [result.json for result in comparison.results],
        "pairs": [pair.json for pair in comparison.pairs],
        "metric": comparison.metric,
        "rows": {"train": comparison.every, "test": len(material.test), "split": material.split},
        "base": {
            "name": comparison.base.name,
            "fingerprint": comparison.base.fingerprint,
            "dtype": comparison.base.precision.name,
            "bytes": comparison.base_bytes,
        },
        "settings": comparison.config.to_dict(),
        "seconds": round(comparison.seconds, 1),
        "warnings": comparison.warnings,
    }


def _notes(comparison: Comparison) -> list[Part]:
    return [Text(text=warning, note=True) for warning in comparison.warnings]


def _table(comparison: Comparison) -> list[Part]:
    order = [*comparison.done, *(r for r in comparison.results if not r.done)]
    rows = [_row(result, len(comparison.material.test)) for result in order]
    majority = next((r.scores["majority"] for r in comparison.done if "majority" in r.scores), None)
    if majority is not None and comparison.metric in FLOORS:
        rows.append([FLOORS[comparison.metric], share_text(majority), *[NONE] * 6])
    columns = [
        "method",
        f"{comparison.metric} [95%]",
        "training",
        "rate search",
        "trained numbers",
        "kept a task",
        "tokens added",
        "one request",
    ]
    parts: list[Part] = [Table(columns=columns, rows=rows, marked=[0] if comparison.done else [])]
    reasons = [f"{r.method.title}: {r.status}: {r.reason}" for r in order if r.reason]
    if reasons:
        parts += [Text(text="Not run, or not for every seed:"), List(items=reasons)]
    return [*parts, *_intervals(comparison)]


def _intervals(comparison: Comparison) -> list[Part]:
    """What the intervals cover; by method where that differs."""
    said: dict[str, list[str]] = {}
    for result in comparison.done:
        said.setdefault(str(result.scores["interval"]), []).append(result.method.title)
    if len(said) == 1:
        return [Text(text=f"Intervals: {next(iter(said))}.", note=True)]
    return [Text(text=f"Intervals of {', '.join(titles)}: {what}.", note=True) for what, titles in said.items()]


def _row(result: Result, tests: int) -> list[str]:
    if not result.done:
        return [result.method.title, result.status, *[NONE] * 6]
    score, cost = result.scores[result.metric], result.cost
    answered = shared_rows(result)
    return [
        result.method.title,
        interval_text(score["value"], score["low"], score["high"]) + (f", {answered} rows" if answered < tests else ""),
        seconds_text(float(cost["seconds"])),
        seconds_text(float(cost["search_seconds"])) if result.method.trained else NONE,
        count_text(float(cost["trained_parameters"])) if cost["trained_parameters"] else "0",
        bytes_text(float(cost["kept_bytes"])),
        str(cost["added_tokens"]),
        seconds_text(float(cost["latency_seconds"])) if "latency_seconds" in cost else NONE,
    ]


def _costs(comparison: Comparison) -> list[Part]:
    if not comparison.done:
        return []
    rows = []
    for result in comparison.done:
        cost = result.cost
        loss = result.forgetting
        rows.append(
            [
                result.method.title,
                count_text(made(cost, "flops")),
                f"{made(cost, 'joules'):,.0f} J",
                bytes_text(float(cost["peak_memory_bytes"])),
                count_text(float(cost["kept_parameters"])),
                bytes_text(float(cost["held_bytes"])),
                f"{cost['rows_a_second']:.1f}" if "rows_a_second" in cost else NONE,
                f"{loss['before']:.3f} → {loss['after']:.3f}" if loss else "unchanged",
            ]
        )
    columns = [
        "method",
        "FLOPs",
        "energy",
        "own peak memory",
        "kept numbers",
        "held a task",
        "rows a second",
        "general text",
    ]
    source = "; ".join(dict.fromkeys(str(r.cost["joules_source"]) for r in comparison.done))
    explained = (
        "FLOPs are counted: all products of training, choosing and validation, and of reading the texts. FLOPs and energy "
        f"are those of one training and of the search for its learning rate. Energy: {source}. Own peak memory: what "
        "training added to the process's own pages at its highest, above what was there before, and the base's weights. "
        "Held: what a task takes in memory to answer at once, beside the base. "
        "General text: the model's loss in nats a token before and after. A request: the median of five texts that were never "
        "read before."
    )
    held = [
        [r.method.title, *(bytes_text(float(r.cost["bytes_of_tasks"][str(k)])) for k in TASKS_HELD)] for r in comparison.done
    ]
    tasks = [f"{k:,} task{'s' if k > 1 else ''}" for k in TASKS_HELD]
    return [
        Table(columns=columns, rows=rows),
        Text(text=explained, note=True),
        Table(columns=["method", *tasks], rows=held, caption="Bytes of many tasks kept side by side, the base among them"),
    ]


def _scatter(comparison: Comparison) -> list[Part]:
    if len(comparison.done) < 2:
        return []
    series = [
        Series(name=r.name, points=[_point(made(r.cost, "flops"), r)], number=_number(comparison, r))
        for r in comparison.done
    ]
    svg = draw_scatter(series, x_name="training and rate search, counted FLOPs", y_name=comparison.metric)
    side = "Lower" if comparison.metric in LOWER_IS_BETTER else "Higher"
    caption = f"{side} is better, farther left is cheaper; bars are 95% intervals."
    return [Figure(svg=svg, caption=caption)]


def _point(x: float, result: Result) -> Point:
    score = result.scores[result.metric]
    return Point(x=x, y=score["value"], low=score["low"], high=score["high"])


def _curves(comparison: Comparison) -> list[Part]:
    series = []
    for result in comparison.results:
        points = [Point(x=float(n), y=value, low=low, high=high) for n, value, low, high, _ in result.curve]
        if len(points) > 1 or (points and not result.method.curved):
            series.append(Series(name=result.name, points=points, number=_number(comparison, result)))
    if not any(len(one.points) > 1 for one in series):
        return _gaps(comparison)
    ticks = sorted({p.x for one in series for p in one.points})
    svg = draw_curves(series, x_name="labelled rows, validation among them", y_name=comparison.metric, ticks=ticks)
    seeds = comparison.config.curve_seeds
    caption = (
        f"Points below all rows are of {seeds} seed{'s' if seeds > 1 else ''}; dashed: methods that more rows do not change. "
        "Few rows are the first of the rows that longer points hold. The learning rates of trained methods were searched once, on "
        f"up to {RATE_ROWS} rows: points of fewer rows know more than their rows tell."
    )
    table = [
        [one.name, *(next((share_text(p.y) for p in one.points if p.x == tick), NONE) for tick in ticks)] for one in series
    ]
    columns = ["rows", *(f"{tick:,.0f}" for tick in ticks)]
    return [Figure(svg=svg, caption=caption), Table(columns=columns, rows=table), *_gaps(comparison)]


def _gaps(comparison: Comparison) -> list[Part]:
    """Points that are not there, and why; methods without any score are named elsewhere."""
    points: dict[tuple[str, str, str], list[int]] = {}
    for result in comparison.done:
        for cell in result.gaps:
            points.setdefault((result.method.title, cell.status, cell.reason), []).append(cell.rows)
    said = [
        f"{title}, {', '.join(str(n) for n in sorted(set(rows)))} rows: {status}: {reason}"
        for (title, status, reason), rows in points.items()
    ]
    return [Text(text="Points that are missing, or not of every seed:"), List(items=said)] if said else []


def _pairs(comparison: Comparison) -> list[Part]:
    if not comparison.pairs:
        return []
    titles = {r.name: r.method.title for r in shown_methods(comparison)}
    pairs = [pair for pair in comparison.pairs if pair.first in titles and pair.second in titles]
    rows = []
    for pair in sorted(pairs, key=lambda p: (not p.significant, p.p)):
        d = pair.difference
        rows.append(
            [
                f"{titles[pair.first]} over {titles[pair.second]}",
                gain_text(comparison.metric, -d.value),
                " to ".join(gain_bounds(comparison.metric, -d.high, -d.low)),
                f"{pair.p:.4f}",
                "yes" if pair.significant else "no",
                str(pair.rows),
            ]
        )
    unit = "ranks nearer" if comparison.metric in IN_RANKS else "points"
    columns = ["pair", unit, "95%, this pair alone", "p (Holm)", "significant", "rows"]
    note = (
        "Both methods on the same test rows, rows and seeds resampled together "
        f"({comparison.resamples:,} times); where answers are right or wrong, "
        "McNemar's exact test as well (of several seeds twice the median), and the larger p of the two. Holm's correction is "
        f"over all {len(comparison.pairs)} pairs, and not in the intervals; "
        "those of the best method of every family are shown, result.json has all."
    )
    if not all(pair.training_variance for pair in pairs):
        note += (
            " Where a method has one seed, training variance is in neither interval nor p: they are over the test rows only."
        )
    return [Table(columns=columns, rows=rows), Text(text=note, note=True)]


def _differences(comparison: Comparison) -> list[Part]:
    shown = shown_methods(comparison)
    if len(shown) < 2:
        return []
    parts: list[Part] = []
    titles = [r.name for r in shown]
    labels = scores_by_label(comparison, shown)
    if labels:
        rows = [[one.label, str(one.rows), *(share_text(f1) for f1 in one.f1)] for one in labels[:MOST_LABELS]]
        more = f", the {MOST_LABELS} of {len(labels)} labels that differ most" if len(labels) > MOST_LABELS else ""
        parts.append(
            Table(columns=["label", "rows", *titles], rows=rows, caption=f"F1 by label, the mean of all seeds{more}")
        )
    divided = divided_rows(comparison, shown)
    if divided:
        rows = [[one.text, one.truth, *one.said] for one in divided]
        caption = "Test rows on which these methods disagree most (first seed)"
        parts.append(Table(columns=["row", "truth", *titles], rows=rows, caption=caption))
    return parts


def _choices(comparison: Comparison) -> list[Part]:
    """Settings and reasons of every method, of its first seed on all rows."""
    parts: list[Part] = []
    for result in comparison.done:
        said = [
            f"{name}: {_brief(value)}" for name, value in result.settings.items() if not isinstance(value, Mapping) or value
        ]
        why = [f"{name}: {reason}" for name, reason in result.reasons.items()]
        if said or why:
            parts += [Text(text=result.method.title), List(items=[*said, *(f"why {line}" for line in why)])]
    return parts


def _brief(value: object, most: int = 300) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _again(comparison: Comparison, command: str) -> list[Part]:
    from epigraph.library.card import package_version

    task, material, base = comparison.material.task, comparison.material, comparison.base
    facts = [
        f"epigraph {package_version()}; base {base.name}, fingerprint {base.fingerprint[:16]}, {base.precision.name} "
        f"on {base.device.type}",
        f"training data {task.train.source or 'given as rows'}; test rows: {material.split}",
        "settings: " + ", ".join(f"{name} {value}" for name, value in comparison.config.to_dict().items() if value != ""),
        f"this run took {duration(comparison.seconds)}; cells that were finished before were read",
    ]
    parts: list[Part] = [List(items=facts)]
    return [Code(text=command), *parts] if command else parts


def _number(comparison: Comparison, result: Result) -> int:
    return [r.name for r in comparison.results].index(result.name)
