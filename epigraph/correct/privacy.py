"""What of a library, and of what is kept between runs, holds texts or could: every file and field, by what it says.

    holds    "texts"       words of the data, of a user, or of who wrote the task
             "answers"     what prompts answered to rows, without their texts
             "names"       names and paths of files
             "states"      what a base computed of texts: no words, but of these texts alone
             "vectors"     learned numbers; of kinds and starts that begin from the data, words may be read off them
             "numbers"     counts, scores, hashes

A stored prompt holds no text of its data unless its labels, template, instruction or hard prompts do: those are what its task says.
Kinds and starts that embed texts are named: their vectors began as tokens of these texts, and a vector that moved little is still
nearest to its token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from epigraph.assets import home
from epigraph.library import Card, Library
from epigraph.library.cardfile import CARD
from epigraph.library.disk import entries
from epigraph.library.folder import METRICS, PROMPT
from epigraph.library.readme import README

EMBEDS = {
    "context": "a few-shot context of training rows whose tokens move little: words can be read off its vectors",
    "examples": "it started from training rows",
    "text:": "it started from a text file, compressed",
    "prompt:": "it started from another prompt, and holds what that one held",
    "nearest": "it started from another prompt, and holds what that one held",
    "distilled": "a student of another prompt or text: it started from what its teacher reads, or from the teacher's vectors",
    "labels": "it started from the labels",
    "text": "it started from the task's instruction",
}
"""Kinds and starts by what of texts their vectors began as."""

FROM_DATA = ("context", "examples", "text:", "prompt:", "nearest")

KEPT: Mapping[str, tuple[str, str]] = {
    ".runs": ("names", "runs: the data's path, its number of rows and hash, the task, settings, the state of the vectors"),
    ".router": ("states", "the router: means and scatter of the states of each task's texts, no texts"),
    ".hard_prompts.jsonl": ("texts", "drafts of `epigraph prompt try`: hard prompts as they were written, and their scores"),
}
"""What lies in a library beside its prompts."""

COMPARISONS = "comparisons"
"""Where comparisons are kept, beside the library, unless --folder says otherwise."""

INSIDE: Mapping[str, tuple[str, str]] = {
    "weights.safetensors": (
        "vectors",
        "all or some weights of a model tuned on the task's rows: texts may be drawn from them",
    ),
    "state.safetensors": ("vectors", "the state of a tuning: vectors as a stored prompt has them, of any start"),
    "together.safetensors": ("vectors", "the state of tasks tuned together"),
    PROMPT: ("vectors", "learned vectors of a run's part, of any kind and start"),
    "replay.jsonl": ("texts", "training rows that the method replay learns again"),
    "comparison.json": ("texts", "a comparison: the data's path and the hard prompts as they were written"),
    "cells": ("answers", "a comparison: what every method answered to the test rows"),
    "report.html": ("texts", "a report: rows with their answers"),
    "report.md": ("texts", "a report: rows with their answers"),
}
"""Files and folders with more than their folder says, wherever they lie below it."""

FIELDS: Mapping[str, tuple[str, str]] = {
    "name": ("names", "the prompt's name, as the user chose it"),
    "task.name": ("names", "the name of the task, by default that of its file"),
    "task.instruction": ("texts", "the instruction, as the user wrote it or made of column and label names"),
    "task.template": ("texts", "the text around an example"),
    "task.labels": ("texts", "the labels and the words the base says for them"),
    "task.shares": ("texts", "the labels with their shares of the training rows"),
    "task.hard_prompts": ("texts", "hard prompts that the task's file gives"),
    "task.stop": ("texts", "words at which outputs end"),
    "task.columns": ("names", "names of the data's columns"),
    "base.name": ("names", "the base's name or folder"),
    "settings.template": ("texts", "the text around an example"),
    "settings.start": ("names", "where the vectors started; a file's path where that was a text"),
    "settings": ("numbers", "settings of the tuning or correction"),
    "reasons": ("texts", "why settings are what they are: names of columns, labels and hard prompts"),
    "lineage": ("names", "the prompts or folders it came from"),
    "scores": ("numbers", "scores with intervals"),
    "hard_prompt": ("numbers", "scores of the hard prompt"),
    "cost": ("numbers", "seconds, parameters, bytes"),
}
"""Fields of a card that are not of the tensors themselves."""


@dataclass(frozen=True, kw_only=True)
class Holding:
    """A file, folder or field that could hold texts or personal data. ``bytes`` is its size on disk, 0 for a field."""

    where: str
    holds: str
    what: str
    prompt: str = ""
    field: str = ""
    found: str = ""
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """Everything found, and the prompts whose vectors began as texts, with why."""

    holdings: Sequence[Holding]
    embeds: Mapping[str, str]

    @property
    def json(self) -> dict[str, Any]:
        """As a command prints it."""
        return {"holdings": [asdict(one) for one in self.holdings], "embeds": dict(self.embeds), "kinds": dict(EMBEDS)}


def check_privacy(root: Path, reference: str = "", *, cache: Path | None = None) -> Privacy:
    """Everything in a library (or one of its prompts) and in the cache that holds texts or could. NotFound for no such prompt."""
    library = Library(root)
    holdings: list[Holding] = []
    embeds: dict[str, str] = {}
    wanted = library.resolve(reference) if reference else None
    for entry in library.list():
        if wanted is not None and (entry.name, entry.version) != wanted:
            continue
        holdings += _of_prompt(library.root / entry.name / str(entry.version), entry.card, f"{entry.name}@{entry.version}")
        if entry.card is not None and (why := embedded(entry.card)):
            embeds[entry.card.reference] = why
    if wanted is None:
        holdings += [one for path in entries(library.root) if path.name.startswith(".") for one in _beside(path)]
        holdings += _of_comparisons(library.root.parent / COMPARISONS)
    holdings += _of_cache(cache or home())
    return Privacy(holdings=holdings, embeds=_inherited(library, embeds))


def embedded(card: Card) -> str:
    """Why a prompt's vectors may hold words of its data; "" where they began as nothing of it."""
    start = str(card.settings.get("start", ""))
    found = [
        name for name in FROM_DATA if card.kind == name or start == name or (name.endswith(":") and start.startswith(name))
    ]
    distilled = ["distilled"] if card.lineage.how.startswith("distilled from") else []
    return "; ".join(EMBEDS[name] for name in [*found, *distilled])


