"""Several tasks tuned together as a command asks for it: files in, stored prompts out, resumable.

Whatever can be wrong without the base is found before the base is loaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from epigraph.base import load_base
from epigraph.engine import Engine
from epigraph.errors import BaseMismatch, Unsupported
from epigraph.library import Library, check_name
from epigraph.multitask.folder import check_rows, describe, description_of, hashes, new_folder, refuse_finished
from epigraph.multitask.results import MultitaskResult
from epigraph.multitask.session import work
from epigraph.multitask.settings import MultitaskConfig
from epigraph.multitask.tasks import read_tasks
from epigraph.multitask.workshop import Workshop
from epigraph.prompts import TokenPrompt
from epigraph.tasks.task import Task
from epigraph.tuning.choices import Choices, choose
from epigraph.tuning.data import Parts, divide
from epigraph.tuning.loop import Listener
from epigraph.tuning.surroundings import Stage


@dataclass(frozen=True, kw_only=True)
class MultitaskJob:
    """What was asked for. ``name`` is that of the prompt new tasks start from; ``resume`` the work folder to go on with."""

    tasks: tuple[str, ...]
    library: Path
    config: MultitaskConfig
    name: str = "universal"
    resume: Path | None = None
    base: str = "default"
    device: str = "auto"
    dtype: str = "auto"
    memory: float = 0.0


def run_job(
    job: MultitaskJob,
    *,
    listener: Listener = lambda _moment: None,
    show: Stage = lambda _name, _done, _total: None,
    started: Callable[[Path], None] = lambda _folder: None,
    note: Callable[[str], None] = lambda _text: None,
) -> MultitaskResult:
    """Tune these tasks together and store what comes of it. All that can be checked without the base is checked first."""
    said = description_of(job.resume)
    refuse_finished(job.resume)
    config = MultitaskConfig.from_dict(said["config"]) if said else job.config
    sources = [str(path) for path in said["sources"]] if said else [_absolute(path) for path in job.tasks]
    name = check_name(str(said["name"]) if said else job.name)
    tasks = read_tasks(sources, config, name)
    parts = [divide(task, config.tune) for task in tasks]
    choices = _choices(config, tasks, parts)
    if said:
        check_rows(said, tasks, job.resume)
        torch.set_num_threads(int(said["threads"]))
    base = load_base(
        str(said["base_name"]) if said else job.base,
        dtype=str(said.get("dtype", job.dtype)),
        device=str(said.get("device", job.device)),
        note=note,
    )
    if said and said["fingerprint"] != base.fingerprint:
        raise BaseMismatch(
            f"{job.resume} was begun on another base than {base.name}.", "Bring back that base, or begin anew."
        )
    engine = Engine(base, budget=int(job.memory * 1e9) or None)
    _check_form(config, engine)
    folder = job.resume.absolute() if job.resume else new_folder(job.library, name)
    describe(
        folder,
        {
            "name": name,
            "config": config.to_dict(),
            "sources": sources,
            **hashes(tasks),
            "base_name": str(base.path or base.name),
            "fingerprint": base.fingerprint,
            "dtype": base.precision.name,
            "device": base.device.type,
            "threads": torch.get_num_threads(),
        },
    )
    started(folder)
    shop = Workshop(
        engine=engine,
        folder=folder,
        config=config,
        tasks=tasks,
        choices=_choices(config, tasks, parts, engine.plain) if engine.plain else choices,
        parts=parts,
        sources=sources,
        listener=listener,
        show=show,
        note=note,
    )
    return work(shop, Library(job.library), name)


def _choices(config: MultitaskConfig, tasks: Sequence[Task], parts: Sequence[Parts], plain: str = "") -> list[Choices]:
    asked = replace(config.tune, kind=config.form)
    return [choose(asked, task, len(part.train), plain=plain) for task, part in zip(tasks, parts, strict=True)]


def _check_form(config: MultitaskConfig, engine: Engine) -> None:
    """Unsupported for keys and values on a base that takes vectors only."""
    if engine.plain and config.form != TokenPrompt.kind:
        raise Unsupported(
            f"form {config.form!r} was asked, but this base is run by plain concatenation, which takes vectors only: "
            f"{engine.plain}.",
            f"Pass --form {TokenPrompt.kind}.",
        )


def _absolute(path: str) -> str:
    return path if path.startswith("hub:") else str(Path(path).resolve())
