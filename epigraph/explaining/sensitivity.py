"""How its answers bear small changes of the text, and what it answers when there is no text.

    sensitivity(edit) = share of rows whose answer changes, among those whose text the edit changes        Wilson interval
    bias(label)       = mean probability of the label over texts without content

The edits after the checklists of Ribeiro et al. 2020, section 2 (https://aclanthology.org/2020.acl-main.442); texts without content
after Zhao et al. 2021, section 5 (https://arxiv.org/abs/2102.09690). Most edits should change nothing; a negation often should,
so it is listed apart. Edits of English words are made to texts that look English only.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from epigraph.explaining.case import Case, pick, share
from epigraph.explaining.judged import said
from epigraph.explaining.words import longest_field, looks_english, swap_letters, with_text, without_punctuation
from epigraph.metrics import Interval
from epigraph.tasks.row import Row

EMPTY_TEXTS = ("N/A", "...", "-", "[MASK]", "unknown")
FEWEST = 5
EXAMPLES = 3
_CONTRACTIONS = {"n't": " not", "'re": " are", "'ve": " have", "'ll": " will", "’t": " not"}
_SYNONYMS = (
    ("movie", "film"), ("good", "fine"), ("bad", "poor"), ("big", "large"), ("small", "little"), ("start", "begin"),
    ("buy", "purchase"), ("help", "assist"), ("ask", "inquire"), ("very", "really"), ("funny", "amusing"), ("boring", "dull"),
    ("quickly", "fast"), ("show", "display"), ("story", "plot"), ("need", "require"), ("want", "wish"), ("also", "too"),
)  # fmt: skip
_AUXILIARY = re.compile(
    r"\b(is|are|was|were|has|have|had|can|could|will|would|should|does|do|did)\b(?! not\b)", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A kind of change. ``keeps`` says that the meaning stays, so that the answer should; ``english`` that it is for English only."""

    name: str
    what: str
    keeps: bool
    make: Callable[[str, random.Random], str]
    english: bool = False


