"""Label → the words the base says for it, and the instruction that names these words.

card_arrival → "card arrival"       not-spam → "not spam"       3 → "3"
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from epigraph.errors import TaskError
from epigraph.tasks.cells import count_words
from epigraph.tasks.kinds import Kind
from epigraph.tasks.nearest import nearest

_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?$")
_MOST_WORDS = 60


def default_words(label: str) -> str:
    """Underscores and hyphens become spaces; numbers, and labels of nothing else, stay as they are."""
    if _NUMBER.match(label):
        return label
    return " ".join(re.sub(r"[_\-]+", " ", label).split()) or label


def make_verbalizer(labels: Iterable[str], given: Mapping[str, str], order: Sequence[str] | None = None) -> dict[str, str]:
    """The words of every label, in their order or sorted by label; ``given`` are words that the task says itself.

    Labels whose default words would be the same keep their raw text. Raises TaskError where two labels still share words.
    """
    ordered = list(order) if order is not None else sorted(set(labels))
    for label in given:
        if label not in ordered:
            raise TaskError(
                f"[labels] names {label!r}, which no training row has. The data has {_listed(ordered)}.",
                nearest(label, ordered),
            )
    words = {label: given.get(label, default_words(label)).strip() for label in ordered}
    shared = {key for key, group in _by_words(words).items() if len(group) > 1}
    words = {label: label if label not in given and _comparable(text) in shared else text for label, text in words.items()}
    check_words(words)
    return words


def check_words(words: Mapping[str, str]) -> None:
    """Raise TaskError for empty words, or two labels that the base could not tell apart."""
    for label, text in words.items():
        if not text.strip():
            raise TaskError(f"label {label!r} has empty words.", "Give it words under [labels] in the task TOML.")
    for group in _by_words(words).values():
        if len(group) > 1:
            same = " (they differ only in their Unicode form)" if _comparable(group[0]) == _comparable(group[1]) else ""
            raise TaskError(
                f"labels {group[0]!r} and {group[1]!r} have the same words {words[group[0]]!r}{same}.",
                "Give one of them other words under [labels] in the task TOML.",
            )


def paired_words(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Label → words as a second column spells them, where each label has one spelling and no two share it; else empty."""
    distinct = set(pairs)
    words = dict(distinct)
    one_to_one = len(words) == len(distinct) == len(set(words.values()))
    return {label: default_words(text) for label, text in words.items()} if one_to_one else {}


def check_labels(counts: Mapping[str, int], source: str) -> None:
    """Raise TaskError for a single label, or values that are sentences or measurements rather than labels."""
    total = sum(counts.values())
    if len(counts) == 1:
        raise TaskError(
            f"{source} has one label, {next(iter(counts))!r}, in all {total} rows: there is nothing to tell apart.",
            "Add rows with another label.",
        )
    if total < 20 or len(counts) <= 20 or 2 * len(counts) <= total:
        return
    sentences = sum(count_words(label) for label in counts) > 4 * len(counts)
    measures = sum("." in label and _NUMBER.match(label) is not None for label in counts) > len(counts) / 2
    if sentences or measures:
        what = "numbers on a scale" if measures else "texts"
        raise TaskError(
            f"{source} has {len(counts)} distinct labels in {total} rows: they are {what}, not labels.",
            'Is this the right column? Outputs to be written need kind = "generation" in a task TOML.',
        )


def make_instruction(fields: Iterable[str], words: Iterable[str], kind: Kind = "classification") -> str:
    """What to do, in at most about 60 words; ``words`` are those of the labels."""
    asked, said = " and ".join(fields), list(words)
    if kind == "choice":
        return f"Choose the best answer to the {asked}."
    if not said:
        return "Write the output for the input."
    if kind == "multilabel":
        return f"Say of every label whether it fits the {asked}: yes or no."
    if kind == "ordinal":
        return f"Rate the {asked}. Answer with one of, from the lowest to the highest: {', '.join(said)}."
    kept: list[str] = []
    length = 0
    for text in said:
        length += count_words(text)
        if len(kept) >= 20 or length > _MOST_WORDS - 15:
            break
        kept.append(text)
    if len(kept) == len(said):
        return f"Classify the {asked}. Answer with one of: {', '.join(said)}."
    if not kept:
        return f"Classify the {asked}. Answer with one of {len(said)} labels."
    return f"Classify the {asked}. Answer with one of {len(said)} labels, such as: {', '.join(kept)}."


def _comparable(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _by_words(words: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for label, text in words.items():
        groups.setdefault(_comparable(text), []).append(label)
    return groups


def _listed(labels: list[str]) -> str:
    return ", ".join(labels[:12]) + (f" and {len(labels) - 12} more" if len(labels) > 12 else "")
