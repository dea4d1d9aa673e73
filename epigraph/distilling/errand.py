"""A distilling as a command asks for it: files in, a stored student out, resumable.

task + texts + (hard prompt | stored prompt | another model | an address) → teacher → distill → library

Whatever can be wrong without the base is found before the base is loaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from epigraph.base import Base, load_base
from epigraph.base.classifier import is_classifier, load_classifier
from epigraph.base.load import model_folder
from epigraph.distilling.address import Address
from epigraph.distilling.classifier import classifier_teacher
from epigraph.distilling.remote import RemoteTeacher
from epigraph.distilling.result import DistillResult
from epigraph.distilling.runs import described
from epigraph.distilling.session import distill, divide, room_for_outputs
from epigraph.distilling.settings import DistillConfig
from epigraph.distilling.taught import check_kind
from epigraph.distilling.teacher import Teacher, check_same_labels, hard_prompt_teacher, model_teacher, prompt_teacher
from epigraph.distilling.written import HardPrompt, draw
from epigraph.engine import Engine
from epigraph.errors import InputError, NotFound
from epigraph.library import Library, StoredPrompt, check_name
from epigraph.model import PromptModel, base_of, task_of
from epigraph.tasks.row import Row, Split
from epigraph.tasks.task import Task
from epigraph.tasks.text_file import read_text
from epigraph.tuning.loop import Listener
from epigraph.tuning.run import Run
from epigraph.tuning.surroundings import Stage, Surroundings

RUNS = ".runs"
Note = Callable[[str], None]
Loaded = TypeVar("Loaded")
PATHS = ("task", "hard_prompt", "examples", "texts", "test")


@dataclass(frozen=True, kw_only=True)
class DistillJob:
    """What was asked for; "" where it was not.

    ``teacher`` is another model, ``prompt`` a stored prompt that teaches (``--from`` and ``--teacher-prompt``), ``url`` and
    ``model`` an address. ``resume`` is the run folder to go on with.
    """

    library: Path
    config: DistillConfig
    task: str = ""
    name: str = ""
    hard_prompt: str = ""
    examples: str = ""
    texts: str = ""
    test: str = ""
    teacher: str = ""
    prompt: str = ""
    url: str = ""
    model: str = ""
    base: str = "default"
    device: str = "auto"
    dtype: str = "auto"
    resume: Path | None = None
    threads: int = 0

    def to_dict(self) -> dict[str, Any]:
        """What a run folder keeps of it: plain values, paths made absolute."""
        found = {
            name: value for name, value in asdict(self).items() if name not in ("library", "config", "resume", "threads")
        }
        found |= {name: str(Path(found[name]).expanduser().resolve()) for name in PATHS if _is_path(found[name])}
        return found | {"config": self.config.to_dict(), "threads": torch.get_num_threads()}


def _is_path(text: str) -> bool:
    return bool(text) and Path(text).expanduser().exists()


def resume_job(folder: Path, library: Path) -> DistillJob:
    """The job that a run folder describes. NotFound if it is none, InputError if its prompt is stored already."""
    said = described(folder)
    if done := Run(folder).stored_as:
        raise InputError(f"run {folder} is finished: its prompt is {done}.", "Distil again for another version.")
    job = dict(said["job"])
    config = DistillConfig.from_dict(job.pop("config"))
    return DistillJob(library=library, config=config, resume=folder, **job)


def run_job(
    job: DistillJob,
    *,
    listener: Listener = lambda _moment: None,
    stage: Stage = lambda _name, _done, _total: None,
    started: Callable[[Path], None] = lambda _folder: None,
    note: Note = lambda _text: None,
) -> DistillResult:
    """Distil and store. Names, files and flags that contradict each other are checked before a base is loaded."""
    library = Library(job.library)
    _check_flags(job)
    stored = library.get(job.prompt) if job.prompt else None
    task = _task(job, stored)
    check_kind(task)
    name = check_name(job.name or _name_of(task, stored))
    if stored is not None:
        check_same_labels(task, task_of(stored.card), stored.card.reference)
    hard = read_text(Path(job.hard_prompt)) if job.hard_prompt else ""
    texts = task.read_rows(job.texts, need_target=False, strict=job.config.strict)
    tests = task.read_rows(job.test, need_target=False, strict=job.config.strict) if job.test else None
    examples = task.read_rows(job.examples, strict=job.config.strict).rows if job.examples else task.train.rows
    divide(texts.rows, tests.rows if tests else (), job.config)
    if job.config.shots and not examples:
        raise InputError(
            f"{job.config.shots} examples were asked, but there are no labelled rows.", "Give them with --examples."
        )
    if job.threads:
        torch.set_num_threads(job.threads)
    base = load_base(job.base, dtype=job.dtype, device=job.device, note=note)
    note(f"{base.name} in {base.precision.name}: {base.precision.reason}")
    engine = Engine(base)
    tokens = room_for_outputs(base, task)
    shown = draw(engine, task, examples, job.config.shots, job.config.seed)
    if len(shown) < job.config.shots:
        note(f"{len(shown)} of {job.config.shots} examples fit into half of what {base.name} reads, or are there")
    teacher = _Teachers(job=job, task=task, stored=stored, hard=hard, shown=shown, tokens=tokens, note=note).make(engine)
    around = Surroundings(
        runs=job.library / RUNS,
        resume=job.resume,
        listener=listener,
        stage=stage,
        started=lambda run: started(run.folder),
        note=note,
    )
    result = distill(
        base,
        task,
        texts.rows,
        teacher,
        job.config,
        name=name,
        tests=tests.rows if tests else (),
        output_tokens=tokens,
        engine=engine,
        around=around,
        describe={"job": job.to_dict() | {"name": name}},
        parents=[stored.card.reference] if stored is not None else (),
    )
    result = replace(result, warnings=[*result.warnings, *_faults(texts, tests)])
    return _keep(result, library, name)


def _check_flags(job: DistillJob) -> None:
    if not job.texts:
        raise InputError(
            "no texts were given to learn from.",
            "Give a file with --texts; its rows need no labels, and the more there are, the better. The task's own file will do.",
        )
    given = [flag for flag, value in (("--teacher-url", job.url), ("a stored prompt", job.prompt)) if value]
    if len(given) > 1 or (job.url and job.teacher):
        raise InputError("more than one teacher was given.", "Give one: a hard prompt, --from, --teacher or --teacher-url.")
    if job.prompt and (job.hard_prompt or job.config.shots):
        raise InputError("both a stored prompt and a hard prompt were given as the teacher.", "Give one of them.")
    if not (job.prompt or job.teacher or job.hard_prompt or job.config.shots):
        what = "words for the model at the address to read" if job.url else "a teacher"
        raise InputError(
            f"nothing was given to imitate: {what}.", "Give --hard-prompt FILE, --shots N, --from NAME or --teacher FOLDER."
        )
    if job.model and not job.url:
        raise InputError(f"model {job.model!r} was named without an address.", "Pass --teacher-url http://…/v1.")
    if job.url:
        Address(url=job.url, model=job.model)


def _task(job: DistillJob, stored: StoredPrompt | None) -> Task:
    """The task of the file, or the one that the stored prompt answers."""
    if job.task:
        return Task.from_file(job.task, strict=job.config.strict)
    if stored is None:
        raise InputError(
            "no TASK was given.", "Give a data file or task TOML that has the labels: epigraph distill train.csv …"
        )
    return task_of(stored.card)


def _name_of(task: Task, stored: StoredPrompt | None) -> str:
    return stored.card.name if stored is not None else task.name


@dataclass(frozen=True, kw_only=True)
class _Teachers:
    """Makes the teacher that was asked for."""

    job: DistillJob
    task: Task
    stored: StoredPrompt | None
    hard: str
    shown: Sequence[Row]
    tokens: int
    note: Note

    def make(self, engine: Engine) -> Teacher:
        """The teacher; the student's own engine where it is the same base."""
        job, top = self.job, self.job.config.top
        if job.url:
            hard = HardPrompt(task=self.task, text=self.hard, examples=self.shown)
            if self.task.chat:
                self.note("the model at the address reads plain text: its chat format is not known here")
            return RemoteTeacher(address=Address(url=job.url, model=job.model), hard=hard, output_tokens=self.tokens)
        if self.stored is not None:
            theirs = self._engine(job.teacher or base_of(self.stored.card), engine, self.stored)
            return prompt_teacher(PromptModel(self.stored, theirs.base, engine=theirs), self.task, top=top)
        if job.teacher and is_classifier(_found(lambda: model_folder(job.teacher, self.note))):
            return self._classifier()
        theirs = self._engine(job.teacher, engine) if job.teacher else engine
        if self.hard or self.shown:
            return hard_prompt_teacher(theirs, self.task, self.hard, examples=self.shown, output_tokens=self.tokens, top=top)
        return model_teacher(theirs, self.task, output_tokens=self.tokens, top=top)

    def _classifier(self) -> Teacher:
        job = self.job
        if self.hard or self.shown:
            raise InputError(
                f"teacher {job.teacher} is a classifier, which reads the text alone, but a hard prompt was given for it.",
                "Leave --hard-prompt and --shots out.",
            )
        return classifier_teacher(
            load_classifier(job.teacher, dtype=job.dtype, device=job.device, note=self.note), self.task
        )

    def _engine(self, name: str, own: Engine, stored: StoredPrompt | None = None) -> Engine:
        if stored is not None and stored.card.base.fingerprint == own.base.fingerprint:
            return own
        job = self.job
        base: Base = _found(lambda: load_base(name, dtype=job.dtype, device=job.device, note=self.note))
        return own if base.fingerprint == own.base.fingerprint else Engine(base, keep=False)


def _found(load: Callable[[], Loaded]) -> Loaded:
    """What is loaded of a teacher; NotFound says that it is the teacher that is not here."""
    try:
        return load()
    except NotFound as error:
        raise NotFound(f"the teacher's base is not here: {error.message}", "Pass --teacher with its folder.") from error


def _faults(*splits: Split | None) -> list[str]:
    found = []
    for split in splits:
        if split is not None and split.faults:
            some = ", ".join(f"line {fault.line}: {fault.reason}" for fault in split.faults[:5])
            found.append(f"{len(split.faults)} rows of {Path(split.source).name} were skipped: {some}")
    return found


def _keep(result: DistillResult, library: Library, name: str) -> DistillResult:
    """Store the student, and note in its run what it became."""
    stored, metrics = result.prompt.stored, result.prompt.metrics_file
    card = library.add(name, stored.forms, stored.card, metrics if metrics is not None and metrics.exists() else None)
    if metrics is not None:
        Run(metrics.parent).finish(card.reference)
    return replace(result, prompt=replace(result.prompt, stored=replace(stored, card=card)))
