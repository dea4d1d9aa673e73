"""A page says what it was given and nothing that was hidden in it; pictures keep their points inside."""

import random
import re
from xml.etree import ElementTree

import pytest

from epigraph.report import (
    Code,
    Figure,
    List,
    Page,
    Point,
    Section,
    Series,
    Table,
    Text,
    draw_curves,
    draw_scatter,
    to_html,
    to_markdown,
)

EVIL = "<script>alert(1)</script> & | *x*"
SERIES = [
    Series(name="kv", points=[Point(x=8.0, y=0.6, low=0.5, high=0.7), Point(x=64.0, y=0.8)], number=0),
    Series(name="full & more", points=[Point(x=8.0, y=0.5), Point(x=64.0, y=0.9)], number=7),
    Series(name="hard", points=[Point(x=64.0, y=0.55)], number=2),
]


def page() -> Page:
    table = Table(columns=["method", "score"], rows=[[EVIL, ".9"], ["b", "12 MB"]], caption="all", marked=[0])
    figure = Figure(svg=draw_curves(SERIES, x_name="rows", y_name="accuracy"), caption="a curve")
    parts = [Text(text=EVIL), List(items=["one", EVIL]), table, figure, Code(text="a\n<b>")]
    return Page(title=EVIL, lead=["first", EVIL], subtitle="s", sections=[Section(title="all", parts=parts)])


def test_what_is_given_is_never_markup() -> None:
    html = to_html(page())
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 6
    assert to_markdown(page()).count("<script") == 0


def test_nothing_is_fetched_and_every_mode_is_styled() -> None:
    html = to_html(page())
    assert not re.search(r"(src|href)=|url\(|@import", html)
    assert re.findall("https?://[^\"' ]+", html) == ["http://www.w3.org/2000/svg"]
    for needed in ("prefers-color-scheme: dark", "@media print", 'name="viewport"'):
        assert needed in html


def test_markdown_has_a_row_for_every_row() -> None:
    lines = to_markdown(page()).splitlines()
    assert sum(line.startswith("| ") for line in lines) == 4
    assert "| --- | ---: |" in lines
    assert all(line.replace("\\|", "").count("|") == 3 for line in lines if line.startswith("|"))


@pytest.mark.parametrize("draw", [draw_curves, draw_scatter])
def test_a_picture_is_well_formed_and_names_its_series(draw: object) -> None:
    svg = draw(SERIES, x_name="rows", y_name="accuracy")  # type: ignore[operator]
    texts = [node.text for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]
    assert {"kv", "full & more", "hard", "rows", "accuracy"} <= set(texts)


@pytest.mark.parametrize("spread", [0.0, 1.0, 12.0])
@pytest.mark.parametrize("count", [1, 12])
def test_points_stay_inside_the_picture(count: int, spread: float) -> None:
    draw = random.Random(count)
    points = [(10 ** draw.uniform(0, spread) if n else 0.0, draw.random() * min(1.0, spread)) for n in range(count + 1)]
    series = [Series(name=f"m{n}", points=[Point(x=x, y=y)], number=n) for n, (x, y) in enumerate(points)]
    costly = [one for one in series if one.points[0].x > 0]
    for svg in (draw_scatter(series, x_name="x", y_name="y"), draw_curves(costly, x_name="x", y_name="y")):
        root = ElementTree.fromstring(svg)
        for node in root.iter():
            for name, most in (("cx", 760), ("cy", 420), ("x1", 760), ("y1", 420), ("x", 760), ("y", 420)):
                if name in node.attrib:
                    assert -1 <= float(node.attrib[name]) <= most + 1
