"""The tasks that a sequence has already, read again from their sources, as the sequence began them.

    learned by every method    its rows are only measured on: gone or changed, it is measured no more
    begun                      its rows must be those that it was begun with
    not begun                  as its source says now

What the base says for its labels, and how a text of it is read, stay those of the sequence, whatever its source says by now: a
prompt that learned "good" is never asked for "great", and the union of labels that the matrix was measured in stays one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from epigraph.continual.settings import NEEDS_ALL, ContinualConfig
from epigraph.continual.stage import ZERO_SHOT, SequenceFolder, read_json
from epigraph.continual.world import Ordered, read_ordered
from epigraph.errors import ConfigError, InputError, NotFound
from epigraph.tasks.task import Task
from epigraph.tuning.run import rows_hash

Note = Callable[[str], None]


def earlier_tasks(folder: SequenceFolder, said: Mapping[str, Any], config: ContinualConfig, note: Note) -> list[Ordered]:
    """The sequence's tasks so far; training rows are asked for where a method has still to learn them. ConfigError where a
    task that was begun has other rows now."""
    found = []
    for t, one in enumerate(said.get("tasks", ())):
        stages = [folder.stage(method, t, str(one["name"])) for method in config.methods if method not in NEEDS_ALL]
        if all(stage.learned for stage in stages):
            found.append(_learned(one, config, note))
        elif any(stage.begun for stage in stages) or one["name"] in (read_json(folder.folder / ZERO_SHOT) or {}):
            found.append(_begun(one, config, folder, note))
        else:
            found.append(_read(one, config))
    return found


def _read(said: Mapping[str, Any], config: ContinualConfig) -> Ordered:
    path, test, template = _source(said)
    return read_ordered(path, config, test=test, template=template, name=str(said["name"]))


def _begun(said: Mapping[str, Any], config: ContinualConfig, folder: SequenceFolder, note: Note) -> Ordered:
    """A task that some method has still to learn."""
    found = _read(said, config)
    for part, rows in (("rows", found.task.train.rows), ("tests", found.tests)):
        if said.get(part, rows_hash(rows)) != rows_hash(rows):
            raise ConfigError(
                f"{folder.folder} cannot be gone on with: the {'training' if part == 'rows' else 'test'} rows of task "
                f"{found.name!r}, which it is in, are not what they were.",
                f"Bring back the data it was begun with ({found.source[0]}), or begin another sequence.",
            )
    return _as_it_began(said, found, note)


def _learned(said: Mapping[str, Any], config: ContinualConfig, note: Note) -> Ordered:
    """A task that every method has learned: its definition alone where its test rows are gone, or not what they were."""
    bare = Ordered(task=Task.from_dict(said["task"]), source=_source(said), said=said)
    try:
        found = _read(said, config)
    except (NotFound, InputError) as fault:
        note(f"the data of task {bare.name} is gone, so it is not measured again: {fault.message}")
        return bare
    if not _is_same(said, found, bare.task, rows=any(method in NEEDS_ALL for method in config.methods)):
        note(f"the data of task {bare.name} is not what it was, so it is not measured again")
        return bare
    return _as_it_began(said, found, note)


def _is_same(said: Mapping[str, Any], found: Ordered, began: Task, *, rows: bool) -> bool:
    """Whether it has the test rows it had, and training rows, where they are needed, that its labels and template fit."""
    fits = set(found.task.labels) <= set(began.labels) and set(began.template.fields) <= set(found.task.template.fields)
    trains = rows_hash(found.task.train.rows)
    return fits and rows_hash(found.tests) == said["tests"] and (not rows or said.get("rows", trains) == trains)


def _as_it_began(said: Mapping[str, Any], found: Ordered, note: Note) -> Ordered:
    """The rows as they are read now, in the words and the template of the sequence."""
    began = Task.from_dict(said["task"])
    if dict(began.labels) != dict(found.task.labels):
        note(f"the labels of task {began.name} stay what they were when the sequence began: {_words(began)}")
    if began.template != found.task.template:
        note(f"the template of task {began.name} stays what it was when the sequence began: {began.template.text!r}")
    task = replace(began, train=found.task.train, test=found.task.test, reasons=found.task.reasons)
    return replace(found, task=task, said=said)


def _words(task: Task, most: int = 8) -> str:
    shown: Sequence[str] = [f"{label} = {words}" for label, words in task.labels.items()]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def _source(said: Mapping[str, Any]) -> tuple[str, str, str]:
    path, test, template = (str(part) for part in said["source"])
    return path, test, template
