"""Reports for people: one page of sections, written as a single HTML file without network or as Markdown.

page.py   what a page is made of, and both ways to write it        plot.py   pictures as inline SVG
"""

from epigraph.report.page import Code, Figure, List, Page, Part, Section, Table, Text, to_html, to_markdown
from epigraph.report.plot import Point, Series, draw_curves, draw_scatter

__all__ = [
    "Code",
    "Figure",
    "List",
    "Page",
    "Part",
    "Point",
    "Section",
    "Series",
    "Table",
    "Text",
    "draw_curves",
    "draw_scatter",
    "to_html",
    "to_markdown",
]
