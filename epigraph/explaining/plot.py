"""Pictures as inline SVG: bars with intervals, lines, heat maps. No script, no font, no address; colours come from the page.

Every picture has a title and a description for those who do not see it. Coordinates are pixels of a canvas 640 wide, which the page
scales to its column.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from epigraph.metrics import Interval

Number = float | int
WIDTH, ROW, LEFT, RIGHT = 640, 24, 190, 70


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A line of a bar picture: its name, its value with bounds (or none), and what is written at its end."""

    name: str
    value: Number
    low: Number | None = None
    high: Number | None = None
    said: str = ""
    strong: bool = False


def bar_of(name: str, found: Interval, *, strong: bool = False, said: str = "") -> Bar:
    """A bar of an interval."""
    return Bar(
        name=name, value=found.value, low=found.low, high=found.high, strong=strong, said=said or f"{found.value:.2f}"
    )


def draw_bars(title: str, bars: Sequence[Bar], *, least: Number | None = None, most: Number | None = None) -> Markup:
    """Horizontal bars from zero, each with its interval as a whisker."""
    if not bars:
        return Markup("")
    ends = [v for bar in bars for v in (bar.value, bar.low, bar.high) if v is not None]
    low, high = min(0.0, *ends) if least is None else least, max(0.0, *ends) if most is None else most
    high = high if high > low else low + 1

    def x(value: Number) -> float:
        return LEFT + (min(max(value, low), high) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = [f'<line class="axis" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="{len(bars) * ROW}"/>']
    for i, bar in enumerate(bars):
        top, middle = i * ROW + 4, i * ROW + ROW / 2
        a, b = sorted((x(0), x(bar.value)))
        kind = "bar strong" if bar.strong else "bar minus" if bar.value < 0 else "bar"
        parts.append(
            f'<text class="name" x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(_short(bar.name, 28))}</text>'
        )
        parts.append(f'<rect class="{kind}" x="{a:.1f}" y="{top}" width="{max(1.0, b - a):.1f}" height="{ROW - 8}" rx="2"/>')
        if bar.low is not None and bar.high is not None:
            parts.append(f'<line class="whisker" x1="{x(bar.low):.1f}" x2="{x(bar.high):.1f}" y1="{middle}" y2="{middle}"/>')
        parts.append(
            f'<text class="said" x="{WIDTH - RIGHT + 8}" y="{middle + 4}">{escape(bar.said or f"{bar.value:.2f}")}</text>'
        )
    return _framed(
        title, "; ".join(f"{bar.name}: {bar.said or round(bar.value, 3)}" for bar in bars), len(bars) * ROW + 4, parts
    )


def draw_lines(
    title: str,
    series: Mapping[str, Sequence[float]],
    names: Sequence[str],
    *,
    x_name: str,
    least: Number = 0,
    most: Number = 1,
) -> Markup:
    """Lines over the same steps; ``names`` of the steps, of which a few are written."""
    height, left, bottom, top = 240, 48, 40, 14
    count = max(len(values) for values in series.values())
    span = most - least or 1.0

    def at(i: int, value: Number) -> tuple[float, float]:
        return left + i / max(1, count - 1) * (WIDTH - left - 20), top + (most - value) / span * (height - top - bottom)

    parts = []
    for tick in range(5):
        value = least + span * tick / 4
        y = at(0, value)[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_said(left - 6, y + 4, f"{value:.2f}", "end"))
    every = max(1, count // 10)
    parts += [_said(at(i, least)[0], height - 22, names[i]) for i in range(0, count, every)]
    parts.append(_said(WIDTH / 2, height - 4, x_name))
    for number, (name, values) in enumerate(series.items()):
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(i, v) for i, v in enumerate(values)))
        parts.append(f'<polyline class="line line{number}" points="{points}"/>')
        parts.append(f'<rect class="key{number}" x="{left + 10 + 200 * number}" y="0" width="18" height="4"/>')
        parts.append(f'<text class="said" x="{left + 34 + 200 * number}" y="8">{escape(name)}</text>')
    said = "; ".join(f"{name}: {', '.join(f'{v:.2f}' for v in values)}" for name, values in series.items())
    return _framed(title, said, height, parts)


def draw_heat(title: str, table: Sequence[Sequence[float]], *, x_name: str, y_name: str) -> Markup:
    """A table of numbers from 0 to 1 as shades; each row of the table is a column of the picture."""
    columns, rows = len(table), max(len(line) for line in table)
    left, cell = 60, (WIDTH - 70) / columns
    tall = min(22.0, max(8.0, 260 / rows))
    most = max(max(line) for line in table) or 1.0
    parts = [
        f'<rect class="heat" x="{left + c * cell:.1f}" y="{r * tall:.1f}" width="{cell - 0.5:.1f}" height="{tall - 0.5:.1f}" '
        f'fill-opacity="{0.04 + 0.96 * value / most:.3f}">'
        f"<title>{escape(x_name)} {c + 1}, {escape(y_name)} {r + 1}: {value:.2f}</title></rect>"
        for c, line in enumerate(table)
        for r, value in enumerate(line)
    ]
    height = rows * tall
    parts += [_said(left + (c + 0.5) * cell, height + 14, c + 1) for c in range(0, columns, max(1, columns // 10))]
    parts.append(_said(WIDTH / 2, height + 30, f"{x_name} (darkest: {most:.2f})"))
    parts.append(_said(0, height / 2, y_name, "start"))
    means = ", ".join(f"{x_name} {c + 1}: {sum(line) / len(line):.2f}" for c, line in enumerate(table))
    return _framed(title, f"means: {means}", height + 36, parts)


def _said(x: Number, y: Number, text: object, anchor: str = "middle") -> str:
    """A small text."""
    return f'<text class="said" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _framed(title: str, said: str, height: Number, parts: Sequence[str]) -> Markup:
    head = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
    head += f"<desc>{escape(said)}</desc>"
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704 (every text above is escaped)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
