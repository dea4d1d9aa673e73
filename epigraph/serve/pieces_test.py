"""Single tokens as clients see them."""

from epigraph.base.toy import END, toy_base
from epigraph.serve.pieces import Pieces, byte_characters


def test_bytes_of_the_tokens_of_a_text_are_its_bytes() -> None:
    base = toy_base()
    pieces = Pieces(base)
    text = "né\u4e2d \U0001f600!"
    ids = base.tokenize(text)
    assert bytes(byte for token in ids for byte in pieces.bytes_of(token)) == text.encode()
    assert [pieces.text(token) for token in base.tokenize("né")] == ["n", "bytes:\\xc3", "bytes:\\xa9"]
    assert pieces.text(END) == "<end>"


def test_the_table_of_byte_characters_covers_every_byte_once() -> None:
    assert sorted(byte_characters().values()) == list(range(256))
