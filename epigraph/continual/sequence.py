"""Learn tasks one after another and measure every method in every scenario; a task can be added later.

    for t: answer task t before it is learned → add it to the router → learn it → R[t, ·] in three scenarios → store

What is finished is never touched again: a sequence that was interrupted, or gets another task, goes on at the first task
that a method has not learned and scored.
"""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from epigraph.base import Base, load_base
from epigraph.continual.earlier import earlier_tasks
from epigraph.continual.learners import Joint, Learner, OnePrompt, Pool, Progressive, PromptEach, PromptLearner, Replay
from epigraph.continual.measures import DEFINITIONS, MEANINGS, SCENARIOS, Measures
from epigraph.continual.scoring import score_row, score_task
from epigraph.continual.settings import METHODS, NEEDS_ALL, ContinualConfig
from epigraph.continual.stage import ZERO_SHOT, SequenceFolder, read_json, write_json
from epigraph.continual.weights import SequentialFull, SequentialLora
from epigraph.continual.world import Ordered, World, check_together, read_ordered
from epigraph.engine import Engine
from epigraph.errors import BaseMismatch, ConfigError, NotFound
from epigraph.evaluation import evaluate
from epigraph.library import Library, check_name
from epigraph.methods import best_zero_shot
from epigraph.routing import Router, learn_route, read_router, routed_text, text_queries, write_router
from epigraph.tuning.data import divide
from epigraph.tuning.loop import Listener
from epigraph.tuning.surroundings import Stage as Shown

LEARNERS: Mapping[str, type[Learner]] = {
    kind.name: kind for kind in (PromptEach, Progressive, Pool, OnePrompt, SequentialLora, SequentialFull, Replay, Joint)
}
AHEAD, STORED = "ahead.json", "stored"
TO_ROUTE = "to_route"
assert tuple(LEARNERS) == tuple(METHODS)


@dataclass(frozen=True, kw_only=True)
class ContinualJob:
    """What was asked for. ``tasks`` are TASK arguments in their order; ``resume`` is the sequence they are added to."""

    tasks: tuple[str, ...]
    library: Path
    config: ContinualConfig
    name: str = "continual"
    resume: Path | None = None
    base: str = "default"
    device: str = "auto"
    dtype: str = "auto"
    memory: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ContinualResult:
    """Every method's measures, and what the sequence is."""

    folder: Path
    order: Sequence[str]
    methods: Mapping[str, Mapping[str, Measures]]
    growth: Mapping[str, Sequence[Mapping[str, Any]]]
    stored: Sequence[str]
    labels: int
    shared_labels: Mapping[str, Sequence[str]]
    distinct_labels: bool
    notes: Sequence[str]

    @property
    def first(self) -> str:
        """The method that the library holds."""
        return next(iter(self.methods))

    @property
    def json(self) -> dict[str, Any]:
        """The contract's object: ``scenarios`` are those of the first method."""
        methods = [
            {"name": name, "scenarios": _scenarios(found), "growth": [dict(one) for one in self.growth[name]]}
            for name, found in self.methods.items()
        ]
        return {
            "sequence": str(self.folder),
            "order": list(self.order),
            "method": self.first,
            "scenarios": _scenarios(self.methods[self.first]),
            "methods": methods,
            "zero_shot": list(self.methods[self.first]["known"].zero_shot),
            "labels": {
                "union": self.labels,
                "shared": {words: list(names) for words, names in self.shared_labels.items()},
                "distinct": self.distinct_labels,
            },
            "definitions": dict(DEFINITIONS),
            "meanings": dict(MEANINGS),
            "prompts": list(self.stored),
            "warnings": list(self.notes),
        }


def _scenarios(found: Mapping[str, Measures]) -> dict[str, Any]:
    return {scenario: found[scenario].json for scenario in SCENARIOS}


