"""Trimming a text that comes in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from epigraph.serve.answers import Trim


@given(st.lists(st.text(alphabet=" \n\tab", max_size=4), max_size=8))
def test_pieces_trimmed_one_by_one_are_the_whole_trimmed(pieces: list[str]) -> None:
    trim = Trim()
    assert "".join(trim(piece) for piece in pieces) == "".join(pieces).strip()
