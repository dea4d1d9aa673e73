"""Templates: fields, literal braces, prompt blocks, places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigraph.errors import TaskError
from epigraph.tasks.template import Piece, Template

TEXTS = st.text(st.sampled_from("ab {}\n机ế"), max_size=8).map(lambda t: t.replace("{", "{{").replace("}", "}}"))


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
        ("both", "{prompt}{{ {a}{prompt}\nLabel:"),
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


@given(TEXTS, TEXTS, TEXTS, st.sampled_from(["first", "last"]))
def test_placing_moves_the_prompt_and_nothing_else(before: str, between: str, after: str, place: str) -> None:
    template = Template(f"{before}{{a}}{{prompt}}{between}{{b}}{after}")
    placed = template.placed(place)
    assert placed.blocks == 1
    assert said(placed) == said(template)
    assert placed.placed(place) == placed
    if place == "first":
        assert placed.segments[0] == ()
    else:
        assert not any(piece.is_field for piece in placed.segments[1])
        assert placed.segments[0][-1] == Piece("b", True)


def said(template: Template) -> str:
    return "".join(f"<{p.text}>" if p.is_field else p.text for pieces in template.segments for p in pieces)


def test_several_blocks_become_one_when_placed() -> None:
    template = Template("{prompt}{text}{prompt}\nLabel:")
    assert template.placed("last").text == "{text}{prompt}\nLabel:"
    assert template.placed("first").text == "{prompt}{text}\nLabel:"
    assert template.placed("template") is template


@pytest.mark.parametrize(
    ("once", "twice"),
    [
        ("{text}\nLabel{prompt}:", "{text}\n{text}\nLabel{prompt}:"),
        ("Is it {{so}}?\n{a}\n{b}{prompt} or {prompt}:", "Is it {{so}}?\n{a}\n{b}\n{a}\n{b}{prompt} or {prompt}:"),
        ("{prompt}{text}\nLabel:", "{prompt}{text}\nLabel:"),
    ],
)
def test_rereading_repeats_the_fields_before_the_prompt(once: str, twice: str) -> None:
    assert Template(once).reread().text == twice