def run_job(
    job: ContinualJob,
    *,
    listener: Listener = lambda _moment: None,
    show: Shown = lambda _name, _done, _total: None,
    started: Callable[[Path], None] = lambda _folder: None,
    note: Callable[[str], None] = lambda _text: None,
) -> ContinualResult:
    """Learn and measure the tasks. All that can be checked without the base is checked before it is loaded."""
    check_name(job.name)
    notes: list[str] = []

    def keep(text: str) -> None:
        notes.append(text)
        note(text)

    folder, said = _folder(job)
    config = ContinualConfig.from_dict(said["config"]) if said else job.config
    tasks = [*earlier_tasks(folder, said, config, keep), *(read_ordered(path, config) for path in job.tasks)]
    if len(tasks) < 2:
        raise ConfigError(
            f"a sequence of {len(tasks)} task was asked.", "Give two tasks or more: epigraph continual A.csv B.csv"
        )
    check_together(tasks)
    _check_rows(config, tasks)
    base = load_base(
        str(said["base_name"]) if said else job.base,
        dtype=str(said["base"]["dtype"]) if said else job.dtype,
        device=str(said["base"]["device"]) if said else job.device,
        note=note,
        reason="as the sequence began" if said else "asked for",
    )
    _check_base(folder, said, base)
    note(f"{base.name} in {base.precision.name}: {base.precision.reason}")
    note("order: " + " → ".join(ordered.name for ordered in tasks))
    if said and said["threads"] != torch.get_num_threads():
        torch.set_num_threads(int(said["threads"]))
    folder.describe(_description(base, config, said["name"] if said else job.name, tasks))
    started(folder.folder)
    world = World(
        engine=Engine(base, budget=int(job.memory * 1e9) or None),
        folder=folder,
        config=config,
        name=str(said["name"]) if said else job.name,
        tasks=tasks,
        router=_router(folder, base),
        listener=listener,
        show=show,
        note=note,
    )
    return replace(learn_all(world, Library(job.library)), notes=notes)


def _folder(job: ContinualJob) -> tuple[SequenceFolder, dict[str, Any]]:
    if job.resume is not None:
        folder = SequenceFolder.open(job.resume.absolute())
        return folder, folder.description
    stamp = f"continual-{job.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    return SequenceFolder(job.library.absolute() / ".runs" / stamp), {}


def _check_rows(config: ContinualConfig, tasks: Sequence[Ordered]) -> None:
    """A method that learns all tasks at once needs the rows of all of them."""
    asked = [name for name in config.methods if name in NEEDS_ALL]
    gone = [ordered.name for ordered in tasks if not ordered.task.train.rows]
    if asked and gone:
        raise ConfigError(
            f"method {asked[0]} learns all tasks at once, but the training rows of {', '.join(gone)} are gone.",
            f"Bring them back, or begin a sequence without {asked[0]}.",
        )


def _check_base(folder: SequenceFolder, said: Mapping[str, Any], base: Base) -> None:
    if said and said["base"]["fingerprint"] != base.fingerprint:
        raise BaseMismatch(
            f"the sequence {folder.folder} was begun on a base of fingerprint {said['base']['fingerprint'][:12]}…; "
            f"{said['base_name']} is {base.name} (fingerprint {base.fingerprint[:12]}…).",
            "Bring back that base, or begin another sequence.",
        )


def _description(base: Base, config: ContinualConfig, name: str, tasks: Sequence[Ordered]) -> dict[str, Any]:
    return {
        "name": name,
        "base_name": str(base.path or base.name),
        "base": {"fingerprint": base.fingerprint, "dtype": base.precision.name, "device": base.device.type},
        "threads": torch.get_num_threads(),
        "config": config.to_dict(),
        "tasks": [ordered.description for ordered in tasks],
    }


def _router(folder: SequenceFolder, base: Base) -> Router:
    try:
        return read_router(folder.folder, base.fingerprint)
    except NotFound:
        return Router(fingerprint=base.fingerprint)


# ---- the sequence ------------------------------------------------------------------------------------------------------


def learn_all(world: World, library: Library | None = None) -> ContinualResult:
    """Learn what is not learned, score what is not scored, store what the first method made."""
    learners = [LEARNERS[name](world) for name in world.config.methods]
    last = len(world.tasks) - 1
    for t in range(len(world.tasks)):
        due = [one for one in learners if not world.stage(one.name, t).scores and not (isinstance(one, Joint) and t < last)]
        if due:
            _learn_task(world, due, t)
        if library is not None and isinstance(learners[0], PromptLearner):
            _store(world, learners[0], t, library)
    return _result(world, library)


def _learn_task(world: World, learners: Sequence[Learner], t: int) -> None:
    zero_shot(world, t)
    for learner in learners:
        if t and not isinstance(learner, Joint):
            if learner.learned < t - 1:
                learner.restore(t - 1)
            _look_ahead(world, learner, t)
    _know(world, t)
    for learner in learners:
        stage = world.stage(learner.name, t)
        if stage.learned is None:
            world.note(f"{learner.name}: task {t + 1} of {len(world.tasks)}, {world.tasks[t].name}")
            learner.learn(t)
        else:
            learner.restore(t)
        stage.finish_scoring(score_row(world, learner, t))


def _look_ahead(world: World, learner: Learner, t: int) -> None:
    """R[t − 1, t], before anything of task t is known."""
    file = world.stage(learner.name, t).folder / AHEAD
    if not file.is_file():
        write_json(file, dict(score_task(world, learner, t - 1, t)))


