"""From a row to token ids: the segments around the prompt blocks, tokenised apart.

    [opening] [segment 0] {prompt} [segment 1] … [closing] [answer]

The opening is the beginning token, where the tokenizer writes one. In a chat it is what the tokenizer's chat format writes
before a user's message, and the closing what it writes between the message and the answer. A prompt at the very beginning of
the template stands before the opening, as PEFT's prompts do; any text before it puts it inside the message.

What a row says can never become a special token. A row that is longer than the base reads is shortened at its longest field,
never at the instruction, label or cue.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

from epigraph.errors import TaskError
from epigraph.tasks.row import Row
from epigraph.tasks.template import Piece, Template
from epigraph.tasks.trie import LabelTrie

SHORTEST_LEAD = 8  # a shorter one costs more to keep apart than to read again


@runtime_checkable
class Tokens(Protocol):
    """What is asked of a base to encode: its tokenizer."""

    @property
    def bos(self) -> int | None: ...
    @property
    def end(self) -> int: ...
    @property
    def special(self) -> Collection[int]: ...
    def chat_frame(self) -> tuple[str, str]: ...
    def tokenize(self, text: str) -> list[int]: ...
    def tokenize_plainly(self, text: str) -> list[int]: ...
    def detokenize(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Encoded:
    """A row as token ids: one segment more than there are prompt blocks, and the answer to learn (may be empty).

    The first ``lead`` tokens of segment 0 are the same in every row of the template: an instruction, for example.
    ``choices`` are the answers to choose from, where the row has its own.
    """

    segments: tuple[tuple[int, ...], ...]
    answer: tuple[int, ...] = ()
    truncated: bool = False
    lead: int = 0
    choices: tuple[tuple[int, ...], ...] = ()

    @property
    def length(self) -> int:
        """Tokens of all segments, the answer and the choices, prompt blocks not counted."""
        return sum(map(len, (*self.segments, *self.choices))) + len(self.answer)


@dataclass(frozen=True)
class Encoder:
    """Encodes rows of one template for one tokenizer.

    ``limit`` is the longest sum of segments in tokens. Without ``bos`` the opening is left out, since it stands elsewhere.
    With ``chat`` the template is a user's message in the tokenizer's own chat format.
    """

    template: Template
    tokens: Tokens
    limit: int
    bos: bool = True
    chat: bool = False

    def __post_init__(self) -> None:
        fixed = sum(len(ids) for ids in self._segments(dict.fromkeys(self.template.fields, "")))
        if fixed > self.limit:
            raise TaskError(
                f"the template alone takes {fixed} tokens, but {max(self.limit, 0)} are left beside the prompt and the answer.",
                "Shorten the template or the prompt (--length), or choose a base with a longer context.",
            )

    def encode(self, row: Row, answer: Sequence[int] = ()) -> Encoded:
        """The row's segments, shortened if they must be; TaskError if a field of the template is missing."""
        missing = [name for name in self.template.fields if name not in row.fields]
        if missing:
            raise TaskError(f"the row has no field {', '.join(missing)}.", f"It has: {', '.join(row.fields) or 'none'}.")
        fields = {name: row.fields[name] for name in self.template.fields}
        segments = self._segments(fields)
        fits = sum(map(len, segments)) <= self.limit
        if not fits:
            segments = self._shortened(fields)
        lead = self._lead if self._lead == segments[0][: len(self._lead)] and len(segments[0]) > len(self._lead) else []
        return Encoded(tuple(tuple(ids) for ids in segments), tuple(answer), not fits, len(lead))

    @cached_property
    def _lead(self) -> list[int]:
        """The tokens of what the template says before the first field, but for the last, which may merge with the field."""
        pieces = self.template.segments[0]
        field = next((i for i, piece in enumerate(pieces) if piece.is_field), 0)
        ids = self.tokens.tokenize(render(pieces[:field], {}))
        lead = [*self._frame[0], *ids[:-1]]
        return lead if len(lead) >= SHORTEST_LEAD else []

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """The tokens of opening and closing."""
        head = opening(self.tokens, chat=self.chat) if self.bos else []
        return head, self.tokens.tokenize(self.tokens.chat_frame()[1]) if self.chat else []

    @cached_property
    def _specials(self) -> list[list[int]]:
        """The special tokens that the template itself says in each segment."""
        blank = dict.fromkeys(self.template.fields, "")
        return [self._special(self.tokens.tokenize(render(pieces, blank))) for pieces in self.template.segments]

    def _special(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token in self.tokens.special]

    def _segments(self, fields: Mapping[str, str]) -> list[list[int]]:
        segments = [self._segment(number, fields) for number in range(len(self.template.segments))]
        first = next((i for i, pieces in enumerate(self.template.segments) if pieces), 0)
        head, tail = self._frame
        segments[first] = [*head, *segments[first]]
        segments[-1] = [*segments[-1], *tail]
        return segments

    def _segment(self, number: int, fields: Mapping[str, str]) -> list[int]:
        """A segment's tokens; where a field's text would read as a special token, each piece's own."""
        pieces = self.template.segments[number]
        if self.chat:
            return self.tokens.tokenize_plainly(render(pieces, fields))
        ids = self.tokens.tokenize(render(pieces, fields))
        if self._special(ids) == self._specials[number]:
            return ids
        apart = [
            self.tokens.tokenize_plainly(fields[p.text]) if p.is_field else self.tokens.tokenize(p.text) for p in pieces
        ]
        return [token for each in apart for token in each]

    def _shortened(self, fields: dict[str, str]) -> list[list[int]]:
        sizes = {name: self.tokens.tokenize(text) for name, text in fields.items()}
        segments = self._segments(fields)
        while (excess := sum(map(len, segments)) - self.limit) > 0:
            longest = max(sizes, key=lambda name: len(sizes[name]))
            second = max((len(ids) for name, ids in sizes.items() if name != longest), default=0)
            room = len(sizes[longest]) - second
            surplus = -(-excess // self._times(longest))
            keep = len(sizes[longest]) - max(1, min(surplus, room) if room else 1)
            fields[longest] = self.tokens.detokenize(sizes[longest][:keep]).rstrip("�")
            sizes[longest] = self.tokens.tokenize(fields[longest])[:keep]
            segments = self._segments(fields)
        return segments

    def _times(self, field: str) -> int:
        """How often the template says a field."""
        return sum(piece.is_field and piece.text == field for pieces in self.template.segments for piece in pieces)


def render(pieces: Sequence[Piece], fields: Mapping[str, str]) -> str:
    """The text of a segment with its fields filled in."""
    return "".join(fields[p.text] if p.is_field else p.text for p in pieces)


def opening(tokens: Tokens, *, chat: bool) -> list[int]:
    """What stands before every text: the beginning token, or what a chat writes before a user's message (its own included)."""
    if chat:
        return tokens.tokenize(tokens.chat_frame()[0])
    return [] if tokens.bos is None else [tokens.bos]


def answer_text(template: Template, words: str, closing: str = "") -> str:
    """How an answer follows the template and a chat's closing: after a space, unless white space stands there already."""
    last = template.segments[-1]
    before = closing or (last[-1].text if last and not last[-1].is_field else "")
    return words if before[-1:].isspace() else " " + words


def build_trie(labels: Mapping[str, str], template: Template, tokens: Tokens, *, chat: bool = False) -> LabelTrie:
    """The trie of a task's labels (label → words) as this base spells them after this template."""
    closing = tokens.chat_frame()[1] if chat else ""
    return LabelTrie.build(
        {label: tokens.tokenize(answer_text(template, words, closing)) for label, words in labels.items()}, tokens.end
    )
