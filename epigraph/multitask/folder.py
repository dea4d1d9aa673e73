"""The work folder: what was asked, and what is finished, so that an interrupted command goes on where it was.

multitask.toml                   tasks with their sources and rows, settings, base: obeyed on resume
plain/0-sst2/prompt              a task's plain prompt; its tuning beside it in runs/…
together/0-sst2/prompt           its prompt, where it is tuned alone, from what is shared or over the others' plain prompts
together.safetensors             the tuning in one pass, under way             together.json   what it took
transfer/text/0-sst2/prompt      tuned on a few rows from its own text         transfer/trec/…   from another task's prompt
stored/sst2.json                 what a prompt is called in the library
finished.json                    all of them are stored
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from epigraph.config import read_toml, write_toml
from epigraph.errors import ConfigError, InputError, NotFound
from epigraph.library import Card, Library
from epigraph.library.disk import replace_file, storing
from epigraph.prompts import AnyForm
from epigraph.tasks.task import Task
from epigraph.tuning.run import rows_hash

DESCRIPTION, PLAIN, TOGETHER, TRANSFER = "multitask.toml", "plain", "together", "transfer"
JOINT, JOINT_STATE = "together.json", "together.safetensors"
STORED, FINISHED = "stored", "finished.json"


def new_folder(library: Path, name: str) -> Path:
    """Where new work goes, under a name of its own; it is not made yet."""
    return library.absolute() / ".runs" / f"multitask-{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def describe(folder: Path, said: Mapping[str, Any]) -> None:
    """Write down what was asked, once: work that is gone on with keeps its description."""
    if not (folder / DESCRIPTION).is_file():
        with storing("the work of multitask", folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_toml(folder / DESCRIPTION, said)


def description_of(folder: Path | None) -> dict[str, Any]:
    """What was asked of the work to go on with; empty for new work. NotFound for a folder that holds none."""
    if folder is None:
        return {}
    if not (folder / DESCRIPTION).is_file():
        raise NotFound(
            f"{folder} is no work of multitask: it has no {DESCRIPTION}.", "Give the folder that multitask printed."
        )
    return read_toml(folder / DESCRIPTION)


def check_rows(said: Mapping[str, Any], tasks: Sequence[Task], folder: Path | None) -> None:
    """ConfigError where a task's training or test rows are not those that the work was begun with."""
    now = hashes(tasks)
    for part, what in (("rows", "rows"), ("tests", "test rows")):
        changed = [task.name for task, a, b in zip(tasks, said.get(part, now[part]), now[part], strict=True) if a != b]
        if changed:
            raise ConfigError(
                f"{folder} cannot be resumed: the {what} of task {changed[0]!r} are not what they were.",
                "Bring back what they were, or begin anew.",
            )


def hashes(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """What the description says of the rows: those that train and, "" where there are none, those that test."""
    tests = [rows_hash(task.test.rows) if task.test is not None else "" for task in tasks]
    return {"rows": [rows_hash(task.train.rows) for task in tasks], "tests": tests}


def refuse_finished(folder: Path | None) -> None:
    """InputError for work whose prompts are stored already."""
    if folder is not None and (folder / FINISHED).is_file():
        prompts = ", ".join(json.loads((folder / FINISHED).read_text(encoding="utf-8"))["prompts"])
        raise InputError(f"work {folder} is finished: its prompts are {prompts}.", "Begin anew for other versions.")


def store(folder: Path, library: Library, name: str, forms: Sequence[AnyForm], card: Card) -> str:
    """Put a prompt into the library, once however often the work is gone on with; its reference."""
    file = folder / STORED / f"{name}.json"
    if not file.is_file():
        mark(file, {"prompt": library.add(name, forms, card).reference})
    return str(json.loads(file.read_text(encoding="utf-8"))["prompt"])


def mark(file: Path, said: Mapping[str, Any]) -> None:
    """Write that something is finished, whole or not at all."""
    with storing("the work of multitask", file):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps(said).encode())