def _know(world: World, t: int) -> None:
    """Let the router know task t; of its rows only statistics are kept."""
    ordered = world.tasks[t]
    if ordered.name not in world.router.tasks:
        texts = [routed_text(row.fields) for row in ordered.task.train.rows]
        world.router = world.router.add(ordered.name, text_queries(world.engine, texts))
        write_router(world.folder.folder, world.router)


def zero_shot(world: World, t: int) -> float | None:
    """b_t: the accuracy of the best hard prompt, chosen on validation rows, on the test rows of task t; measured once."""
    file, ordered = world.folder.folder / ZERO_SHOT, world.tasks[t]
    known = read_json(file) or {}
    if ordered.name not in known:
        if not ordered.tests or not ordered.task.train.rows:
            return None
        world.show("scoring the hard prompt", t, len(world.tasks))
        chosen = best_zero_shot(world.engine, ordered.task, divide(ordered.task, world.config.tune).validation, 1)
        known[ordered.name] = evaluate(chosen.method, ordered.tests, split="test").value("accuracy")
        write_json(file, known)
    return float(known[ordered.name])


# ---- what comes of it --------------------------------------------------------------------------------------------------


def _store(world: World, learner: PromptLearner, t: int, library: Library) -> None:
    """Put task t's prompt into the library, and its way there into the library's router; once."""
    stage = world.stage(learner.name, t)
    mark = stage.folder / STORED
    said = read_json(mark)
    if stage.learned is None or (said is not None and not said.get(TO_ROUTE)):
        return
    if said is None:
        said = {"prompt": _add(world, learner, t, library), TO_ROUTE: True}
        write_json(mark, said)  # at once: an interrupted sequence must not store a second version
    task = world.tasks[t].task
    if task.train.rows:
        learn_route(
            library.root, world.engine, task.name, task.train.rows, prompt=_stored_name(world, learner, t), replace=True
        )
    write_json(mark, {"prompt": said["prompt"]})


def _stored_name(world: World, learner: PromptLearner, t: int) -> str:
    """A prompt of one task bears its name, one of all the sequence's."""
    return world.tasks[t].name if learner.frozen else world.name


def _add(world: World, learner: PromptLearner, t: int, library: Library) -> str:
    """Store task t's prompt; its reference."""
    stored = learner.stored(t)
    name = _stored_name(world, learner, t)
    card = replace(stored.card, name=name, lineage=replace(stored.card.lineage, how=_how(world, learner, t)))
    if not learner.frozen:
        union = world.union(t + 1).task(world.tasks[0].task)
        template = replace(union, template=type(union.template)(stored.card.task["template"]))
        card = replace(card, task=template.to_dict(), scores={}, hard_prompt={})
    return library.add(name, stored.forms, card).reference


def _how(world: World, learner: Learner, t: int) -> str:
    before = ", ".join(ordered.name for ordered in world.tasks[:t])
    return f"learned by {learner.name} as task {t + 1}" + (f", after {before}" if before else "")


def _result(world: World, library: Library | None) -> ContinualResult:
    zero = [(read_json(world.folder.folder / ZERO_SHOT) or {}).get(ordered.name) for ordered in world.tasks]
    names = world.config.methods
    union = world.union(len(world.tasks))
    marks = [read_json(world.stage(names[0], t).folder / STORED) or {} for t in range(len(world.tasks))]
    return ContinualResult(
        folder=world.folder.folder,
        order=[ordered.name for ordered in world.tasks],
        methods={name: {s: Measures(matrix=_matrix(world, name, s), zero_shot=zero) for s in SCENARIOS} for name in names},
        growth={name: _growth(world, name) for name in names},
        stored=[mark["prompt"] for mark in marks if mark] if library is not None else [],
        labels=len(union.answers),
        shared_labels=union.shared,
        distinct_labels=union.distinct,
        notes=(),
    )


def _matrix(world: World, method: str, scenario: str) -> list[list[float | None]]:
    T = len(world.tasks)
    rows = []
    for t in range(T):
        row: list[float | None] = [*((world.stage(method, t).scores or {}).get(scenario, ()))][: t + 1]
        row += [None] * (T - len(row))
        if t + 1 < T:
            ahead = read_json(world.stage(method, t + 1).folder / AHEAD) or {}
            row[t + 1] = ahead.get(scenario)
        rows.append(row)
    return rows


def _growth(world: World, method: str) -> list[dict[str, Any]]:
    """What is kept after each task, in bytes, and what the newest prompt adds to every input, in tokens."""
    found, total = [], 0
    for t, ordered in enumerate(world.tasks):
        said = world.stage(method, t).learned
        if said is None:
            continue
        total = total + int(said["bytes"]) if LEARNERS[method].frozen else int(said["bytes"])
        found.append({"task": ordered.name, **said, "bytes": total})
    return found
