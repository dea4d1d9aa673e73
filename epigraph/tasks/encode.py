"""From a row to token ids: the segments around the prompt blocks, tokenised apart.

    [segment 0] {prompt} [segment 1] … [answer]

A row that is longer than the base reads is shortened at its longest field, never at the instruction, label or cue.
"""

from collections.abc import Mapping, Sequence
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
    def tokenize(self, text: str) -> list[int]: ...
    def detokenize(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Encoded:
    """A row as token ids: one segment more than there are prompt blocks, and the answer to learn (may be empty).

    The first ``lead`` tokens of segment 0 are the same in every row of the template: an instruction, for example.
    """

    segments: tuple[tuple[int, ...], ...]
    answer: tuple[int, ...] = ()
    truncated: bool = False
    lead: int = 0

    @property
    def length(self) -> int:
        """Tokens of all segments and the answer, prompt blocks not counted."""
        return sum(map(len, self.segments)) + len(self.answer)


@dataclass(frozen=True)
class Encoder:
    """Encodes rows of one template for one tokenizer. ``limit`` is the longest sum of segments in tokens."""

    template: Template
    tokens: Tokens
    limit: int
    bos: bool = True

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
        begin = [self.tokens.bos] if self.bos and self.tokens.bos is not None else []
        lead = [*begin, *ids[:-1]]
        return lead if len(lead) >= SHORTEST_LEAD else []

    def _segments(self, fields: Mapping[str, str]) -> list[list[int]]:
        segments = [self.tokens.tokenize(render(pieces, fields)) for pieces in self.template.segments]
        if self.bos and self.tokens.bos is not None:
            first = next((i for i, pieces in enumerate(self.template.segments) if pieces), 0)
            segments[first].insert(0, self.tokens.bos)
        return segments

    def _shortened(self, fields: dict[str, str]) -> list[list[int]]:
        sizes = {name: self.tokens.tokenize(text) for name, text in fields.items()}
        segments = self._segments(fields)
        while (excess := sum(map(len, segments)) - self.limit) > 0:
            longest = max(sizes, key=lambda name: len(sizes[name]))
            second = max((len(ids) for name, ids in sizes.items() if name != longest), default=0)
            room = len(sizes[longest]) - second
            keep = len(sizes[longest]) - max(1, min(excess, room) if room else 1)
            fields[longest] = self.tokens.detokenize(sizes[longest][:keep]).rstrip("�")
            sizes[longest] = self.tokens.tokenize(fields[longest])[:keep]
            segments = self._segments(fields)
        return segments


def render(pieces: Sequence[Piece], fields: Mapping[str, str]) -> str:
    """The text of a segment with its fields filled in."""
    return "".join(fields[p.text] if p.is_field else p.text for p in pieces)


def answer_text(template: Template, words: str) -> str:
    """How an answer follows the template: after a space, unless the template already ends in white space."""
    last = template.segments[-1]
    ends_in_space = bool(last) and not last[-1].is_field and last[-1].text[-1:].isspace()
    return words if ends_in_space else " " + words


def build_trie(labels: Mapping[str, str], template: Template, tokens: Tokens) -> LabelTrie:
    """The trie of a task's labels (label → words) as this base spells them after this template."""
    return LabelTrie.build(
        {label: tokens.tokenize(answer_text(template, words)) for label, words in labels.items()}, tokens.end
    )
