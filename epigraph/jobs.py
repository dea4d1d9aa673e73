"""A tuning as a command or a server asks for it: files in, a stored prompt out, resumable.

task file + flags → base, task → tune → library
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from epigraph.base import DEFAULT, load_base
from epigraph.base.load import DEFAULT_NAME
from epigraph.config import TuneConfig
from epigraph.errors import BaseMismatch, InputError
from epigraph.library import Card, Library, StoredPrompt, check_name, import_peft
from epigraph.model import PromptModel, facts
from epigraph.prompts import Form
from epigraph.tasks.task import Task
from epigraph.tuning import Surroundings, TuneResult, tune
from epigraph.tuning.loop import Listener
from epigraph.tuning.run import Run, file_hash
from epigraph.tuning.session import Stage

RUNS = ".runs"
Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TuneJob:
    """What was asked for. ``resume`` is the run folder to go on with."""

    task: str
    name: str
    library: Path
    config: TuneConfig
    test: str = ""
    template: str = ""
    base: str = "default"
    device: str = "auto"
    dtype: str = "auto"
    resume: Path | None = None
    threads: int = 0


def resume_job(folder: Path, library: Path) -> TuneJob:
    """The job that a run folder describes. NotFound if it is none."""
    said = Run.open(folder).description
    data, base, machine = said["data"], said["base"], said["machine"]
    task, test, template = data["source"]
    return TuneJob(
        task=task,
        test=test,
        template=template,
        name=said["name"],
        base=said["base_name"],
        device=base["device"],
        dtype=base["dtype"],
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
    """Tune and store. The name and the data are checked before the base is loaded."""
    library = Library(job.library)
    name = check_name(job.name or _name_from(job.task))
    task = Task.from_file(job.task, test=job.test or None, template=job.template or None, strict=job.config.strict)
    if job.threads:
        torch.set_num_threads(job.threads)
    base = load_base(job.base, dtype=job.dtype, device=job.device, note=note)
    note(f"{base.name} in {base.precision.name}: {base.precision.reason}")
    around = Surroundings(
        runs=job.library / RUNS,
        resume=job.resume,
        listener=listener,
        stage=stage,
        started=lambda run: started(run.folder),
        forms_of=lambda reference: forms_on(library.get(reference), base.fingerprint),
        source=(_absolute(job.task), _absolute(job.test) if job.test else "", job.template),
        data_hashes=_hashes(job.task, job.test),
    )
    result = tune(base, task, job.config, name=name, around=around)
    stored = result.prompt.stored
    metrics = result.prompt.metrics_file
    card = library.add(name, stored.forms, stored.card, metrics if metrics is not None and metrics.exists() else None)
    return replace(result, prompt=replace(result.prompt, stored=replace(stored, card=card)))


def open_prompt(stored: StoredPrompt, *, base: str, device: str, dtype: str, note: Note) -> PromptModel:
    """A stored prompt on its base: the one named, or the one its card names. BaseMismatch if it is another."""
    named = stored.card.base.name
    loaded = load_base(base or (DEFAULT if named == DEFAULT_NAME else named), dtype=dtype, device=device, note=note)
    return PromptModel(stored, loaded)


def import_adapter(folder: Path, *, name: str, task: str, base: str, library: Path, note: Note) -> Card:
    """Take an adapter that PEFT saved into the library, for the task of a data file or TOML."""
    if not task:
        raise InputError(
            f"{folder} is a PEFT adapter, which does not say what it was tuned for.",
            "Pass --task with a data file or task TOML that has its labels and template.",
        )
    wanted = check_name(name or folder.resolve().name)
    meant = Task.from_file(task)
    forms, fields = import_peft(folder, replace(facts(load_base(base, note=note)), verified=False))
    placed = replace(meant, template=meant.template.placed("first"))
    return Library(library).add(wanted, forms, Card(name=wanted, task=placed.to_dict(), **fields))


def forms_on(stored: StoredPrompt, fingerprint: str) -> list[Form]:
    """The forms of a prompt that another one starts from; BaseMismatch if it stands on another base."""
    if stored.card.base.fingerprint != fingerprint:
        raise BaseMismatch(
            f"prompt {stored.card.reference!r} was trained on base {stored.card.base.name}, not on this one.",
            "Start from a prompt of the same base.",
        )
    return list(stored.forms)


def _name_from(task: str) -> str:
    path = Path(task)
    return path.parent.name if path.stem in ("train", "task", "data") and path.parent.name else path.stem


def _absolute(task: str) -> str:
    return task if task.startswith("hub:") else str(Path(task).resolve())


def _hashes(*paths: str) -> tuple[str, ...]:
    files = [Path(p) for p in paths if p and not p.startswith("hub:")]
    inside = [f for p in files for f in (sorted(p.iterdir()) if p.is_dir() else [p]) if f.is_file()]
    return tuple(file_hash(f) for f in inside)
