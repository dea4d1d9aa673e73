"""Templates: fields, literal braces, prompt blocks, places."""

import pytest

from epigraph.errors import TaskError
from epigraph.tasks.template import Piece, Template


def test_fields_and_blocks_are_found() -> None:
    template = Template("{a}{prompt} and {b}, {a}{prompt}:")
    assert template.fields == ("a", "b")
    assert template.blocks == 2
    assert template.segments[-1] == (Piece(":", False),)


def test_double_braces_are_literal() -> None:
    template = Template('{{"x": {a}}}{prompt}')
    assert template.segments[0] == (Piece("{", False), Piece('"x": ', False), Piece("a", True), Piece("}", False))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("first", "{prompt}{{ {a}\nLabel:"),
        ("last", "{{ {a}{prompt}\nLabel:"),
        ("template", "{{ {a}\nLabel{prompt}:"),
        ("", "{{ {a}\nLabel{prompt}:"),
    ],
)
def test_a_prompt_moves_to_its_place(place: str, expected: str) -> None:
    assert Template("{{ {a}\nLabel{prompt}:").placed(place).text == expected


def test_without_a_prompt_it_is_refused() -> None:
    with pytest.raises(TaskError, match=r"has no \{prompt\}"):
        Template("{a}:")


@pytest.mark.parametrize("text", ["{a{prompt}", "a}{prompt}"])
def test_a_single_brace_is_refused(text: str) -> None:
    with pytest.raises(TaskError, match="single"):
        Template(text)


def test_an_empty_field_is_refused() -> None:
    with pytest.raises(TaskError, match="empty field"):
        Template("{}{prompt}")


def test_unknown_fields_are_named_beside_the_known() -> None:
    with pytest.raises(TaskError, match=r"names \{tex\}, but the data has text, label"):
        Template("{tex}{prompt}:").check_fields(("text", "label"))
