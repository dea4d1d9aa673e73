"""Pictures and the page hold what they are given, escaped, and nothing from elsewhere."""

import re
import xml.etree.ElementTree as Tree

import pytest

from epigraph.explaining.page import visible
from epigraph.explaining.plot import Bar, bar_of, draw_bars, draw_heat, draw_lines
from epigraph.metrics import Interval

NASTY = '<script>alert("x")</script> & "quotes"'


@pytest.mark.parametrize(
    "picture",
    [
        draw_bars(
            NASTY, [Bar(name=NASTY, value=-0.5, low=-1.0, high=0.2), bar_of("b", Interval(0.3, 0.1, 0.6), strong=True)]
        ),
        draw_lines(NASTY, {NASTY: [0.1, 0.5, 1.0], "other": [1.0, 0.0, 0.2]}, ["1", "2", "3"], x_name=NASTY),
        draw_heat(NASTY, [[0.1, 0.9], [0.0, 1.0], [0.3, 0.3]], x_name="layer", y_name=NASTY),
    ],
)
def test_a_picture_is_well_formed_and_escaped(picture: str) -> None:
    root = Tree.fromstring(picture)
    assert root.attrib["role"] == "img"
    assert "<script" not in picture
    assert "http" not in picture
    assert not re.search(r"nan|inf", picture)


def test_no_bars_are_no_picture() -> None:
    assert draw_bars("nothing", []) == ""


def test_what_does_not_print_is_shown_by_its_escape() -> None:
    assert visible("a\n\x00 b") == "a\\n\\x00 b"
