"""A page as a tree of parts, written as HTML or as Markdown.

    Page ─ Section ─ Text | List | Table | Figure | Code        HTML: one file, style and pictures inside, nothing fetched

All text is escaped by Jinja2, whatever a label, a row or a reason says; only pictures, which ``plot`` makes, are markup.
The page is legible on paper, in a narrow window and in dark mode.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

TEMPLATE = "page.html"
_NUMBER = re.compile(r"[-+−×]?[\d.,]+\s?(%|[kKMGTP]?B|s|ms|J|kJ|min|×)?( \[.*\])?$|–$|$")


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph; ``note`` sets it smaller."""

    text: str
    note: bool = False
    part: str = field(default="text", init=False)


@dataclass(frozen=True, kw_only=True)
class List:
    """Short lines, one below the other."""

    items: Sequence[str]
    part: str = field(default="list", init=False)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under their columns; ``marked`` rows stand out, ``wide`` tables scroll in a narrow window."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    marked: Sequence[int] = ()
    part: str = field(default="table", init=False)

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold nothing but numbers, and are set to the right."""
        return [all(_NUMBER.match(row[i]) for row in self.rows) for i in range(len(self.columns))]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture of ``plot`` with a line that says what it shows."""

    svg: str
    caption: str
    part: str = field(default="figure", init=False)


@dataclass(frozen=True, kw_only=True)
class Code:
    """Text as a machine reads it: a command, a file."""

    text: str
    part: str = field(default="code", init=False)


Part = Text | List | Table | Figure | Code


@dataclass(frozen=True, kw_only=True)
class Section:
    """Parts under a heading."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a report says: ``lead`` first, then its sections."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    subtitle: str = ""


def to_html(page: Page) -> str:
    """The page as one HTML file."""
    return str(_template().render(page=page))


def to_markdown(page: Page) -> str:
    """The page as Markdown; a picture is its caption."""
    lines = [f"# {_inline(page.title)}", ""]
    if page.subtitle:
        lines += [_inline(page.subtitle), ""]
    lines += [line for text in page.lead for line in (f"**{_inline(text)}**", "")]
    for section in page.sections:
        lines += [f"## {_inline(section.title)}", ""]
        for part in section.parts:
            lines += [*_markdown(part), ""]
    return "\n".join(lines).rstrip() + "\n"


def _markdown(part: Part) -> list[str]:
    if isinstance(part, Text):
        return [_inline(part.text)]
    if isinstance(part, List):
        return [f"- {_inline(item)}" for item in part.items]
    if isinstance(part, Code):
        fence = "```" if "```" not in part.text else "~~~~"
        return [fence, part.text, fence]
    if isinstance(part, Figure):
        return [f"*(picture, in the HTML report: {_inline(part.caption)})*"]
    rule = ["---:" if numeric else "---" for numeric in part.numeric]
    rows = [part.columns, rule, *part.rows]
    lines = ["| " + " | ".join(cell if row is rule else _cell(cell) for cell in row) + " |" for row in rows]
    return [_inline(part.caption), "", *lines] if part.caption else lines


def _inline(text: str) -> str:
    """Text with what Markdown and HTML would read as markup escaped, on one line."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\*_\[\]#~])", r"\\\1", plain)


def _cell(text: str) -> str:
    return _inline(text).replace("|", "\\|")


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    loader = FileSystemLoader(Path(__file__).parent)
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters["picture"] = Markup  # made by ``plot``, which escapes what stands in it
    return found.get_template(TEMPLATE)
