"""The text around an example, with ``{field}`` for its columns and ``{prompt}`` where the soft prompt stands.

    "{text}{prompt}\\nLabel:"   →   [Field text] [Prompt] [Text "\\nLabel:"]

``{{`` and ``}}`` are literal braces. Between two prompt blocks lies one segment of text; segments are tokenised apart, the
same way in tuning, hard prompts and serving, so a template with n blocks always gives n + 1 segments.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from epigraph.errors import TaskError

PROMPT = "prompt"
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


@dataclass(frozen=True)
class Piece:
    """A stretch of a segment: literal text, or the name of the field whose value stands here."""

    text: str
    is_field: bool


@dataclass(frozen=True)
class Template:
    """A parsed template. ``text`` is the source it was parsed from."""

    text: str

    def __post_init__(self) -> None:
        if len(self.segments) < 2:
            raise TaskError(
                f"template {self.text!r} has no {{prompt}}: there is no place where the soft prompt could stand.",
                'Put {prompt} where it shall stand, for example "{text}{prompt}\\nLabel:".',
            )

    @cached_property
    def segments(self) -> tuple[tuple[Piece, ...], ...]:
        """The pieces of every segment; consecutive segments have one prompt block between them."""
        segments: list[list[Piece]] = [[]]
        for match in _PART.finditer(self.text):
            whole, name = match.group(0), match.group(1)
            if name == PROMPT:
                segments.append([])
            elif name is not None:
                if not name.strip():
                    raise TaskError(
                        f"template {self.text!r} has an empty field {{}}.", "Name the column between the braces."
                    )
                segments[-1].append(Piece(name, True))
            elif whole in "{}":
                raise TaskError(f"template {self.text!r} has a single {whole!r}.", "Write {{ or }} for a literal brace.")
            else:
                segments[-1].append(Piece(whole[0] if whole in ("{{", "}}") else whole, False))
        return tuple(tuple(pieces) for pieces in segments)

    @property
    def blocks(self) -> int:
        """How many ``{prompt}`` blocks there are."""
        return len(self.segments) - 1

    @property
    def fields(self) -> tuple[str, ...]:
        """Field names in order of first use."""
        return tuple(dict.fromkeys(p.text for pieces in self.segments for p in pieces if p.is_field))

    def check_fields(self, known: Mapping[str, object] | tuple[str, ...]) -> None:
        """Raise TaskError if the template names a field that the data does not have."""
        unknown = [name for name in self.fields if name not in known]
        if unknown:
            raise TaskError(
                f"template {self.text!r} names {', '.join(f'{{{name}}}' for name in unknown)}, "
                f"but the data has {', '.join(known) or 'no columns'}.",
                "Correct the name in the template, or map it under [columns] in the task TOML.",
            )

    def placed(self, place: str) -> "Template":
        """This template with its prompt ``first`` before everything, ``last`` after the last field, or ``both``; or as it is."""
        if place not in ("first", "last", "both"):
            return self
        pieces = [piece for segment in self.segments for piece in segment]
        after = 0 if place == "first" else max((i + 1 for i, p in enumerate(pieces) if p.is_field), default=len(pieces))
        first = "{prompt}" if place == "both" else ""
        return Template(first + self.source(pieces[:after]) + "{prompt}" + self.source(pieces[after:]))

    def reread(self) -> "Template":
        """This template with its fields a second time before the first prompt block: ``{text}…`` → ``{text}\\n{text}…``.

        In a causal model a token sees what stands before it only; in the second reading every token sees the whole text, and
        what stands before the prompt is computed once. Source: Springer et al. 2024, https://arxiv.org/abs/2402.15449; Xu et
        al. 2023, https://arxiv.org/abs/2309.06275. A template without a field before its prompt stays as it is.
        """
        pieces = self.segments[0]
        places = [i for i, piece in enumerate(pieces) if piece.is_field]
        if not places:
            return self
        after = places[-1] + 1
        again = self.source(pieces[places[0] : after])
        rest = "{prompt}".join(self.source(segment) for segment in (pieces[after:], *self.segments[1:]))
        return Template(f"{self.source(pieces[:after])}\n{again}{rest}")

    @staticmethod
    def source(pieces: Sequence[Piece]) -> str:
        """The template text that these pieces come from."""
        return "".join(f"{{{p.text}}}" if p.is_field else p.text.replace("{", "{{").replace("}", "}}") for p in pieces)
