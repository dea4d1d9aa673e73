"""A tuning as a command or a server asks for it: files in, a stored prompt out, resumable.

task file + flags → base, task → tune → library            stored prompt + file → scores beside the hard prompt's

Whatever can be wrong without the base is found before the base is loaded.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from epigraph.base import DEFAULT, load_base
from epigraph.config import TuneConfig
from epigraph.cost import Meter
from epigraph.engine import Engine
from epigraph.errors import BaseMismatch, Corrupt, EpigraphError, InputError, NameRefused, NotFound
from epigraph.evaluation import Scores, evaluate
from epigraph.library import Card, Library, StoredPrompt, check_name, import_array, import_peft
from epigraph.library.array import is_array
from epigraph.methods import ZERO_SHOT, PromptedBase
from epigraph.methods.calibration import calibrate, check_calibration
from epigraph.methods.hard import instruction_in_place
from epigraph.methods.shortened import shortened_note
from epigraph.methods.wording import worded
from epigraph.model import PromptModel, base_of, facts
from epigraph.prompts import Form, plain_forms
from epigraph.routing import AutoModel, Router, answering_version, learn_route, read_router
from epigraph.routing import open_auto as load_auto
from epigraph.tasks.hub import is_hub
from epigraph.tasks.task import Task
from epigraph.tasks.template import Template
from epigraph.tasks.text_file import read_text
from epigraph.tuning import Surroundings, TuneResult, tune
from epigraph.tuning.choices import choose
from epigraph.tuning.data import divide
from epigraph.tuning.loop import Listener
from epigraph.tuning.run import Run
from epigraph.tuning.start.values import PROMPT, TEXT
from epigraph.tuning.surroundings import Stage

RUNS = ".runs"
Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TuneJob:
    """What was asked for. ``name`` is None where the task's is meant; ``resume`` is the run folder to go on with."""

    task: str
    name: str | None
    library: Path
    config: TuneConfig
    test: str = ""
    template: str = ""
    task_kind: str = ""
    base: str = "default"
    device: str = "auto"
    dtype: str = "auto"
    dtype_reason: str = "asked for"
    resume: Path | None = None
    threads: int = 0
    memory: float = 0.0
    """Gigabytes that frozen states may take in memory; 0: half of what is free."""


def resume_job(folder: Path, library: Path) -> TuneJob:
    """The job that a run folder describes. NotFound if it is none, Corrupt if it is damaged, InputError if its prompt is stored
    already."""
    run = Run.open(folder)
    if run.stored_as:
        raise InputError(f"run {folder} is finished: its prompt is {run.stored_as}.", "Tune again for another version.")
    try:
        return _described(run.description, folder, library)
    except EpigraphError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"{folder} does not describe a tuning: {error!r}.", "Tune again.") from error


def _described(said: Mapping[str, Any], folder: Path, library: Path) -> TuneJob:
    data, base, machine = said["data"], said["base"], said["machine"]
    task, test, template, *kind = data["source"]
    return TuneJob(
        task=task,
        test=test,
        template=template,
        task_kind=kind[0] if kind else "",
        name=said["name"],
        base=said["base_name"],
        device=base["device"],
        dtype=base["dtype"],
        dtype_reason=said["reasons"].get("dtype", "as the run began"),
        library=library,
        config=TuneConfig.from_dict(said["config"]),
        resume=folder,
        threads=machine["threads"],
    )


def run_job(
    job: TuneJob,
    *,
    listener: Listener = lambda _moment: None,
    stage: Stage = lambda _name, _done, _total: None,
    started: Callable[[Path], None] = lambda _folder: None,
    note: Note = lambda _text: None,
) -> TuneResult:
    """Tune and store. Name, data and settings are checked before the base is loaded."""
    library = Library(job.library)
    if job.name is not None:
        check_name(job.name)
    asked: dict[str, Any] = {"test": job.test or None, "template": job.template or None, "kind": job.task_kind or None}
    task = Task.from_file(job.task, **asked, strict=job.config.strict)
    if job.config.calibrate:
        check_calibration(task, job.config.calibrate)
    name = job.name or _name_of(task)
    config = replace(job.config, start=_pinned(job.config.start, library))
    choose(config, task, len(divide(task, config, thrifty=True).learned))
    if job.threads:
        torch.set_num_threads(job.threads)
    base = load_base(job.base, dtype=job.dtype, device=job.device, note=note, reason=job.dtype_reason)
    note(f"{base.name} in {base.precision.name}: {base.precision.reason}")
    around = Surroundings(
        runs=job.library / RUNS,
        resume=job.resume,
        listener=listener,
        stage=stage,
        started=lambda run: started(run.folder),
        note=note,
        forms_of=lambda reference: forms_on(library.get(reference), base.fingerprint),
        stored=lambda: _stored_on(library, base.fingerprint, note),
        source=(_absolute(job.task), _absolute(job.test) if job.test else "", job.template, job.task_kind),
    )
    engine = Engine(base, budget=int(job.memory * 1e9) or None)
    result = tune(base, task, config, name=name, engine=engine, around=around)
    stored = result.prompt.stored
    metrics = result.prompt.metrics_file
    card = library.add(name, stored.forms, stored.card, metrics if metrics is not None and metrics.exists() else None)
    if metrics is not None:
        Run(metrics.parent).finish(card.reference)
    return replace(result, prompt=replace(result.prompt, stored=replace(stored, card=card)))


