"""What every method of a sequence works on: the base, the tasks in their order, the settings, the folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from epigraph.continual.labels import Union
from epigraph.continual.settings import ContinualConfig
from epigraph.continual.stage import SequenceFolder, Stage
from epigraph.engine import Engine
from epigraph.errors import ConfigError, InputError, Unsupported
from epigraph.library import check_name
from epigraph.routing import Router, routed_text, text_queries
from epigraph.tasks.row import Row, Split
from epigraph.tasks.split import head
from epigraph.tasks.task import Task
from epigraph.tuning.data import FEWEST_ROWS, Parts, divide
from epigraph.tuning.loop import Listener
from epigraph.tuning.run import rows_hash
from epigraph.tuning.surroundings import Stage as Shown


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """A task of the sequence. ``train`` and ``test`` of the task are rows no choice mixes; empty where its data is gone.
    ``said`` is what sequence.toml says of it, once it is begun."""

    task: Task
    source: tuple[str, str, str]
    said: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name

    @property
    def tests(self) -> Sequence[Row]:
        """The rows it is measured on."""
        return self.task.test.rows if self.task.test is not None else ()

    @property
    def description(self) -> dict[str, object]:
        """As sequence.toml has it: what it was when it was begun, so that data which comes back is known again."""
        if self.said:
            return dict(self.said)
        rows = {"rows": rows_hash(self.task.train.rows), "tests": rows_hash(self.tests)}
        return {"name": self.name, "source": list(self.source), **rows, "task": self.task.to_dict()}


@dataclass(kw_only=True)
class World:
    """The sequence at work."""

    engine: Engine
    folder: SequenceFolder
    config: ContinualConfig
    name: str
    tasks: list[Ordered]
    router: Router
    listener: Listener = lambda _moment: None
    show: Shown = lambda _name, _done, _total: None
    note: Callable[[str], None] = lambda _text: None
    _queries: dict[int, Float[np.ndarray, "N H"]] = field(default_factory=dict)

    def stage(self, method: str, t: int) -> Stage:
        """One method's work on task t."""
        return self.folder.stage(method, t, self.tasks[t].name)

    def union(self, count: int) -> Union:
        """The labels of the first ``count`` tasks."""
        return Union([ordered.task for ordered in self.tasks[:count]], self.config.distinct_labels)

    def common(self, task: Task) -> Task:
        """The task in the first task's template: for methods that are not told which task a text is of."""
        return replace(task, template=self.tasks[0].task.template)

    def posterior(self, i: int, count: int) -> Float[np.ndarray, "N K"]:
        """p(task | text) over the first ``count`` tasks for the test rows of task i, by the router as it is."""
        if i not in self._queries:
            texts = [routed_text(row.fields) for row in self.tasks[i].tests]
            self._queries[i] = text_queries(self.engine, texts)
        return self.router.task_probabilities(self._queries[i], [ordered.name for ordered in self.tasks[:count]])


def read_ordered(path: str, config: ContinualConfig, *, test: str = "", template: str = "", name: str = "") -> Ordered:
    """A TASK argument as a task of a sequence. Raises as ``Task.from_file``, and ConfigError where nothing would measure it."""
    task = Task.from_file(path, test=test or None, template=template or None, strict=config.tune.strict)
    if not task.has_labels:
        raise Unsupported(
            f"task {task.name!r} is {task.kind}: a sequence is measured by accuracy in a union of labels.",
            "Tune it by itself: epigraph tune.",
        )
    check_name(name or task.name)
    rows = task.train.rows if config.rows is None else tuple(head(task.train.rows, config.rows, seed=config.tune.seed))
    parts = divide(replace(task, train=replace(task.train, rows=rows)), config.tune)
    final = set(map(id, parts.final))
    kept = tuple(row for row in rows if id(row) not in final)
    _check_measured(task, len(rows), len(kept), parts, config.tune.holdout)
    tests = tuple(head(parts.final, config.test_rows, seed=0))
    return Ordered(
        task=replace(
            task,
            name=name or task.name,
            train=replace(task.train, rows=kept),
            test=Split(rows=tests, source=task.test.source if task.test else task.train.source),
        ),
        source=(_absolute(path), _absolute(test) if test else "", template),
    )


def _check_measured(task: Task, rows: int, kept: int, parts: Parts, holdout: float) -> None:
    """ConfigError where no rows are left to measure a task on, or too few to learn it from."""
    if parts.split not in ("test", "holdout"):
        raise ConfigError(
            f"task {task.name!r} has no test set, and holdout {holdout:g} keeps none of its {rows} rows to measure it on.",
            "Give it a test file, or a larger --holdout.",
        )
    if kept < FEWEST_ROWS:
        raise ConfigError(
            f"task {task.name!r} has {rows} rows, of which holdout {holdout:g} leaves {kept}; tuning needs {FEWEST_ROWS} or more.",
            "Give it a test file, more rows, or a smaller --holdout.",
        )


def check_together(tasks: Sequence[Ordered]) -> None:
    """Raise InputError for two tasks of one name, ConfigError for other columns than those of the first."""
    names = [ordered.name for ordered in tasks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"two tasks are called {twice!r}: a prompt is found by its task's name.",
            'Rename one: name = "…" in its task TOML, or another name of its file or folder.',
        )
    first = tasks[0].task
    for ordered in tasks[1:]:
        if set(ordered.task.template.fields) != set(first.template.fields):
            raise ConfigError(
                f"task {ordered.name!r} has the columns {_listed(ordered.task)}; the sequence, by its first task "
                f"{first.name!r}, has {_listed(first)}.",
                "A text of unknown task is read in one way: map its columns to these names under [columns] in a task TOML.",
            )


def _listed(task: Task) -> str:
    return ", ".join(task.template.fields)


def _absolute(path: str) -> str:
    return path if path.startswith("hub:") else str(Path(path).resolve())
