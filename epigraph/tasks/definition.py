"""What a TASK argument asks for: a data file, a task TOML, or a folder with train.* and maybe test.*.

Nothing of the data is read here. Paths under ``[data]`` are relative to the TOML.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from epigraph.errors import NotFound, TaskError
from epigraph.tasks.asked import Answers
from epigraph.tasks.hub import HubAddress, is_hub, is_saved, splits
from epigraph.tasks.kinds import KINDS_OF_TASK, Kind
from epigraph.tasks.nearest import nearest
from epigraph.tasks.sources import SUFFIXES
from epigraph.tasks.text_file import read_text

TASK_FILE = "task.toml"
_KEYS: dict[str, tuple[type, str]] = {
    "name": (str, "a string"),
    "kind": (str, "a string"),
    "instruction": (str, "a string"),
    "template": (str, "a string"),
    "chat": (bool, "true or false"),
    "metric": (str, "a string"),
    "columns": (dict, "a table"),
    "labels": (dict, "a table"),
    "data": (dict, "a table"),
    "hard_prompts": (list, "an array of tables, [[hard_prompts]]"),
    "stop": (list, 'a list of texts, such as ["\\n"]'),
    "output_tokens": (int, "a whole number of tokens"),
    "delimiter": (str, "a string"),
    "first_choice": (int, "0 or 1"),
}


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What the user says about a task; None and empty where they leave it to us."""

    name: str
    kind: Kind | None = None
    instruction: str | None = None
    template: str | None = None
    chat: bool = False
    metric: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    hard_prompts: tuple[str, ...] = ()
    answers: Answers = field(default_factory=Answers)
    stop: tuple[str, ...] = ()
    output_tokens: int | None = None
    train: Path | str | None = None
    test: Path | str | None = None


def read_definition(path: Path | str) -> Definition:
    """What stands behind a TASK argument. Raises NotFound, TaskError, DataError."""
    if is_hub(path):
        return _hub(str(path))
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() == ".toml":
        return _toml(path)
    name = path.stem if path.stem not in ("train", "data") else path.resolve().parent.name or path.stem
    return Definition(name=name, train=path)


def check_kind(kind: str) -> Kind:
    """The kind if it is one. Raises TaskError."""
    for known in KINDS_OF_TASK:
        if kind == known:
            return known
    raise TaskError(f"kind {kind!r} is not a kind of task.", nearest(kind, KINDS_OF_TASK))


def _hub(text: str) -> Definition:
    address = HubAddress.parse(text)
    name = address.name.split("/")[-1]
    if address.split:
        return Definition(name=name, train=text)
    return Definition(name=name, train=f"{text}@train", test=f"{text}@test" if "test" in splits(text) else None)


def _folder(path: Path) -> Definition:
    name = path.resolve().name
    if is_saved(path):
        return Definition(name=name, train=path, test=f"{path}@test" if "test" in splits(path) else None)
    train, test = _one(path, "train"), _one(path, "test")
    if (path / TASK_FILE).is_file():
        definition = _toml(path / TASK_FILE)
        return replace(definition, name=name, train=definition.train or train, test=definition.test or test)
    if train is None:
        files = sorted(entry.name for entry in path.iterdir())
        found = ", ".join(files[:8]) or "nothing"
        raise NotFound(f"folder {path} has no train file; it has {found}.", "Name one train.csv (or .jsonl, .parquet, …).")
    return Definition(name=name, train=train, test=test)


def _one(folder: Path, stem: str) -> Path | None:
    """The data file ``stem.*`` of a folder; TaskError where there are two."""
    files = sorted(entry for entry in folder.iterdir() if entry.stem == stem and entry.suffix.lower() in SUFFIXES)
    if len(files) > 1:
        raise TaskError(f"folder {folder} has both {files[0].name} and {files[1].name}.", "Keep one of them.")
    return files[0] if files else None