@dataclass(frozen=True, kw_only=True)
class Bore:
    """What an edit did: the share of answers that changed over ``rows``, and a few of them as (before, after, text)."""

    name: str
    what: str
    keeps: bool
    changed: Interval
    rows: int
    examples: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Label bias without input, and what every edit did. ``expected`` are the labels' shares among the truths, if known; ``fields``
    is how many texts a row has: where it is more than one, even empty texts have a right answer, and bias is no warning."""

    bias: Mapping[str, float]
    fields: int
    expected: Mapping[str, float]
    edits: tuple[Bore, ...]
    left_out: tuple[str, ...]
    how: str


def _swapped(text: str, _rng: random.Random) -> str:
    """Every word that has a synonym in the list replaced by it, in the first direction that fits."""
    for one, other in _SYNONYMS:
        text = re.sub(rf"\b{one}\b", other, text)
    return text


def _spelled_out(text: str, _rng: random.Random) -> str:
    for short, long in _CONTRACTIONS.items():
        text = text.replace(short, long)
    return text


def _negated(text: str, _rng: random.Random) -> str:
    return _AUXILIARY.sub(lambda found: f"{found.group(0)} not", text, count=1)


def _halved(text: str, _rng: random.Random) -> str:
    words = text.split()
    return " ".join(words[: (len(words) + 1) // 2])


EDITS = (
    Edit(name="lower case", what="all letters small", keeps=True, make=lambda t, _: t.lower()),
    Edit(name="capitals", what="all letters capital", keeps=True, make=lambda t, _: t.upper()),
    Edit(name="no punctuation", what="marks of punctuation removed", keeps=True, make=lambda t, _: without_punctuation(t).strip()),
    Edit(name="exclamation", what="'!!!' at the end", keeps=True, make=lambda t, _: t.rstrip(" .!") + "!!!"),
    Edit(name="full stop", what="a full stop at the end put in or taken away", keeps=True,
         make=lambda t, _: t.rstrip().rstrip(".").rstrip() if t.rstrip().endswith(".") else t.rstrip() + "."),
    Edit(name="typing errors", what="two letters swapped in one word of eight", keeps=True, make=swap_letters),
    Edit(name="said twice", what="the text repeated", keeps=True, make=lambda t, _: f"{t} {t}"),
    Edit(name="opening words", what="'Well, to be honest, ' before the text", keeps=True, english=True,
         make=lambda t, _: f"Well, to be honest, {t}"),
    Edit(name="spelled out", what="don't → do not", keeps=True, english=True, make=_spelled_out),
    Edit(name="other words", what="words replaced by synonyms", keeps=True, english=True, make=_swapped),
    Edit(name="first half", what="the second half of the words cut off", keeps=False, make=_halved),
    Edit(name="negation", what="'not' after the first auxiliary verb", keeps=False, english=True, make=_negated),
    Edit(name="denial", what="'It is not true that ' before the text", keeps=False, english=True,
         make=lambda t, _: f"It is not true that {t}"),
)  # fmt: skip


def measure_sensitivity(case: Case) -> Sensitivity:
    """Ask the prompt about empty texts, and about the rows with each edit. Stops between edits when the budget is spent."""
    among = pick(case, case.config.edit_rows)
    done: list[Bore] = []
    left: list[str] = []
    for edit in EDITS:
        if case.clock.over:
            left.append(edit.name)
        elif (found := _bear(case, among, edit)) is not None:
            done.append(found)
    bias = _bias(case) if case.has_labels else {}
    truths = [row.target for row in case.known_rows]
    return Sensitivity(
        bias=bias,
        fields=len(case.model.task.template.fields),
        expected={name: truths.count(name) / len(truths) for name in bias} if truths else {},
        edits=tuple(sorted(done, key=lambda b: (not b.keeps, -b.changed.value))),
        left_out=tuple(left),
        how=f"Every edit made to at most {case.config.edit_rows} rows of {case.source} and answered anew (edits of English words where a "
        f"text looks English). {_how_empty(case)}",
    )


def _how_empty(case: Case) -> str:
    if not case.has_labels:
        return "What it answers without a text is asked where an answer is one label."
    several = ", another in every field" if len(case.model.task.template.fields) > 1 else ""
    return f"Texts without content: {', '.join(EMPTY_TEXTS)}{several}."


def _bear(case: Case, among: Sequence[int], edit: Edit) -> Bore | None:
    """What the edit did; None where it leaves nearly all texts as they are."""
    rng = random.Random(case.config.seed)
    pairs = [(i, _edited(case, case.rows[i], edit, rng)) for i in among]
    touched = [(i, row) for i, row in pairs if row is not None]
    if len(touched) < FEWEST:
        return None
    answers = case.answers_to([row for _, row in touched])
    turned = [(i, row, answer) for (i, row), answer in zip(touched, answers, strict=True) if answer != case.answers[i]]
    examples = tuple((said(case.answers[i]), said(answer), shown(row)) for i, row, answer in turned[:EXAMPLES])
    changed = share([answer != case.answers[i] for (i, _), answer in zip(touched, answers, strict=True)])
    return Bore(name=edit.name, what=edit.what, keeps=edit.keeps, changed=changed, rows=len(touched), examples=examples)


def _edited(case: Case, row: Row, edit: Edit, rng: random.Random) -> Row | None:
    field = longest_field(row, case.model.task.template.fields)
    if edit.english and not looks_english(row.fields[field]):
        return None
    text = edit.make(row.fields[field], rng)
    return with_text(row, field, text) if text.strip() and text != row.fields[field] else None


def _bias(case: Case) -> dict[str, float]:
    with case.engine.store.passing():
        mean = case.method.probabilities(empty_rows(case.model.task.template.fields)).mean(0)
    return {label: float(p) for label, p in zip(case.labels, mean, strict=True)}


def empty_rows(fields: Sequence[str]) -> list[Row]:
    """Rows without content: another empty text in every field, since two equal texts do say something of each other."""
    texts = len(EMPTY_TEXTS)
    return [Row(fields={name: EMPTY_TEXTS[(i + place) % texts] for place, name in enumerate(fields)}) for i in range(texts)]


def shown(row: Row, most: int = 120) -> str:
    """A row as one line."""
    text = " | ".join(row.fields.values()).replace("\n", " ")
    return text if len(text) <= most else text[: most - 1] + "…"
