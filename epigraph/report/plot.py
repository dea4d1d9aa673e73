"""Pictures as inline SVG: points with intervals, and curves. Colours and sizes are the page's style, so they follow its mode.

    x' = left + (log x − log low) / (log high − log low) · width        linear axes without the logs

Every series has its own marker besides its colour, so that a print in grey can be read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760.0, 420.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 20.0, 14.0, 52.0
LETTER, LINE = 6.9, 15.0  # a label's width a letter and its height, in units of the picture
COLOURS = 12
MARKERS = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value with the bounds of its interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one name; ``number`` chooses colour and marker, the same in every picture of a page."""

    name: str
    points: Sequence[Point]
    number: int = 0


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / ((high - low) or 1.0) * (self.end - self.start)


def draw_scatter(series: Sequence[Series], *, x_name: str, y_name: str) -> str:
    """One point a series, labelled; x is logarithmic, and what costs nothing stands at the left edge."""
    shown = [one for one in series if one.points]
    positive = [p.x for one in shown for p in one.points if p.x > 0] or [1.0]
    floor = min(positive) / 3
    moved = [_at_least(one, floor) for one in shown]
    x, y = _x_axis([p.x for one in moved for p in one.points], log=True), _y_axis(moved)
    taken = [(x(p.x) - 7, y(p.y) - 7, x(p.x) + 7, y(p.y) + 7) for one in moved for p in one.points]
    parts = [*_frame(x, y, x_name, y_name, free=floor if min(p.x for o in shown for p in o.points) <= 0 else None)]
    for one in moved:
        for p in one.points:
            parts += [_bar(x, y, p, one.number), _marker(x(p.x), y(p.y), one.number)]
            parts.append(_label(one.name, x(p.x), y(p.y), taken, one.number))
    return _svg(parts, f"{y_name} against {x_name}: {', '.join(one.name for one in shown)}")


def draw_curves(series: Sequence[Series], *, x_name: str, y_name: str, ticks: Sequence[float] = ()) -> str:
    """Lines over a logarithmic x with intervals, each named at the right. A series of one point is a level."""
    shown = [one for one in series if one.points]
    names = max((len(one.name) for one in shown), default=0)
    x = _x_axis([p.x for one in shown for p in one.points], log=True, room=names * LETTER + 16)
    y = _y_axis(shown)
    parts = _frame(x, y, x_name, y_name, ticks=ticks)
    ends = _spread([y(sorted(one.points, key=lambda p: p.x)[-1].y) for one in shown])
    for one, end in zip(shown, ends, strict=True):
        points = sorted(one.points, key=lambda p: p.x)
        places = [(x(p.x), y(p.y)) for p in points]
        if len(points) == 1:
            places = [(x(x.low), places[0][1]), (x(x.high), places[0][1])]
        path = " ".join(f"{'L' if i else 'M'}{px:.1f} {py:.1f}" for i, (px, py) in enumerate(places))
        dashes = "" if len(points) > 1 else ' stroke-dasharray="6 5"'
        parts.append(f'<path class="series c{one.number % COLOURS}" style="fill:none"{dashes} d="{path}"/>')
        if len(points) > 1:
            parts += [_bar(x, y, p, one.number) for p in points] + [_marker(*place, one.number) for place in places]
        parts.append(_name(one.name, x(x.high) + 12, end + 4, one.number))
    return _svg(parts, f"{y_name} against {x_name}: {', '.join(one.name for one in shown)}")


def _at_least(one: Series, floor: float) -> Series:
    points = [Point(x=max(p.x, floor), y=p.y, low=p.low, high=p.high) for p in one.points]
    return Series(name=one.name, points=points, number=one.number)


def _x_axis(values: Sequence[float], *, log: bool, room: float = 0.0) -> _Axis:
    low, high = min(values, default=1.0), max(values, default=10.0)
    margin = 12.0 if room else 0.0
    if not room:
        low, high = low / 1.6, high * 1.6
    elif low == high:
        low, high = low / 2, high * 2
    return _Axis(low, high, LEFT + margin, WIDTH - RIGHT - room, log)


def _y_axis(series: Sequence[Series]) -> _Axis:
    points = [p for one in series for p in one.points]
    low = min((p.y if p.low is None else p.low for p in points), default=0.0)
    high = max((p.y if p.high is None else p.high for p in points), default=1.0)
    shares = low >= 0 and high <= 1  # a mean error in ranks lies above 1, kappa below 0: neither is cut off
    low, high = math.floor(low * 10 - 0.2) / 10, math.ceil(high * 10 + 0.2) / 10
    low, high = (max(0.0, low), min(1.0, high)) if shares else (low, high)
    return _Axis(low, high if high > low else low + 0.1, HEIGHT - BOTTOM, TOP)