def _toml(path: Path) -> Definition:
    text = read_text(path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"{path} is not TOML: {error}.", "Strings stand in quotes, tables in [brackets].") from None
    _check_keys(path, data)
    sources = _strings(path, "data", data.get("data", {}), ("train", "test"))
    columns, answers = _answers(path, data)
    kind: Kind | None = "choice" if answers.choices else "multilabel" if answers.marks else None
    return Definition(
        name=data.get("name") or (path.stem if path.name != TASK_FILE else path.resolve().parent.name),
        kind=check_kind(data["kind"]) if "kind" in data else kind,
        instruction=data.get("instruction"),
        template=data.get("template"),
        chat=data.get("chat", False),
        metric=data.get("metric"),
        columns=_strings(path, "columns", columns),
        answers=answers,
        stop=_stop(path, data.get("stop", [])),
        output_tokens=_output_tokens(path, data.get("output_tokens")),
        labels=_strings(path, "labels", data.get("labels", {})),
        hard_prompts=_hard_prompts(path, data.get("hard_prompts", [])),
        train=_beside(path, sources.get("train")),
        test=_beside(path, sources.get("test")),
    )


def _check_keys(path: Path, data: Mapping[str, Any]) -> None:
    for key, value in data.items():
        if key not in _KEYS:
            raise TaskError(f"{path} has the unknown key {key!r}.", nearest(key, _KEYS))
        wanted, said = _KEYS[key]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is int):
            raise TaskError(f"{path}: {key} is {value!r}, {said} was expected.")


def _answers(path: Path, data: Mapping[str, Any]) -> tuple[dict[str, Any], Answers]:
    """``[columns]`` without the lists of columns in it, and these with what else is said of answers."""
    columns = dict(data.get("columns", {}))
    choices = columns.pop("choices", ())
    marks = columns.pop("labels") if isinstance(columns.get("labels"), list) else ()
    if isinstance(columns.get("labels"), str):
        columns["label"] = columns.pop("labels")
    first = data.get("first_choice")
    if first not in (None, 0, 1):
        raise TaskError(f"{path}: first_choice is {first!r}, 0 or 1 was expected.")
    answers = Answers(
        choices=_texts(path, "choices under [columns]", [choices] if isinstance(choices, str) else choices),
        marks=_texts(path, "labels under [columns]", marks),
        delimiter=data.get("delimiter", ""),
        first_choice=first,
    )
    return columns, answers


def _stop(path: Path, words: list[Any]) -> tuple[str, ...]:
    return _texts(path, "stop", words, blank=True)


def _texts(path: Path, name: str, values: Any, *, blank: bool = False) -> tuple[str, ...]:
    """A list of texts that say something, or at least hold a character where they may be ``blank``."""
    if not isinstance(values, list | tuple):
        raise TaskError(f"{path}: {name} is {values!r}, a list of texts was expected.")
    for value in values:
        if not isinstance(value, str) or not (value if blank else value.strip()):
            raise TaskError(f"{path}: {name} holds {value!r}, a text was expected.")
    return tuple(dict.fromkeys(values))


def _output_tokens(path: Path, asked: int | None) -> int | None:
    if asked is not None and asked < 1:
        raise TaskError(f"{path}: output_tokens is {asked}; it must be at least 1.")
    return asked


def _strings(path: Path, name: str, table: Mapping[str, Any], known: tuple[str, ...] = ()) -> dict[str, str]:
    """A table of strings, its keys checked where they are known."""
    for key, value in table.items():
        if known and key not in known:
            raise TaskError(f"{path} has the unknown key {key!r} under [{name}].", nearest(key, known))
        if not isinstance(value, str) or not value.strip():
            hint = f'Write "{key}" in quotes where it has a dot.' if isinstance(value, dict) else f'Write {key} = "…".'
            raise TaskError(f"{path}: {key} under [{name}] is {value!r}, a string was expected.", hint)
    return dict(table)


def _hard_prompts(path: Path, tables: list[Any]) -> tuple[str, ...]:
    for table in tables:
        if not isinstance(table, dict):
            raise TaskError(f"{path}: hard_prompts holds {table!r}.", 'Write [[hard_prompts]] and below it text = "…".')
        _strings(path, "[hard_prompts]", table, ("text",))
        if "text" not in table:
            raise TaskError(f"{path}: a [[hard_prompts]] has no text.", 'Write text = "…" below it.')
    return tuple(table["text"] for table in tables)


def _beside(path: Path, source: str | None) -> Path | str | None:
    if source is None or is_hub(source):
        return source
    return path.parent / Path(source).expanduser()
