"""The mistakes as one HTML page: how many, between which labels, on what sort of texts, and which labels are likely wrong."""

import math
from collections.abc import Sequence

from epigraph.correct.mistakes import Group, Mistake, Mistakes
from epigraph.report import Page, Part, Section, Table, Text, to_html
from epigraph.report.numbers import share_text

SHOWN = 300  # characters of a text


def mistakes_page(found: Mistakes) -> str:
    """The page as one file without anything fetched."""
    lead = [f"{found.prompt} answers {found.wrong} of {found.rows} rows of {found.source or 'the data'} wrong."]
    if found.suspected:
        lead.append(f"{found.suspected} of the labels in the data are likely wrong themselves: look at them first.")
    sections = [
        Section(title="Between which labels", parts=[_groups("pair", found.pairs)]) if found.pairs else None,
        Section(title="On what sort of texts", parts=_similar(found)) if found.similar else None,
        Section(title="The worst, by loss", parts=[_worst(found.worst)]) if found.worst else None,
        Section(title="How to read it", parts=[Text(text=text, note=True) for text in (*found.warnings, *NOTES)]),
    ]
    page = Page(title=f"Mistakes of {found.prompt}", lead=lead, sections=[one for one in sections if one is not None])
    return to_html(page)


NOTES = (
    "Loss is −log of the probability of the right answer, in nats: 0.7 is a coin toss between two, 5 is certain and wrong.",
    "A label is suspected where the prompt believes in it less than usual for that label and in another one as much as usual for that one "
    "(confident learning, Northcutt et al. 2021). Whether it is wrong, only a person can say.",
)


def _groups(name: str, groups: Sequence[Group]) -> Table:
    rows = [[group.name, str(group.rows), f"{group.loss:.2f}"] for group in groups]
    return Table(columns=[f"{name} (right → answered)", "rows", "mean loss"], rows=rows)


def _similar(found: Mistakes) -> list[Part]:
    rows = []
    for group in found.similar:
        typical = found.worst[group.members[0]]
        pairs = {f"{one.truth} → {one.answer}" for one in (found.worst[i] for i in group.members)}
        pair = pairs.pop() if len(pairs) == 1 else f"{len(pairs)} pairs"
        rows.append([group.name, str(group.rows), f"{group.loss:.2f}", pair, _text(typical)])
    return [Table(columns=["words of their own", "rows", "mean loss", "pair", "most typical"], rows=rows)]


def _worst(mistakes: Sequence[Mistake]) -> Table:
    rows, marked = [], []
    for place, one in enumerate(mistakes):
        sure = "–" if one.probability is None else share_text(one.probability)
        loss = f"{one.loss:.2f}" if math.isfinite(one.loss) else "–"
        doubt = f"label may be {one.instead}" if one.instead else ""
        rows.append([str(one.row.line), _text(one), one.truth, one.answer, sure, loss, doubt])
        if one.instead:
            marked.append(place)
    columns = ["line", "text", "label in the data", "answer", "probability", "loss", "suspicion"]
    return Table(columns=columns, rows=rows, marked=marked, caption="Marked: the label itself is likely wrong.")


def _text(one: Mistake) -> str:
    whole = " | ".join(one.row.fields.values())
    return whole if len(whole) <= SHOWN else whole[: SHOWN - 1] + "…"
