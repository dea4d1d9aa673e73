"""The methods that learn a sequence of tasks with prompts: what each keeps, and how it answers.

    separate      P_k for task k                          progressive   [P_1 ; … ; P_k], older ones frozen
    sequential    one P, task after task                  replay        the same, with kept rows of earlier tasks
    pool          components mixed by the frozen query    joint         one P, all tasks at once

A method answers a text as one of a certain task (``probabilities``) or as one of any task learned so far (``union``).
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from epigraph.config import TuneConfig
from epigraph.continual.labels import Posterior, Union
from epigraph.continual.progressive import ProgressivePrompt
from epigraph.continual.world import World
from epigraph.library import StoredPrompt, read_prompt, write_prompt
from epigraph.library.disk import replace_file
from epigraph.methods import PromptedBase
from epigraph.methods.solver import Probabilities
from epigraph.prompts import AnyForm, Dependent, Form, PoolPrompt, SoftPrompt
from epigraph.tasks.row import Row, Split
from epigraph.tasks.split import head
from epigraph.tasks.task import Task
from epigraph.tuning import Surroundings, TuneResult, tune
from epigraph.tuning.run import Run

SETTLED = ("kind", "place", "readings")
Wrap = Callable[[SoftPrompt], SoftPrompt]


class Learner(ABC):
    """A method in a sequence. ``frozen``: what it learned of a task never changes again."""

    name: ClassVar[str]
    frozen: ClassVar[bool] = False

    def __init__(self, world: World) -> None:
        self.world = world
        self.learned = -1  # the newest task

    @abstractmethod
    def learn(self, t: int) -> None:
        """Learn task t after those before it, or go on where that was interrupted."""

    @abstractmethod
    def restore(self, t: int) -> None:
        """Take what was learned up to task t from the folder."""

    @abstractmethod
    def probabilities(self, k: int, task: Task, rows: Sequence[Row]) -> Probabilities:
        """The probability of each of the task's labels for rows answered as texts of task k."""

    @abstractmethod
    def union(self, i: int, union: Union, posterior: Posterior) -> Probabilities:
        """The probability of each of the union's answers for the test rows of task i."""

    def on_tests(self, k: int, i: int, places: np.ndarray | None = None) -> Probabilities:
        """``probabilities`` of task k's labels for the test rows of task i, or for those at some places."""
        rows = list(self.world.tasks[i].tests)
        chosen = rows if places is None else [rows[p] for p in places]
        return self.probabilities(k, self.world.tasks[k].task, chosen)


class PromptLearner(Learner):
    """A method whose work on a task is one tuning."""

    def _tune(
        self, t: int, task: Task, *, start: Sequence[Form] = (), wrap: Wrap | None = None, kind: str = ""
    ) -> TuneResult:
        world = self.world
        stage = world.stage(self.name, t)
        config = self._config()
        if start:
            config = replace(config, start="prompt:before")
        if kind:
            config = replace(config, kind=kind)
        around = Surroundings(
            runs=stage.runs,
            resume=stage.unfinished_run(),
            listener=world.listener,
            stage=world.show,
            note=world.note,
            forms_of=lambda _name: start,
            wrap=wrap or (lambda prompt: prompt),
            source=world.tasks[t].source,
        )
        result = tune(world.engine.base, task, config, name=world.tasks[t].name, engine=world.engine, around=around)
        stored = result.prompt.stored
        write_prompt(stage.prompt, stored.forms, stored.card)
        metrics = result.prompt.metrics_file
        if metrics is not None:
            Run(metrics.parent).finish(str(stage.prompt))
        stage.finish_learning(_said(result))
        return result

    def _config(self) -> TuneConfig:
        """How its tunings are asked for."""
        return self.world.config.tune.single

    def stored(self, t: int) -> StoredPrompt:
        """The prompt that task t ended in."""
        return read_prompt(self.world.stage(self.name, t).prompt)


