"""A sequence as one HTML file that needs nothing else: numbers, matrices as heat maps, growth.

A cell's colour is R[t, i] from 0 (white) to 1; below the diagonal stands what was learned, on it what was just learned, above
it what is not learned yet.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epigraph.continual.measures import DEFINITIONS, MEANINGS, Measures
from epigraph.library.disk import replace_file, storing

if TYPE_CHECKING:
    from epigraph.continual.sequence import ContinualResult

CELL, LEFT, TOP = 56, 150, 70
STYLE = """body{font:15px system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1c1917}
table{border-collapse:collapse;margin:.6rem 0 1.4rem}td,th{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #e7e5e4}
td:first-child,th:first-child{text-align:left}.maps{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0}
figcaption{color:#57534e}dt{font-weight:600}svg{max-width:100%;height:auto}"""


def write_report(file: Path, result: "ContinualResult") -> None:
    """Write it, whole or not at all. StorageFailed if that cannot be."""
    with storing("the report", file):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, report_html(result).encode())


def report_html(result: "ContinualResult") -> str:
    """The page."""
    parts = [
        f"<h1>{len(result.order)} tasks, one after another</h1>",
        f"<p>Order: {escape(' → '.join(result.order))}. {_labels(result)}</p>",
    ]
    for scenario, meaning in MEANINGS.items():
        measures = {name: found[scenario] for name, found in result.methods.items()}
        maps = "".join(_figure(name, result.order, found) for name, found in measures.items())
        parts += [f"<h2>{scenario}</h2><p>{escape(meaning)}.</p>", _table(measures), f'<div class="maps">{maps}</div>']
    parts += ["<h2>Growth</h2>", *(_growth(name, grown) for name, grown in result.growth.items())]
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in DEFINITIONS.items())
    parts += [f"<h2>What the numbers are</h2><dl>{terms}</dl>"]
    parts += [f"<p>{escape(note)}</p>" for note in result.notes]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(" → ".join(result.order))}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _labels(result: "ContinualResult") -> str:
    said = f"{result.labels} labels in the union."
    how = "as many labels as tasks" if result.distinct_labels else "one label"
    shared = [f"“{escape(words)}” of {escape(', '.join(names))} is {how}." for words, names in result.shared_labels.items()]
    return " ".join([said, *shared])


def _table(measures: Mapping[str, Measures]) -> str:
    head = "".join(
        f"<th>{name}</th>" for name in ("method", "average accuracy", "backward transfer", "forgetting", "forward transfer")
    )
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(
            f"<td>{_number(v)}</td>" for v in (m.average_accuracy, m.backward_transfer, m.forgetting, m.forward_transfer)
        )
        + "</tr>"
        for name, m in measures.items()
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _figure(name: str, order: Sequence[str], measures: Measures) -> str:
    return f"<figure>{matrix_svg(order, order, measures.matrix, 'after')}<figcaption>{escape(name)}</figcaption></figure>"


def matrix_svg(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], prefix: str = ""
) -> str:
    """A table of numbers from 0 to 1 as coloured cells."""
    width, height = LEFT + CELL * len(columns) + 60, TOP + CELL * len(rows) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" font-family="sans-serif">'
    ]
    for i, name in enumerate(columns):
        x = LEFT + CELL * i + CELL / 2
        parts.append(f'<text transform="translate({x},{TOP - 8}) rotate(-35)" font-size="12">{escape(name[:18])}</text>')
    for t, name in enumerate(rows):
        y = TOP + CELL * t
        label = escape(f"{prefix} {name}".strip()[:22])
        parts.append(f'<text x="{LEFT - 8}" y="{y + CELL / 2 + 4}" font-size="12" text-anchor="end">{label}</text>')
        for i, value in enumerate(values[t]):
            parts.append(_cell(LEFT + CELL * i, y, value, own=t == i))
    return "".join([*parts, "</svg>"])


def _cell(x: int, y: int, value: float | None, *, own: bool) -> str:
    share = 0.0 if value is None else min(1.0, max(0.0, value))
    colour = (
        "#fafaf9"
        if value is None
        else f"rgb({255 - round(226 * share)},{255 - round(177 * share)},{255 - round(39 * share)})"
    )
    edge = "#1c1917" if own else "#e7e5e4"
    ink = "#ffffff" if share > 0.55 else "#1c1917"
    return (
        f'<rect x="{x + 1}" y="{y + 1}" width="{CELL - 2}" height="{CELL - 2}" fill="{colour}" stroke="{edge}"/>'
        f'<text x="{x + CELL / 2}" y="{y + CELL / 2 + 4}" font-size="13" text-anchor="middle" fill="{ink}">{_number(value)}</text>'
    )


def _growth(name: str, grown: Sequence[Mapping[str, Any]]) -> str:
    head = (
        "<tr><th>"
        + "</th><th>".join(["after", "bytes kept", "tokens added at inference", "trained numbers", "seconds"])
        + "</th></tr>"
    )
    keys = ("bytes", "inference_tokens", "trained_parameters", "seconds")
    rows = "".join(
        f"<tr><td>{escape(one['task'])}</td>" + "".join(f"<td>{one[key]:,}</td>" for key in keys) + "</tr>" for one in grown
    )
    return f"<h3>{escape(name)}</h3><table>{head}{rows}</table>"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
