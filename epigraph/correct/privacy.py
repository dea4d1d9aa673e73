"""What of a library, and of what is kept between runs, holds texts or could: every file and field, by what it says.

    holds    "texts"       words of the data, of a user, or of who wrote the task
             "answers"     what prompts answered to rows, without their texts
             "names"       names and paths of files
             "states"      what a base computed of texts: no words, but of these texts alone
             "vectors"     learned numbers; of kinds and starts that begin from the data, words may be read off them
             "numbers"     counts, scores, hashes

A stored prompt holds no text of its data unless its labels, template, instruction or hard prompts do: those are what its task says.
Kinds and starts that embed texts are named: their vectors began as tokens of these texts, and a vector that moved little is still
nearest to its token. Where the hard prompt was kept instead, the vectors are its words, training rows among them where it shows any.
A file that no table here knows is told as one to look into.
"""

import tempfile
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
from epigraph.library.versions import ALIASES

EMBEDS = {
    "context": "a few-shot context of training rows whose tokens move little: words can be read off its vectors",
    "examples": "it started from training rows",
    "text:": "it started from a text file, compressed",
    "prompt:": "it started from another prompt, and holds what that one held",
    "nearest": "it started from another prompt, and holds what that one held",
    "distilled": "a student of another prompt or text: it started from what its teacher reads, or from the teacher's vectors",
    "hard": "the hard prompt was kept: its vectors are its words, which can be read off them exactly",
    "shots": "a hard prompt with examples was kept: its vectors are training rows, which can be read off them exactly",
    "labels": "it started from the labels",
    "text": "it started from the task's instruction",
}
"""Kinds and starts by what of texts their vectors began as."""

FROM_DATA = ("context", "examples", "text:", "prompt:", "nearest")
FROM_TASK = ("labels", "text")
SHOTS = "-shot"  # at the end of what a hard prompt with examples is called

KEPT: Mapping[str, tuple[str, str]] = {
    ".runs": ("texts", "runs: the data's path, its number of rows and hash, the task, settings, the state of the vectors"),
    ".router": ("states", "the router: means and scatter of the states of each task's texts, no texts"),
    ".hard_prompts.jsonl": ("texts", "drafts of `epigraph prompt try`: hard prompts as they were written, and their scores"),
}
"""What lies in a library beside its prompts."""

COMPARISONS = "comparisons"
"""Where comparisons are kept, beside the library, unless --folder says otherwise."""

_ASKED = ("texts", "what was asked: paths and hashes of the data, the task's labels, template and instruction, settings")
_REPORT = ("texts", "a report: rows with their answers")
_CELLS = "cells"

INSIDE: Mapping[str, tuple[str, str]] = {
    "weights.safetensors": (
        "vectors",
        "all or some weights of a model tuned on the task's rows: texts may be drawn from them",
    ),
    "state.safetensors": ("vectors", "the state of a tuning: vectors as a stored prompt has them, of any start"),
    "together.safetensors": ("vectors", "the state of tasks tuned together"),
    PROMPT: ("vectors", "learned vectors of a run's part, of any kind and start"),
    CARD: ("texts", "the card of a run's part: labels, instruction and template of the task"),
    README: ("names", "the card of a run's part, for people"),
    METRICS: ("numbers", "losses and scores of a tuning's validations"),
    "run.toml": _ASKED,
    "sequence.toml": _ASKED,
    "multitask.toml": _ASKED,
    "distill.toml": _ASKED,
    "trials.toml": ("numbers", "the trials of a search"),
    "compiling.toml": ("numbers", "whether a tuning was compiled"),
    "planned": ("numbers", "hashes of the texts that a tuning is not the first to read"),
    "stored": ("names", "what a run's prompt is called in the library"),
    "learned.json": ("texts", "what a task of a sequence took, and its settings, the template among them"),
    "scores.json": ("numbers", "scores of a sequence's tasks"),
    "ahead.json": ("numbers", "scores of a sequence's next task"),
    "zero_shot.json": ("names", "scores of hard prompts by the tasks' names"),
    "together.json": ("numbers", "what tuning tasks together took"),
    "finished.json": ("names", "what the prompts of tasks tuned together are called in the library"),
    "replay.jsonl": ("texts", "training rows that the method replay learns again"),
    "router.toml": ("names", "a router's tasks and prompts by name"),
    "router.safetensors": ("states", "a router: means and scatter of the states of each task's texts, no texts"),
    "comparison.json": ("texts", "a comparison: the data's path and the hard prompts as they were written"),
    "result.json": ("texts", "a comparison's result: rows with their answers"),
    _CELLS: ("answers", "a comparison: what every method answered to the test rows"),
    "report.html": _REPORT,
    "report.md": _REPORT,
}
"""Files and folders that lie below those, wherever they do."""

BELOW: Mapping[str, tuple[str, str]] = {
    "stored": ("names", "what a task's prompt is called in the library"),
}
"""What the files of a folder of this name are."""

CACHED: Mapping[str, tuple[str, str]] = {
    "frozen": ("states", "frozen states of texts, in a folder that only you can read; cleared by: epigraph cache clear"),
    "answers": (
        "answers",
        "what larger teachers answered, by hashes of the texts; cleared by: epigraph cache clear answers",
    ),
    "fingerprints": ("names", "folders in which bases were found"),
}
"""What lies in the cache and comes from texts or names; the rest of it are models and measurements of this machine."""

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
"""Fields of a card that hold what a user wrote, or numbers of the user's rows."""