class PromptEach(PromptLearner):
    """A prompt a task, never changed again."""

    name = "separate"
    frozen = True

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.prompts: list[list[AnyForm]] = []
        self.templates: list[Task] = []
        self._tables: dict[tuple[int, int], Probabilities] = {}

    def learn(self, t: int) -> None:
        """Tune task t's own prompt."""
        self._tune(t, self.world.tasks[t].task)
        self.restore(t)

    def restore(self, t: int) -> None:
        """All prompts up to task t."""
        while len(self.prompts) <= t:
            stored = self.stored(len(self.prompts))
            self.prompts.append(list(stored.forms))
            self.templates.append(Task.from_dict(stored.card.task))
        self._tables = {(k, i): found for (k, i), found in self._tables.items() if k != i}
        self.learned = t

    def probabilities(self, k: int, task: Task, rows: Sequence[Row]) -> Probabilities:
        """By task k's prompt; a task not learned yet is answered by the newest prompt."""
        own = min(k, self.learned)
        placed = replace(task, template=self.templates[own].template)
        return PromptedBase(self.world.engine, placed, self.prompts[own]).probabilities(rows)

    def on_tests(self, k: int, i: int, places: np.ndarray | None = None) -> Probabilities:
        """Computed once for each prompt and test set, since neither changes; a task's own anew after every task, to be sure."""
        if k > self.learned:
            return super().on_tests(k, i, places)
        if (k, i) not in self._tables:
            self._tables[k, i] = super().on_tests(k, i)
        return self._tables[k, i] if places is None else self._tables[k, i][places]

    def union(self, i: int, union: Union, posterior: Posterior) -> Probabilities:
        """p(answer) = Σ_k p(k | x) p(its words | x, k): the router weighs the prompts."""
        found = np.zeros((len(posterior), len(union.answers)))
        for k, task in enumerate(union.tasks):
            own = self.on_tests(k, i)
            for column, label in enumerate(task.labels):
                found[:, union.answers.index(union.answer(k, label))] += posterior[:, k] * own[:, column]
        return found


class Progressive(PromptEach):
    """Each prompt behind those before it."""

    name = "progressive"

    def learn(self, t: int) -> None:
        """Tune task t's part behind the frozen prompt of task t − 1, which holds all before it."""
        older = [form for form in self.prompts[t - 1] if not isinstance(form, Dependent)] if t else []
        self._tune(t, self.world.tasks[t].task, wrap=(lambda prompt: ProgressivePrompt(prompt, older)) if older else None)
        self.restore(t)


class OnePrompt(PromptLearner):
    """One prompt for all tasks, tuned on one after another."""

    name = "sequential"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.forms: list[AnyForm] = []
        self.template = world.tasks[0].task.template

    def learn(self, t: int) -> None:
        """Tune on from the prompt of task t − 1."""
        self._tune(t, self._task(t), start=self._plain())
        self.restore(t)

    def _task(self, t: int) -> Task:
        return self.world.common(self.world.tasks[t].task)

    def _config(self) -> TuneConfig:
        """One prompt stands in one template: what the first tuning settled holds for those after it, whatever their rows."""
        config = replace(super()._config(), keep="soft")
        first = self.world.stage(self.name, 0).learned
        settled = first["settings"] if first else {}
        return replace(config, **{name: settled[name] for name in SETTLED if name in settled})

    def _plain(self) -> list[Form]:
        return [form for form in self.forms if not isinstance(form, Dependent)]

    def restore(self, t: int) -> None:
        """The prompt as task t left it."""
        stored = self.stored(t)
        self.forms, self.template, self.learned = list(stored.forms), Task.from_dict(stored.card.task).template, t

    @contextmanager
    def solver(self, task: Task) -> Iterator[PromptedBase]:
        """What answers with this task's labels."""
        yield PromptedBase(self.world.engine, replace(task, template=self.template), self.forms)

    def probabilities(self, k: int, task: Task, rows: Sequence[Row]) -> Probabilities:  # noqa: ARG002
        """By the one prompt there is, whatever the task."""
        with self.solver(task) as solver:
            return solver.probabilities(rows)

    def union(self, i: int, union: Union, posterior: Posterior) -> Probabilities:
        """The joint trie of all labels; equal words of distinct labels are told apart by the router."""
        with self.solver(union.task(self.world.tasks[0].task)) as solver:
            return union.split(solver.probabilities(list(self.world.tasks[i].tests)), posterior)