def _inherited(library: Library, embeds: dict[str, str]) -> dict[str, str]:
    """The same, and those that came from such a prompt."""
    found = dict(embeds)
    for entry in library.list():
        if entry.card is not None and entry.card.reference not in found:
            held = [parent for parent in entry.card.lineage.parents if parent in embeds]
            if held:
                found[entry.card.reference] = f"it came from {held[0]}: {embeds[held[0]]}"
    return found


def _of_prompt(folder: Path, card: Card | None, reference: str) -> Iterator[Holding]:
    for path in entries(folder):
        holds, what = {
            PROMPT: ("vectors", "the learned vectors"),
            CARD: ("texts", "the card: labels, instruction and template of the task, see its fields"),
            README: ("names", "the card for people: names, scores, costs; as it was written, it can be edited"),
            METRICS: ("numbers", "losses and scores of the run's validations"),
        }.get(path.name, ("vectors", "PEFT's copy of the vectors") if path.name.startswith("adapter") else _UNKNOWN)
        yield Holding(where=str(path), holds=holds, what=what, prompt=reference, bytes=_size(path))
    for field, (holds, what) in FIELDS.items() if card is not None else ():
        value = _value(card, field)
        if value not in (None, "", (), [], {}):
            where = str(folder / CARD)
            yield Holding(where=where, holds=holds, what=what, prompt=reference, field=field, found=_short(value))


_UNKNOWN = ("texts", "not one of Epigraph's files: look into it")


def _beside(path: Path) -> Iterator[Holding]:
    holds, what = KEPT.get(path.name, _UNKNOWN)
    yield Holding(where=str(path), holds=holds, what=what, bytes=_size(path))
    yield from _inside(path)


def _of_comparisons(folder: Path) -> Iterator[Holding]:
    if folder.is_dir():
        what = "comparisons: the data's path, hard prompts, every method's answers, reports with rows"
        yield Holding(where=str(folder), holds="texts", what=what, bytes=_size(folder))
        yield from _inside(folder)


def _inside(folder: Path) -> Iterator[Holding]:
    if folder.is_dir() and not folder.is_symlink():
        for path in sorted(folder.rglob("*")):
            if path.name in INSIDE:
                holds, what = INSIDE[path.name]
                yield Holding(where=str(path), holds=holds, what=what, bytes=_size(path))


def _of_cache(folder: Path) -> Iterator[Holding]:
    frozen = folder / "frozen"
    if frozen.is_dir():
        what = "frozen states of texts, in a folder that only you can read; cleared by: epigraph cache clear"
        yield Holding(where=str(frozen), holds="states", what=what, bytes=_size(frozen))
    remembered = folder / "fingerprints"
    if remembered.is_dir():
        yield Holding(
            where=str(remembered), holds="names", what="folders in which bases were found", bytes=_size(remembered)
        )


def _value(card: Card | None, field: str) -> Any:
    found: Any = asdict(card) if card is not None else {}
    for name in field.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _short(value: object) -> str:
    """A field's value, so that one sees it; of a mapping its names."""
    text = ", ".join(map(str, value)) if isinstance(value, Mapping | list | tuple) else str(value)
    return text if len(text) <= 200 else text[:199] + "…"


def _size(path: Path) -> int:
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())
        return path.lstat().st_size
    except OSError:
        return 0
