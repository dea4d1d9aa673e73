"""A plot as SVG: measured points, a line beside them, both axes from zero."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 400, 70, 20, 40, 50
TICKS = 5
Points = Sequence[tuple[float, float]]


def plot(file: Path, title: str, axes: tuple[str, str], measured: Points, line: Points, line_name: str) -> None:
    """Write it; ``axes`` are the names of x and y."""
    right = max(x for x, _ in (*measured, *line))
    top = 1.05 * max(y for _, y in (*measured, *line))

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / right
        return round(across, 1), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / top, 1)

    parts = [_text(WIDTH / 2, 22, title, size=15), _text(WIDTH / 2, HEIGHT - 12, axes[0])]
    parts.append(f'<g transform="rotate(-90)">{_text(-HEIGHT / 2, 16, axes[1])}</g>')
    for i in range(TICKS + 1):
        x, y = right * i / TICKS, top * i / TICKS
        parts += [_line([at(x, 0), at(x, top)], "#e5e5e5"), _text(at(x, 0)[0], HEIGHT - BOTTOM + 18, f"{x:.4g}")]
        parts += [_line([at(0, y), at(right, y)], "#e5e5e5"), _text(LEFT - 8, at(0, y)[1] + 4, f"{y:.3g}", anchor="end")]
    parts.append(_line([at(x, y) for x, y in line], "#c2410c", dashed=True))
    parts.append(_text(WIDTH - RIGHT - 8, TOP + 14, f"- - {line_name}", anchor="end", colour="#c2410c"))
    parts += ['<circle cx="{}" cy="{}" r="4" fill="#1d4ed8"/>'.format(*at(x, y)) for x, y in measured]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    background = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([head, background, *parts, "</svg>"]) + "\n")


def _line(points: Points, colour: str, *, dashed: bool = False) -> str:
    joined = " ".join(f"{x},{y}" for x, y in points)
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    return f'<polyline points="{joined}" fill="none" stroke="{colour}"{dash}/>'


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "middle", colour: str = "#333") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