class Pool(OnePrompt):
    """Components mixed by the frozen query."""

    name = "pool"

    def learn(self, t: int) -> None:
        """Add and tune task t's components."""
        older = self._pool() if t else None

        def wrap(fresh: SoftPrompt) -> SoftPrompt:
            assert isinstance(fresh, PoolPrompt)
            return fresh if older is None else fresh.behind(older)

        self._tune(t, self._task(t), wrap=wrap, kind="pool")
        self.restore(t)

    def _pool(self) -> PoolPrompt:
        first = self.forms[0]
        assert isinstance(first, Dependent)
        assert isinstance(first.prompt, PoolPrompt)
        return first.prompt


class Replay(OnePrompt):
    """One prompt, tuned on each task with some rows of those before."""

    name = "replay"

    def learn(self, t: int) -> None:
        """Tune on from the prompt of task t − 1, on all labels so far."""
        union, world = self.world.union(t + 1), self.world
        rows = [(t, row) for row in world.tasks[t].task.train.rows] + self._kept(t)
        task = replace(union.task(world.tasks[0].task, rows), test=_renamed(t, world))
        self._keep(t)  # first: what is marked as learned is not learned again, and its rows would be missed later
        self._tune(t, task, start=self._plain())
        self.restore(t)

    @property
    def _file(self) -> Path:
        return self.world.folder.folder / self.name / "replay.jsonl"

    def _kept(self, t: int) -> list[tuple[int, Row]]:
        if not self._file.is_file():
            return []
        lines = [json.loads(line) for line in self._file.read_text(encoding="utf-8").splitlines()]
        return [(k, Row(fields=fields, target=target)) for k, fields, target in lines if k < t]

    def _keep(self, t: int) -> None:
        rows = head(self.world.tasks[t].task.train.rows, self.world.config.replayed, seed=self.world.config.tune.seed)
        kept = [*self._kept(t), *((t, row) for row in rows)]
        lines = [json.dumps([k, dict(row.fields), row.target]) for k, row in kept]
        self.world.stage(self.name, t)  # the folder is there
        replace_file(self._file, ("\n".join(lines) + "\n").encode())


class Joint(OnePrompt):
    """One prompt, tuned on all tasks at once; it learns nothing before the last is there."""

    name = "joint"

    def learn(self, t: int) -> None:
        """Tune on the rows of all tasks up to t."""
        world, union = self.world, self.world.union(t + 1)
        rows = [(k, row) for k, ordered in enumerate(world.tasks[: t + 1]) for row in ordered.task.train.rows]
        self._tune(t, replace(union.task(world.tasks[0].task, rows), test=_renamed(t, world)))
        self.restore(t)


def _renamed(t: int, world: World) -> Split:
    """The test rows of task t with the union's labels."""
    test = world.tasks[t].task.test
    assert test is not None
    task = world.tasks[t].task
    return replace(test, rows=tuple(replace(row, target=task.labels.get(row.target or "", row.target)) for row in test.rows))


def _said(result: TuneResult) -> dict[str, object]:
    cost = result.cost
    return {
        "seconds": cost["seconds"],
        "trained_parameters": cost["trained_parameters"],
        "bytes": cost["kept_bytes"],
        "inference_tokens": cost["added_tokens"],
        "trials": max(1, len(result.trials)),
        "settings": {name: value for name, value in result.settings.items() if value is not None},
    }