OWN = (
    *("kind", "place", "trained_parameters", "version", "created", "epigraph", "form", "lengths", "portable", "files"),
    *("base.fingerprint", "base.hidden", "base.layers", "base.kv_heads", "base.head_size", "base.verified"),
    *("task.kind", "task.metric", "task.chat", "task.threshold", "task.instruction_generated", "task.output_tokens"),
)
"""Fields whose values are Epigraph's own words, sizes, dates and hashes, whatever the data."""


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
    """Everything found, and the prompts whose vectors began as texts, with why: ``embeds`` of the data, of users or of other
    prompts, ``words`` of the task alone, such as its labels."""

    holdings: Sequence[Holding]
    embeds: Mapping[str, str]
    words: Mapping[str, str]

    @property
    def json(self) -> dict[str, Any]:
        """As a command prints it."""
        named = {"embeds": dict(self.embeds), "words": dict(self.words), "kinds": dict(EMBEDS)}
        return {"holdings": [asdict(one) for one in self.holdings], **named}


def check_privacy(root: Path, reference: str = "", *, cache: Path | None = None) -> Privacy:
    """Everything in a library (or one of its prompts) and in the cache that holds texts or could. NotFound for no such prompt."""
    library = Library(root)
    holdings: list[Holding] = []
    wanted = library.resolve(reference) if reference else None
    every = library.list()
    asked = [entry for entry in every if wanted is None or (entry.name, entry.version) == wanted]
    for entry in asked:
        holdings += _of_prompt(library.root / entry.name / str(entry.version), entry.card, f"{entry.name}@{entry.version}")
    if wanted is None:
        holdings += _of_aliases(library)
        holdings += [one for path in entries(library.root) if path.name.startswith(".") for one in _beside(path)]
        holdings += _of_comparisons(library.root.parent / COMPARISONS)
    holdings += [*_of_cache(cache or home()), *_tracebacks()]
    embeds = _inherited([entry.card for entry in every if entry.card is not None])
    cards = [entry.card for entry in asked if entry.card is not None]
    return Privacy(
        holdings=holdings,
        embeds={card.reference: embeds[card.reference] for card in cards if card.reference in embeds},
        words={card.reference: why for card in cards if card.reference not in embeds and (why := _of_its_task(card))},
    )


def embedded(card: Card) -> str:
    """Why a prompt's vectors may hold words of its data; "" where they began as nothing of it."""
    start = str(card.settings.get("start", ""))
    found = [
        name for name in FROM_DATA if card.kind == name or start == name or (name.endswith(":") and start.startswith(name))
    ]
    if card.settings.get("verdict") == "hard":
        found = ["shots" if str(card.settings.get("hard_prompt", "")).endswith(SHOTS) else "hard"]
    distilled = ["distilled"] if card.lineage.how.startswith("distilled from") else []
    return "; ".join(EMBEDS[name] for name in [*found, *distilled])


def _of_its_task(card: Card) -> str:
    """Which words of its task a prompt began as."""
    start = str(card.settings.get("start", ""))
    return EMBEDS[start] if start in FROM_TASK else ""


def _inherited(cards: Sequence[Card]) -> dict[str, str]:
    """Why each prompt embeds texts, those that came from such a prompt with them."""
    found = {card.reference: why for card in cards if (why := embedded(card))}
    while True:
        more = {}
        for card in cards:
            parent = next((one for one in card.lineage.parents if one in found), "")
            if parent and card.reference not in found:
                more[card.reference] = f"it came from {parent}: {found[parent]}"
        if not more:
            return found
        found |= more


def _of_aliases(library: Library) -> Iterator[Holding]:
    for name in library.names():
        path = library.root / name / ALIASES
        if path.is_file():
            yield Holding(where=str(path), holds="names", what="which versions aliases mean", bytes=_size(path))


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
    """Every file below, a folder of cells as one."""
    for path in entries(folder) if folder.is_dir() and not folder.is_symlink() else ():
        if path.name == _CELLS or not path.is_dir() or path.is_symlink():
            holds, what = _told(path)
            yield Holding(where=str(path), holds=holds, what=what, bytes=_size(path))
        else:
            yield from _inside(path)


def _told(path: Path) -> tuple[str, str]:
    if path.suffix == TRACEBACK:
        return _FAULT
    return INSIDE.get(path.name) or BELOW.get(path.parent.name, _UNKNOWN)


TRACEBACK = ".traceback"
_FAULT = ("texts", "the traceback of a fault of Epigraph: its message may quote a text or a path")


def _tracebacks() -> Iterator[Holding]:
    """Those that commands left in the folder for temporary files."""
    for path in sorted(Path(tempfile.gettempdir()).glob(f"epigraph-*{TRACEBACK}")):
        yield Holding(where=str(path), holds=_FAULT[0], what=_FAULT[1], bytes=_size(path))


def _of_cache(folder: Path) -> Iterator[Holding]:
    for name, (holds, what) in CACHED.items():
        if (folder / name).is_dir():
            yield Holding(where=str(folder / name), holds=holds, what=what, bytes=_size(folder / name))


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
