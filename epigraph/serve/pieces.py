"""Single tokens as clients see them: their text, and their bytes where a token is part of a character.

A byte-level piece such as "âĢ" stands for the bytes e2 80; alone it is no text, so it is written "bytes:\\xe2\\x80".
"""

import re
from codecs import getincrementaldecoder
from collections.abc import Sequence
from functools import cached_property

from epigraph.base import Base

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>$")
_BROKEN = "�"


def byte_characters() -> dict[str, int]:
    """GPT-2's table, inverted: the printable character that a byte-level vocabulary writes for each byte."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


class Pieces:
    """The tokens of a base's tokenizer, one at a time."""

    def __init__(self, base: Base) -> None:
        self.tokenizer = base.tokenizer
        self.special = base.special
        self.size = int(base.embedding.weight.shape[0])
        self._texts: dict[int, str] = {}

    @cached_property
    def _reference(self) -> tuple[int, str]:
        """A token to stand before the one asked for: some tokenizers drop the space that begins a text."""
        first = self.tokenizer("a", add_special_tokens=False).input_ids[-1]
        return first, self.tokenizer.decode([first])

    @cached_property
    def _bytes(self) -> dict[str, int]:
        return byte_characters()

    def text(self, token: int) -> str:
        """The token's text, or "bytes:…" where it is none alone. Different tokens may have the same text."""
        if token not in self._texts:
            found = self._decoded(token)
            if _BROKEN in found:
                found = "bytes:" + "".join(f"\\x{byte:02x}" for byte in self.bytes_of(token))
            self._texts[token] = found
        return self._texts[token]

    def bytes_of(self, token: int) -> list[int]:
        """The bytes that the token adds to a text."""
        decoded = self._decoded(token)
        if _BROKEN not in decoded:
            return list(decoded.encode())
        piece = str(self.tokenizer.convert_ids_to_tokens(token))
        if match := _BYTE.match(piece):
            return [int(match.group(1), 16)]
        if all(character in self._bytes for character in piece):
            return [self._bytes[character] for character in piece]
        return list(decoded.encode())

    def lengths(self, tokens: Sequence[int]) -> list[int]:
        """How many characters each of them adds to their text: a character counts where it is whole, a special token has none."""
        decoder = getincrementaldecoder("utf-8")("replace")
        return [0 if token in self.special else len(decoder.decode(bytes(self.bytes_of(token)))) for token in tokens]

    def _decoded(self, token: int) -> str:
        first, text = self._reference
        return str(self.tokenizer.decode([first, token])).removeprefix(text)
