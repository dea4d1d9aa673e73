"""Multiple choice: where a record has its choices, and which of them the answer names.

    choices   a column each (ending0 … ending3, A … D, sol1, sol2, option1 …), a list, or {"text": […], "label": […]}
    answer    the text of a choice, its own name (a column's ending or a label), a letter, or its number from 0 or from 1

How answers name their choice is settled once, over all training rows: the way that explains the most of them. Choices that
are blank are not there: their number may differ from row to row.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from epigraph.errors import TaskError
from epigraph.tasks.cells import cell_list, cell_text, whole_number
from epigraph.tasks.headers import IGNORED, PAIRS, find, find_all, plain
from epigraph.tasks.table import Table

Naming = Literal["text", "name", "letter", "from 0", "from 1"]
Offered = list[tuple[str, str | None]]  # name and text of every choice, in the order of the data

LISTS = ("choices", "options", "endings", "candidates", "alternatives", "lựa_chọn", "phương_án", "các_lựa_chọn", "选项")
ANSWERS = (
    *("answer", "label", "answerkey", "answer_key", "correct", "correct_answer", "correct_choice", "correct_option"),
    *("gold", "gold_label", "answer_index", "answer_idx", "correct_index", "gold_index", "right_answer", "key", "target"),
    *("đáp_án", "dap_an", "câu_trả_lời", "nhãn", "答案", "正确答案", "标签"),
)
QUESTIONS = (
    *("question", "ctx", "goal", "stem", "question_stem", "premise", "sentence", "prompt", "query", "text", "context"),
    *("input", "passage", "article", "problem", "câu_hỏi", "cau_hoi", "问题", "题目", "题干"),
)
TWO_TEXTS = (("premise", "question"), ("article", "question"), *PAIRS)
DELIMITERS = ("|", ";", "\n")
_STEM = r"(?:choice|option|opt|ending|end|sol|solution|answer|ans|candidate|alternative|lựa_chọn|phương_án|đáp_án|选项)"
_ONE = re.compile(rf"(?P<stem>(?:mc_)?{_STEM}s?)_?(?P<name>\d{{1,2}}|[a-z])$|(?P<letter>[a-z])$")
_LETTER = re.compile(r"\(?([A-Za-z])[).:]?$")
FEWEST_BARE = 3  # columns a, b, c: two of them are more often a pair of texts


def find_choices(table: Table, fewest: int = FEWEST_BARE) -> tuple[str, ...]:
    """The headers of the choices: a list column, or a column each; empty where there are none.

    ``fewest`` is the number of columns named by bare letters that are taken for choices.
    """
    for column in find_all(LISTS, table.columns):
        lists = [value for value in table.values(column)[:50] if cell_text_or_list(value)]
        if lists and all(offered_in(value) for value in lists):
            return (column,)
    groups: dict[str, dict[str, str]] = {}
    for column in table.columns:
        found = _ONE.match(plain(column))
        if found:
            groups.setdefault(found["stem"] or "", {})[found["name"] or found["letter"]] = column
    whole = [tuple(group.values()) for stem, group in groups.items() if _in_a_row(list(group), 2 if stem else fewest)]
    return max(whole, key=len, default=())


def cell_text_or_list(value: Any) -> bool:
    """Whether a cell holds anything."""
    return bool(value) if isinstance(value, list | dict) else cell_text(value) is not None


def offered_in(value: Any, delimiter: str = "") -> Offered:
    """The choices of a list cell; empty where it is none."""
    if isinstance(value, Mapping):
        texts, names = cell_list(value.get("text")), cell_list(value.get("label"))
        if texts is None or (names is not None and len(names) != len(texts)):
            return []
        return [(cell_text(n) or "", _plain_text(t)) for n, t in zip(names or [""] * len(texts), texts, strict=True)]
    items = cell_list(value, delimiter)
    if items is None and not delimiter and isinstance(value, str):
        found = max(DELIMITERS, key=value.count)
        items = cell_list(value, found) if found in value else None
    if items and all(isinstance(item, Mapping) for item in items):  # [{"label": "A", "text": "…"}, …]
        return [(cell_text(item.get("label")) or "", _plain_text(item.get("text"))) for item in items]
    return [("", _plain_text(item)) for item in items or []]


def offered(record: Mapping[str, Any], columns: Sequence[str]) -> Offered:
    """All choices of a record, those that are not there with None."""
    if len(columns) == 1:
        return offered_in(record.get(columns[0]))
    names = [_ONE.match(plain(column)) for column in columns]
    return [
        ((match["name"] or match["letter"]) if match else column, _plain_text(record.get(column)))
        for column, match in zip(columns, names, strict=True)
    ]


def place_of(answer: Any, choices: Offered, naming: str) -> int | None:
    """Which of the choices an answer names; None if none, or one that is not there."""
    text = cell_text(answer) if not isinstance(answer, list | dict) else None
    if text is None:
        return None
    number, letter = whole_number(text), _LETTER.match(text)
    named: int | None = None
    if naming == "text":
        named = next((i for i, (_, said) in enumerate(choices) if said == text), None)
    elif naming == "name":
        ending = _ONE.match(plain(text))
        asked = {number.casefold(), (ending["name"] or ending["letter"]) if ending else number.casefold()}
        named = next((i for i, (name, _) in enumerate(choices) if name and name.casefold() in asked), None)
    elif naming == "letter":
        named = ord(letter[1].upper()) - ord("A") if letter else None
    elif number.isdecimal():
        named = int(number) - int(naming == "from 1")
    return named if named is not None and 0 <= named < len(choices) and choices[named][1] is not None else None


def settle_naming(table: Table, columns: Sequence[str], answer: str, first: int | None = None) -> Naming | None:
    """How the answers of this column name their choice; None if fewer than half of them name any.

    ``first`` is the number of the first choice, where the task says it. TaskError where it is needed and not said.
    """
    rows = [(record.get(answer), offered(record, columns)) for record in table.records]
    rows = [(said, choices) for said, choices in rows if choices and cell_text_or_list(said)]
    ways: tuple[Naming, ...] = ("text", "name", "letter", "from 0", "from 1")
    if first is not None:
        ways = ("from 1",) if first else ("from 0",)
    explained = {way: sum(place_of(said, choices, way) is not None for said, choices in rows) for way in ways}
    best = max(explained, key=lambda way: explained[way])
    if not rows or 2 * explained[best] < len(rows):
        return None
    if best == "from 0" and explained.get("from 1") == explained[best]:
        raise TaskError(
            f"{table.source}: the answers in {answer!r} are numbers that may count the choices from 0 or from 1.",
            "Say first_choice = 0 or first_choice = 1 in a task TOML.",
        )
    return best


def find_answer(table: Table, columns: Sequence[str]) -> str | None:
    """The column of the answers, by its name."""
    rest = tuple(column for column in table.columns if column not in columns)
    return next(iter(find_all(ANSWERS, rest)), None)


def find_question(table: Table, taken: Sequence[str]) -> tuple[str, ...]:
    """The columns of the question: a pair of texts, one by its name, or the only one left; empty where that is not clear."""
    rest = tuple(column for column in table.columns if column not in taken)
    for pair in TWO_TEXTS:
        if len(both := find_all(pair, rest)) == 2:
            return tuple(both)
    if named := find_all(QUESTIONS, rest):
        return (named[0],)
    left = [column for column in rest if not IGNORED.match(plain(column))]
    return (left[0],) if len(left) == 1 else ()


def fit_choices(columns: Sequence[str], table: Table) -> tuple[str, ...] | None:
    """The same choice columns in another file; of several, those that it has. None where it has none."""
    found = [column for column in (find(name, table.columns) for name in columns) if column is not None]
    if found and (len(columns) == 1 or len(found) >= 2):
        return tuple(found)
    return find_choices(table, 2) or None


def lettered(choices: Sequence[str]) -> str:
    """The choices as a template's {choices} shows them: "A. …", a line each."""
    return "\n".join(f"{chr(ord('A') + i)}. {text}" for i, text in enumerate(choices))


def _plain_text(value: Any) -> str | None:
    return None if isinstance(value, list | dict) else cell_text(value)


def _in_a_row(names: Sequence[str], fewest: int) -> bool:
    """Whether names are 0, 1, 2 … or 1, 2, 3 … or a, b, c …, and enough of them."""
    if len(names) < fewest:
        return False
    if all(name.isdecimal() for name in names):
        numbers = sorted(map(int, names))
        return numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return sorted(names) == [chr(ord("a") + i) for i in range(len(names))]
