"""The tasks as files give them, and whether they can be tuned together."""

from collections.abc import Sequence
from dataclasses import replace

from epigraph.errors import ConfigError, InputError, Unsupported
from epigraph.library import check_name
from epigraph.methods.calibration import check_calibration
from epigraph.multitask.settings import IN_ONE_PASS, MultitaskConfig
from epigraph.tasks.row import Split
from epigraph.tasks.split import head
from epigraph.tasks.task import Task

TOGETHER_KINDS: Sequence[str] = ("classification", "ordinal", "generation")


def read_tasks(sources: Sequence[str], config: MultitaskConfig, name: str) -> list[Task]:
    """The tasks, at most ``config.rows`` training rows each.

    InputError for two of one name, ConfigError for too few, Unsupported for a kind of task that has no loss together with others.
    """
    tasks = [Task.from_file(path, strict=config.tune.strict) for path in sources]
    if len(tasks) < 2:
        raise ConfigError(f"{len(tasks)} task was given.", "Give two tasks or more: epigraph multitask A.csv B.csv")
    names = [check_name(task.name) for task in tasks]
    twice = next((one for one in [*names, name] if [*names, name].count(one) > 1), None)
    if twice is not None:
        raise InputError(
            f"two prompts would be called {twice!r}: each task's bears its task's name.",
            'Rename one: name = "…" in its task TOML, another name of its file or folder, or --name for the universal one.',
        )
    _check_kinds(tasks, config.kind)
    for task in tasks if config.tune.calibrate else ():
        check_calibration(task, config.tune.calibrate)
    blocks = {task.template.blocks for task in tasks}
    if len(blocks) > 1:
        raise ConfigError(
            f"the tasks' templates have {sorted(blocks)} prompt blocks.", "Give all of them equally many {prompt}."
        )
    if config.rows is None:
        return tasks
    return [replace(t, train=Split(rows=tuple(head(t.train.rows, config.rows, seed=config.tune.seed)))) for t in tasks]


def _check_kinds(tasks: Sequence[Task], kind: str) -> None:
    """Unsupported where tasks learn in one pass and one of them is judged by choices or by many verdicts a row."""
    odd = next((task for task in tasks if task.kind not in TOGETHER_KINDS), None)
    if odd is not None and kind in IN_ONE_PASS:
        raise Unsupported(
            f"task {odd.name!r} is {odd.kind}, which has no loss in one pass with other tasks: --kind {kind} takes tasks of kind "
            f"{', '.join(TOGETHER_KINDS)}.",
            "Leave it out, or pass --kind average or --kind mixture, which tune each task by itself.",
        )
