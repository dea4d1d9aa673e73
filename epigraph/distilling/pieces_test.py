"""Pieces are shorter, differ, and are none of the texts that are measured on."""

import pytest

from epigraph.distilling.pieces import cut
from epigraph.tasks.row import Row


def rows(*texts: str) -> list[Row]:
    return [Row(fields={"text": text}, target="good") for text in texts]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("It was good fun. We slept well.", {"It was good fun.", "We slept well."}),
        ("a fine film, though far too long", {"a fine film,", "though far too long"}),
        ("这部电影非常好看我很喜欢。但是时间实在是太长了", {"这部电影非常好看我很喜欢。", "但是时间实在是太长了"}),
        ("wonderful afternoon", {"wonderful", "afternoon"}),
    ],
)
def test_a_text_is_cut_where_it_pauses(text: str, pieces: set[str]) -> None:
    found = cut(rows(text), 5, seed=0)
    assert {row.fields["text"] for row in found} == pieces
    assert all(row.target is None for row in found)
    assert len(cut(rows(text), 1, seed=0)) == 1


def test_nothing_is_cut_that_is_there_or_too_short() -> None:
    assert cut(rows("one"), 3, seed=0) == []
    assert cut(rows("It is so. No. Ok."), 0, seed=0) == []
    given = rows("It was good fun. We slept well.", "We slept well.")
    found = {row.fields["text"] for row in cut(given, 5, seed=0)}
    assert found & {"It was good fun.", "We slept well."} == {"It was good fun."}
    assert not {row.fields["text"] for row in cut(given, 5, seed=0, but=rows("it was  GOOD fun."))} & {"It was good fun."}


def test_of_a_pair_the_longest_text_is_cut() -> None:
    pair = Row(fields={"premise": "He slept. The dog barked all night.", "hypothesis": "He slept well."})
    for one in cut([pair], 3, seed=1):
        assert one.fields["hypothesis"] == "He slept well."
        assert one.fields["premise"] != pair.fields["premise"]