def _frame(
    x: _Axis, y: _Axis, x_name: str, y_name: str, *, ticks: Sequence[float] = (), free: float | None = None
) -> list[str]:
    right = x.end
    parts = []
    step = _step(y.high - y.low)
    for n in range(math.ceil(y.low / step - 1e-6), math.floor(y.high / step + 1e-6) + 1):
        at = y(n * step)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{n * step:.2f}</text>')
    for value in ticks or _powers(x, free):
        parts.append(f'<line class="axis" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{y.start}" y2="{y.start + 5}"/>')
        parts.append(f'<text class="tick" x="{x(value):.1f}" y="{y.start + 19}" text-anchor="middle">{_tick(value)}</text>')
    if free is not None:
        parts.append(f'<text class="tick" x="{x(free):.1f}" y="{y.start + 19}" text-anchor="middle">0</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right:.1f}" y1="{y.start}" y2="{y.start}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_name)}</text>')
    turned = f'transform="rotate(-90 14 {HEIGHT / 2})"'
    parts.append(f'<text x="14" y="{HEIGHT / 2}" text-anchor="middle" {turned}>{escape(y_name)}</text>')
    return parts


def _step(height: float) -> float:
    """The distance of grid lines: at most a dozen of them."""
    if height <= 0.15:
        return 0.02
    steps = (m * 10.0**n for n in range(-2, 9) for m in (1, 2, 5) if (n, m) >= (-2, 5))
    return next(step for step in steps if step * (7 if step < 0.1 else 11) >= height - 1e-6)


def _tick(value: float) -> str:
    """A number on the axis: 0.01, 64, 1,000, 10⁹."""
    if value >= 1e5:
        mantissa, power = f"{value:.0e}".split("e")
        raised = str(int(power)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"10{raised}" if mantissa == "1" else f"{mantissa}·10{raised}"
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _powers(x: _Axis, free: float | None) -> list[float]:
    first, last = math.ceil(math.log10(x.low)), math.floor(math.log10(x.high))
    found = [10.0**n for n in range(first, last + 1)]
    if len(found) < 2:
        found = [m * 10.0**n for n in range(first - 1, last + 1) for m in (1, 2, 5) if x.low <= m * 10.0**n <= x.high]
    return [value for value in found if free is None or x(value) - x(free) > 40]


def _bar(x: _Axis, y: _Axis, p: Point, number: int) -> str:
    if p.low is None or p.high is None:
        return ""
    at = f"{x(p.x):.1f}"
    return f'<line class="bar c{number % COLOURS}" x1="{at}" x2="{at}" y1="{y(p.low):.1f}" y2="{y(p.high):.1f}"/>'


def _marker(x: float, y: float, number: int) -> str:
    style = f'class="c{number % COLOURS}"' if number < COLOURS / 2 else f'class="c{number % COLOURS} hollow"'
    kind = MARKERS[number % len(MARKERS)]
    if kind == "circle":
        return f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
    if kind == "square":
        return f'<rect {style} x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"/>'
    corners = ((0, -6), (5.5, 5), (-5.5, 5)) if kind == "triangle" else ((0, -6.5), (6, 0), (0, 6.5), (-6, 0))
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon {style} points="{points}"/>'


def _label(name: str, x: float, y: float, taken: list[tuple[float, float, float, float]], number: int) -> str:
    """The name where it covers nothing: right, left, above or below, and farther away if need be."""
    width = len(name) * LETTER
    left, right = LEFT + 2, WIDTH - 2
    below = [(dx, dy) for dy in range(4, 200, 14) for dx in (11, -width - 11, -width / 2)]
    above = [(dx, 8 - dy) for dx, dy in below]
    for dx, dy in (place for both in zip(below, above, strict=True) for place in both):
        box = (x + dx, y + dy - LINE + 3, x + dx + width, y + dy + 3)
        inside = left <= box[0] and box[2] <= right and box[1] >= TOP and box[3] <= HEIGHT - BOTTOM
        if inside and not any(_overlap(box, other) for other in taken):
            break
    else:
        box = (right - width, TOP, right, TOP + LINE)
    taken.append(box)
    return _name(name, max(left, box[0]), box[3] - 3, number)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _name(name: str, x: float, y: float, number: int) -> str:
    return f'<text class="label c{number % COLOURS}" x="{x:.1f}" y="{y:.1f}">{escape(name)}</text>'


def _spread(heights: Sequence[float]) -> list[float]:
    """The same heights, moved apart so that lines of text at them do not touch, inside the picture."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed, last = [0.0] * len(heights), -math.inf
    for i in order:
        placed[i] = last = max(heights[i], last + LINE)
    over = last - (HEIGHT - BOTTOM)
    limit = math.inf
    for i in reversed(order) if over > 0 else ():
        limit = min(placed[i], (HEIGHT - BOTTOM) if limit == math.inf else limit - LINE)
        placed[i] = limit
    return placed


def _svg(parts: Sequence[str], title: str) -> str:
    body = "\n".join(part for part in parts if part)
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>\n{body}\n</svg>"
    )