def open_prompt(stored: StoredPrompt, *, base: str, device: str, dtype: str, note: Note, keep: bool = False) -> PromptModel:
    """A stored prompt on its base: the one named, or the one its card names. BaseMismatch if it is another.

    ``keep`` holds the states of its texts for later runs.
    """
    try:
        loaded = load_base(base or base_of(stored.card), dtype=dtype, device=device, note=note)
    except NotFound as error:
        if base:
            raise
        raise NotFound(
            f"prompt {stored.card.reference!r} stands on a base that is not here: {error.message}",
            "Pass --base with the folder or the hub name of that model.",
        ) from error
    return PromptModel(stored, loaded, engine=Engine(loaded, keep=keep))


def open_auto(
    library: Path, *, base: str, device: str, dtype: str, note: Note, threshold: float, otherwise: str
) -> AutoModel:
    """The library's router and its prompts on their base: the one named, or the one that the first prompt still there names."""
    shelf, first = Library(library), ""
    if not base:
        router = read_router(library)
        answering = (answering_version(shelf, said.prompt, router.fingerprint) for said in router.tasks.values())
        first = next(filter(None, answering), "")
    loaded = load_base(base or (base_of(shelf.card(first)) if first else DEFAULT), dtype=dtype, device=device, note=note)
    return load_auto(library, loaded, threshold=threshold, otherwise=otherwise)


def route_prompt(
    reference: str, data: str, *, library: Path, strict: bool, base: str, device: str, dtype: str, note: Note
) -> Router:
    """Let ``auto`` send texts like those of a file to a stored prompt; of the file only statistics are kept."""
    stored = Library(library).get(reference)
    rows = Task.from_dict(stored.card.task).read_rows(data, need_target=False, strict=strict)
    model = open_prompt(stored, base=base, device=device, dtype=dtype, note=note, keep=True)
    return learn_route(library, model.method.engine, stored.card.name, rows.rows, prompt=reference, replace=True)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A stored prompt's scores on a file, beside those of its task's hard prompt, and what scoring it cost."""

    card: Card
    scored: Scores
    hard: Scores
    cost: dict[str, Any]
    warnings: Sequence[str]
    calibration: str = ""

    @property
    def reference(self) -> str:
        """The prompt as one writes it on the command line."""
        return self.card.reference

    @property
    def json(self) -> dict[str, Any]:
        """The contract's object; settings and reasons are those of the tuning."""
        return {
            "prompt": self.reference,
            "scores": self.scored.json,
            "hard_prompt": self.hard.json,
            "cost": self.cost,
            "settings": dict(self.card.settings) | ({"calibrate": self.calibration} if self.calibration else {}),
            "reasons": dict(self.card.reasons),
            "warnings": list(self.warnings),
        }


def evaluate_prompt(
    reference: str,
    data: str,
    *,
    library: Path,
    strict: bool,
    base: str,
    device: str,
    dtype: str,
    note: Note,
    calibration: str = "",
) -> Evaluation:
    """Score a stored prompt on a labelled file. The file is read before the base is loaded.

    ``calibration`` shifts the probabilities of both, matched on the file's texts; their labels stay unseen.
    """
    stored = Library(library).get(reference)
    task = Task.from_dict(stored.card.task)
    if calibration:
        check_calibration(task, calibration)
    rows = task.read_rows(data, strict=strict)
    model = open_prompt(stored, base=base, device=device, dtype=dtype, note=note, keep=True)
    shortened = shortened_note(model.method, rows.rows, strict=strict)
    meter, engine = Meter(), model.method.engine
    if calibration:
        model.calibrate(calibration, rows.rows)
    scored = evaluate(model.method, rows.rows, split="test")
    cost = {"seconds": round(meter.seconds, 1), "flops": engine.flops, **meter.energy()}
    kept = ("trained_parameters", "kept_parameters", "kept_bytes", "added_tokens")
    hard, other = _hard_prompt(stored.card, model)
    how = calibration or (model.method.shift.how if model.method.shift else "")
    hard = calibrate(hard, how, rows.rows) if how else hard
    unseen = model.task.unseen_labels(rows)
    warnings = [f"label {label!r} was never trained: its {n} rows count as wrong" for label, n in unseen.items()]
    if engine.plain:
        warnings.insert(0, engine.warning)
    warnings += filter(None, [rows.skipped, shortened, other])
    return Evaluation(
        card=stored.card,
        scored=scored,
        hard=evaluate(hard, rows.rows, split="test"),
        calibration=calibration,
        cost=cost | {name: stored.card.cost[name] for name in kept if name in stored.card.cost},
        warnings=warnings,
    )


def _hard_prompt(card: Card, model: PromptModel) -> tuple[PromptedBase, str]:
    """The hard prompt that the tuning measured, and what to say where another must stand for it.

    Before the row the instruction goes with the template as it was written: there a row is said once.
    """
    name = card.settings.get("hard_prompt", "")
    own = next((own for own in reversed(worded(model.task)) if name.endswith(own)), "")
    kept = name.removesuffix(own) in ZERO_SHOT
    build, task = ZERO_SHOT.get(name.removesuffix(own), instruction_in_place), worded(model.task)[own]
    written = card.settings.get("hard_template")
    if written and build is not instruction_in_place:
        task = replace(task, template=Template(written))
    hard = build(model.method.engine, task, model.method.output_tokens)
    threshold = float(card.settings.get("hard_threshold", task.threshold))
    instead = (
        f"the hard prompt of the tuning was {name}, whose examples are not kept: the instruction alone stands for it"
        if name and not kept
        else ""
    )
    return hard.with_threshold(threshold), instead


def import_foreign(path: Path, *, name: str | None, task: str, base: str, library: Path, note: Note) -> Card:
    """Take what another library saved into ours, for the task of a data file or TOML.

    A folder that PEFT or caikit saved, or a .npy file; each says nothing of its task and of the weights it was tuned on.
    """
    array = is_array(path)
    if not task:
        what = f"{path} is an array" if array else f"{path} is a PEFT adapter"
        raise InputError(
            f"{what}, which does not say what it was tuned for.",
            "Pass --task with a data file or task TOML that has its labels and template.",
        )
    wanted = check_name((path.resolve().stem if path.is_file() else path.resolve().name) if name is None else name)
    meant = Task.from_file(task)
    read = import_array if array else import_peft
    forms, fields = read(path, replace(facts(load_base(base, note=note)), verified=False))
    placed = replace(meant, template=meant.template.placed("first"))
    return Library(library).add(wanted, forms, Card(name=wanted, task=placed.to_dict(), **fields))


def _pinned(start: str, library: Library) -> str:
    """The start as a run can be resumed from it: a prompt by its version, a file by its whole path. NotFound, DataError."""
    if start.startswith(PROMPT):
        name, version = library.resolve(start.removeprefix(PROMPT))
        return f"{PROMPT}{name}@{version}"
    if start.startswith(TEXT):
        file = Path(start.removeprefix(TEXT)).expanduser()
        read_text(file)
        return f"{TEXT}{file.resolve()}"
    return start


def _stored_on(library: Library, fingerprint: str, note: Note) -> Iterator[tuple[str, list[Form]]]:
    """The newest version of every prompt of this base with its forms; one that cannot be read is named and passed over."""
    newest = {entry.name: entry for entry in library.list()}
    for entry in newest.values():
        if entry.card is not None and entry.card.base.fingerprint == fingerprint:
            try:
                stored = library.get(entry.card.reference)
            except EpigraphError as error:
                note(f"passed over: {error.message}")
                continue
            yield entry.card.reference, forms_on(stored, fingerprint)


def forms_on(stored: StoredPrompt, fingerprint: str) -> list[Form]:
    """The forms of a prompt that another one starts from, those of the best member of an ensemble.

    BaseMismatch if it stands on another base, Unsupported if it has no forms but for an input.
    """
    if stored.card.base.fingerprint != fingerprint:
        raise BaseMismatch(
            f"prompt {stored.card.reference!r} was trained on base {stored.card.base.name}, not on this one.",
            "Start from a prompt of the same base.",
        )
    plain = plain_forms(stored.forms, f"a start from {stored.card.reference}")
    return plain[: len(plain) // stored.card.members]


def _name_of(task: Task) -> str:
    """The task's name as one that a prompt may bear."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", task.name).strip("-.")[:64]
    try:
        return check_name(name)
    except NameRefused as error:
        raise NameRefused(
            f"no --name was given, and the task's own, {task.name!r}, cannot be a prompt's: {error.message}",
            "Pass --name, for example --name routing.",
        ) from None


def _absolute(task: str) -> str:
    return task if is_hub(task) else str(Path(task).resolve())
