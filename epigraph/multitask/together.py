"""``multitask``: several tasks in, a prompt for each and one that new tasks start from out.

    each task's plain prompt (baseline, teacher, source) → together → each task's prompt beside its plain one → library

Every baseline is tuned by the same ``tune`` with the same settings. What is finished stays in the work folder, so that an
interrupted command goes on where it was.
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from epigraph.base import load_base
from epigraph.config import TuneConfig, read_toml, write_toml
from epigraph.cost import Meter
from epigraph.engine import Engine
from epigraph.errors import BaseMismatch, ConfigError, InputError, NotFound, Unsupported
from epigraph.evaluation import Scores, evaluate
from epigraph.library import Card, Library, Lineage, StoredPrompt, check_name, read_prompt, write_prompt
from epigraph.library.disk import replace_file, storing
from epigraph.methods import PromptedBase
from epigraph.methods.calibration import calibrate, check_calibration
from epigraph.methods.judge import references_of
from epigraph.metrics import upward
from epigraph.metrics.paired import resample, row_metric, seeded_difference
from epigraph.model import PromptModel, facts
from epigraph.multitask.lesson import Lesson
from epigraph.multitask.settings import MultitaskConfig
from epigraph.multitask.similarity import Gains, Table, agreement, cosines
from epigraph.multitask.training import Group, Together
from epigraph.prompts import (
    AnyForm,
    Dependent,
    Embedded,
    Form,
    KeyValue,
    MixturePrompt,
    MultitaskPrompt,
    SoftPrompt,
    TokenPrompt,
    kept_numbers,
)
from epigraph.prompts.multitask import universal
from epigraph.prompts.packed import pack, unpack
from epigraph.tasks.row import Row, Split
from epigraph.tasks.split import head
from epigraph.tasks.task import Task
from epigraph.tuning import Surroundings, tune
from epigraph.tuning.choices import Choices, choose
from epigraph.tuning.data import Parts, divide
from epigraph.tuning.finish import MATCHED_ROWS
from epigraph.tuning.loop import Listener, Settings
from epigraph.tuning.run import Run, rows_hash
from epigraph.tuning.start import make_prompt
from epigraph.tuning.surroundings import Stage

TOGETHER_KINDS: Sequence[str] = ("classification", "ordinal", "generation")
IN_ONE_PASS = ("multitask", "spot")
STORED, FINISHED, JOINT = "stored", "finished.json", "together.json"
OF_ITS_TUNING = (
    "rate",
    "epochs",
    "batch",
    "start",
    "stop",
    "trials",
    "winner",
    "left_out",
    "validation",
    "verdict",
    "compiled",
)
"""Reasons of a plain prompt that say nothing of one tuned with others."""
DESCRIPTION, PLAIN, TOGETHER, TRANSFER = "multitask.toml", "plain", "together", "transfer"
MOST_TRANSFER_TESTS = 100


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


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """One task: its prompt, tuned together with others, beside its plain prompt and its hard prompt."""

    name: str
    prompt: str
    metric: str
    scores: Mapping[str, Any]
    plain: Mapping[str, Any]
    hard: Mapping[str, Any]

    @property
    def json(self) -> dict[str, Any]:
        """As the command prints it."""
        return {
            "task": self.name,
            "prompt": self.prompt,
            "metric": self.metric,
            "scores": dict(self.scores),
            "plain": dict(self.plain),
            "hard_prompt": dict(self.hard),
        }


@dataclass(frozen=True, kw_only=True)
class MultitaskResult:
    """All tasks, the universal prompt ("" where the kind has none), and which tasks are alike."""

    folder: Path
    kind: str
    universal: str
    tasks: Sequence[TaskResult]
    similarity: Table
    gains: Gains | None
    agreement: float | None
    cost: Mapping[str, Any]
    reasons: Mapping[str, str]

    @property
    def json(self) -> dict[str, Any]:
        """As the command prints it."""
        names = [one.name for one in self.tasks]
        gains = self.gains.to_dict(names) if self.gains else {"gain": None}
        transfer = {"tasks": names, "cosine": self.similarity, **gains}
        return {
            "work": str(self.folder),
            "kind": self.kind,
            "universal": self.universal,
            "tasks": [one.json for one in self.tasks],
            "similarity": transfer | {"agreement": self.agreement},
            "cost": dict(self.cost),
            "reasons": dict(self.reasons),
        }


@dataclass(frozen=True, kw_only=True)
class Joint:
    """The tuning of all tasks in one pass: its settings, and what it took."""

    settings: Settings
    took: Mapping[str, Any]


@dataclass(kw_only=True)
class Workshop:
    """The work under way."""

    engine: Engine
    folder: Path
    config: MultitaskConfig
    tasks: list[Task]
    choices: list[Choices]
    parts: list[Parts]
    sources: list[str]
    listener: Listener = lambda _moment: None
    show: Stage = lambda _name, _done, _total: None
    note: Callable[[str], None] = lambda _text: None
    plain: list[StoredPrompt] = field(default_factory=list)

    @property
    def plain_kind(self) -> str:
        """The kind of the plain prompts, and of what starts from them."""
        return self.config.form

    @property
    def length(self) -> int:
        """Of all prompts: what is averaged, mixed and started from has one shape."""
        return max(choices.length for choices in self.choices)

    @property
    def single(self) -> TuneConfig:
        """How every prompt of one task is tuned: a soft prompt, whatever a hard one reaches."""
        return replace(self.config.tune, kind=self.plain_kind, length=self.length, keep="soft")

    def tuned(self, part: str, t: int, task: Task, config: TuneConfig, **around: Any) -> StoredPrompt:
        """A tuning kept in the work folder: read if it is finished, gone on with if it was interrupted."""
        home = self.folder / part / f"{t}-{task.name}"
        if (home / "prompt" / "card.toml").is_file():
            return read_prompt(home / "prompt")
        runs = home / "runs"
        begun = sorted(p for p in runs.glob("*") if (p / "run.toml").is_file() and not (p / "stored").exists())
        surroundings = Surroundings(
            runs=runs,
            resume=begun[-1] if begun else None,
            listener=self.listener,
            stage=self.show,
            note=self.note,
            source=(self.sources[t], "", ""),
            **around,
        )
        result = tune(self.engine.base, task, config.single, name=task.name, engine=self.engine, around=surroundings)
        stored = result.prompt.stored
        write_prompt(home / "prompt", stored.forms, stored.card)
        metrics = result.prompt.metrics_file
        if metrics is not None:
            Run(metrics.parent).finish(str(home / "prompt"))
        return stored


def run_job(
    job: MultitaskJob,
    *,
    listener: Listener = lambda _moment: None,
    show: Stage = lambda _name, _done, _total: None,
    started: Callable[[Path], None] = lambda _folder: None,
    note: Callable[[str], None] = lambda _text: None,
) -> MultitaskResult:
    """Tune these tasks together and store what comes of it. All that can be checked without the base is checked first."""
    said = _description_of(job.resume)
    _refuse_finished(job.resume)
    config = MultitaskConfig.from_dict(said["config"]) if said else job.config
    sources = [str(path) for path in said["sources"]] if said else [_absolute(path) for path in job.tasks]
    name = check_name(str(said["name"]) if said else job.name)
    tasks = read_tasks(sources, config, name)
    parts = [divide(task, config.tune) for task in tasks]
    choices = _choices(config, tasks, parts)
    if said:
        _check_rows(said, tasks, job.resume)
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
    folder = job.resume.absolute() if job.resume else _new_folder(job.library, name)
    _describe(
        folder,
        {
            "name": name,
            "config": config.to_dict(),
            "sources": sources,
            "rows": [rows_hash(task.train.rows) for task in tasks],
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


def work(shop: Workshop, library: Library, name: str) -> MultitaskResult:
    """From tasks to stored prompts."""
    meter, config = Meter(), shop.config
    for t, task in enumerate(shop.tasks):
        shop.note(f"plain prompt of {task.name}: baseline, teacher and source")
        shop.plain.append(shop.tuned(PLAIN, t, task, shop.single))
    start, made, trained = KINDS_OF_WORK[config.kind](shop)
    scored = [_score(shop, t, own) for t, own in enumerate(made)]
    similar = cosines([_plain_forms(stored.forms) for stored in shop.plain])
    gains = _gains(shop) if config.transfer else None
    reference = _store(shop, library, name, start, _universal_card(shop, name, start)) if start else ""
    results = []
    for t, (own, scores) in enumerate(zip(made, scored, strict=True)):
        written = _store(shop, library, shop.tasks[t].name, own.forms, _final(shop, t, own.card, scores, reference))
        plain = shop.plain[t].card
        results.append(
            TaskResult(
                name=shop.tasks[t].name,
                prompt=written,
                metric=shop.tasks[t].metric,
                scores=scores.json,
                plain=plain.scores,
                hard=plain.hard_prompt,
            )
        )
    _mark(shop.folder / FINISHED, {"prompts": [one.prompt for one in results]})
    return MultitaskResult(
        folder=shop.folder,
        kind=config.kind,
        universal=reference,
        tasks=results,
        similarity=similar,
        gains=gains,
        agreement=agreement(similar, gains.value) if gains else None,
        cost={
            "seconds": round(meter.seconds, 1),
            "trained_parameters": trained,
            "flops": shop.engine.flops,
            **meter.energy(),
        },
        reasons={"dtype": shop.engine.base.precision.reason, **_why(shop)},
    )


def _why(shop: Workshop) -> dict[str, str]:
    rate = max(choices.loop.rate for choices in shop.choices)
    return {
        "plain": "every task's plain prompt was tuned with the same settings: it is what the others must beat",
        "rate": f"{rate:.3g} for what is shared: the largest that a task would have alone",
        "length": f"{shop.length} vectors a block for every task: the most that one of them would have alone",
        "start": _start_reason(shop),
        "steps": "each step draws 2 or more of the tasks at random; one pass serves all that are drawn",
    }


# ---- the four kinds ----------------------------------------------------------------------------------------------------

Worked = tuple[list[Form], list[StoredPrompt], int]
"""The universal prompt, every task's with its card, and how many numbers were trained in common."""


def tune_multitask(shop: Workshop) -> Worked:
    """MPT: a shared prompt times factors of each task, taught by the plain prompts."""
    first = MultitaskPrompt(_plain_forms(_first_values(shop).fold()))
    prompts = [first, *(first.for_another_task() for _ in shop.tasks[1:])]
    lessons = _lessons(shop, taught=bool(shop.config.distil))
    groups = [Group(list(first.shared)), Group([f for p in prompts for f in p.factors], shop.config.factor_rate)]
    joint = _train(shop, lessons, prompts, groups)
    trained = sum(p.numel() for group in groups for p in group.parameters)
    made = [_joined(shop, t, prompt.fold(), joint, trained) for t, prompt in enumerate(prompts)]
    return [_kept(form) for form in universal(prompts)], made, trained


def tune_spot(shop: Workshop) -> Worked:
    """SPoT: one prompt for all tasks, then each task's from it."""
    prompt = _first_values(shop)
    _train(shop, _lessons(shop, taught=False), [prompt] * len(shop.tasks), [Group(list(prompt.parameters()))])
    start = _plain_forms(prompt.fold())
    return start, _each_from(shop, start), prompt.trained_parameters


def average(shop: Workshop) -> Worked:
    """The mean of the plain prompts, then each task's from it."""
    sources = [_plain_forms(stored.forms) for stored in shop.plain]
    start = [_kept(unpack(torch.stack([pack(form) for form in block]).mean(0))) for block in zip(*sources, strict=True)]
    return start, _each_from(shop, start), 0


def tune_mixture(shop: Workshop) -> Worked:
    """ATTEMPT: each task attends over the plain prompts of the others."""
    found: list[StoredPrompt] = []
    hidden = shop.engine.base.hidden
    for t, task in enumerate(shop.tasks):
        sources = [_plain_forms(stored.forms) for k, stored in enumerate(shop.plain) if k != t]

        def wrap(prompt: SoftPrompt, sources: Sequence[Sequence[Form]] = tuple(sources)) -> SoftPrompt:
            return MixturePrompt(list(prompt.form()), sources, hidden=hidden)

        found.append(shop.tuned(TOGETHER, t, task, shop.single, wrap=wrap))
    return [], found, sum(_trained_of(stored.forms) for stored in found)


KINDS_OF_WORK: Mapping[str, Callable[[Workshop], Worked]] = {
    "multitask": tune_multitask,
    "mixture": tune_mixture,
    "spot": tune_spot,
    "average": average,
}


def _trained_of(forms: Sequence[AnyForm]) -> int:
    first = forms[0]
    return sum(p.numel() for p in first.prompt.parameters()) if isinstance(first, Dependent) else 0


def _first_values(shop: Workshop) -> SoftPrompt:
    """What is shared, before it is tuned."""
    choices = shop.choices[0]
    start, seed = _shared_start(shop), choices.loop.seed
    return make_prompt(shop.engine, choices.task, kind=shop.plain_kind, length=shop.length, start=start, seed=seed)


def _shared_start(shop: Workshop) -> str:
    """Rows of the vocabulary unless random ones were asked: a text that names one task's labels would not be shared."""
    return "random" if shop.config.tune.start == "random" else "vocab"


def _start_reason(shop: Workshop) -> str:
    asked = shop.config.tune.start
    if shop.config.kind not in IN_ONE_PASS:
        return f"{asked or 'as tune chooses'}, for the plain prompts, which are combined"
    shared = _shared_start(shop)
    why = "" if asked == shared else ", since words of one task would not be shared"
    plain = f"; the plain prompts start from {asked}" if asked not in ("", shared) else ""
    return f"{shared} for what is shared{why}{plain}"


def _each_from(shop: Workshop, start: Sequence[Form]) -> list[StoredPrompt]:
    config = replace(shop.single, start="prompt:universal")
    return [shop.tuned(TOGETHER, t, task, config, forms_of=lambda _name: start) for t, task in enumerate(shop.tasks)]


def _lessons(shop: Workshop, *, taught: bool) -> list[Lesson]:
    lessons = []
    for t, choices in enumerate(shop.choices):
        solver = _solver(shop, t, list(shop.plain[t].forms))
        rows = [*shop.parts[t].train, *shop.parts[t].validation]
        shop.engine.freeze(solver.encode(rows), lambda done, total: shop.show("reading the texts once", done, total))
        lesson = Lesson(choices.task.name, solver, shop.parts[t].train, shop.parts[t].validation)
        if taught:
            lesson.learn_from(list(shop.plain[t].forms))
        lessons.append(lesson)
    return lessons


def _train(shop: Workshop, lessons: Sequence[Lesson], prompts: Sequence[SoftPrompt], groups: Sequence[Group]) -> Joint:
    """Tune together; what it took is kept, so that a resumed work says the same."""
    device = shop.engine.base.device
    for prompt in prompts:
        prompt.to(device)
    loops = [choices.loop for choices in shop.choices]
    settings = replace(loops[0], rate=max(one.rate for one in loops), epochs=max(one.epochs for one in loops))
    meter, flops = Meter(), shop.engine.flops
    loop = Together(lessons, prompts, groups, settings, distil=shop.config.distil, listener=shop.listener)
    loop.run(shop.folder / "together.safetensors")
    file = shop.folder / JOINT
    if not file.is_file():
        seconds = round(meter.seconds, 1)
        took = {"seconds": seconds, "train_seconds": seconds, "flops": shop.engine.flops - flops, **meter.energy()}
        _mark(file, took | {"tasks": len(lessons), "steps": loop.step_number})
    return Joint(settings=settings, took=json.loads(file.read_text(encoding="utf-8")))


def _solver(shop: Workshop, t: int, forms: Sequence[AnyForm]) -> PromptedBase:
    tokens = int(shop.plain[t].card.settings.get("output_tokens", 1))
    return PromptedBase(shop.engine, shop.choices[t].task, forms, output_tokens=tokens)


# ---- scores, cards, transfer -------------------------------------------------------------------------------------------


def _score(shop: Workshop, t: int, stored: StoredPrompt) -> Scores:
    """As it will be served: with the task, the threshold and the calibration of its card."""
    shop.show("scoring", t, len(shop.tasks))
    part, served = shop.parts[t], PromptModel(stored, shop.engine.base, engine=shop.engine).method
    return evaluate(served, list(part.final), split=part.split, seed=shop.config.tune.seed)


def _joined(shop: Workshop, t: int, forms: Sequence[AnyForm], joint: Joint, trained: int) -> StoredPrompt:
    """A prompt of the joint tuning: task and scores of the hard prompt as the plain one's, costs and settings its own."""
    plain, kept = shop.plain[t].card, kept_numbers(forms)
    size = {"trained_parameters": trained, "kept_parameters": kept, "kept_bytes": 4 * kept}
    settings = {**plain.settings, **vars(joint.settings), "start": _shared_start(shop), "trials": 1}
    settings |= {"distil": shop.config.distil, "factor_rate": shop.config.factor_rate}
    calibration = _calibration(shop, t, forms)
    card = replace(
        plain,
        kind="multitask",
        trained_parameters=trained,
        cost={**joint.took, **size, "added_tokens": sum(form.length for form in forms)},
        settings={**settings, "calibration": calibration} if calibration else settings,
        reasons={name: why for name, why in plain.reasons.items() if name not in OF_ITS_TUNING} | _why(shop),
        files={},
    )
    return StoredPrompt(card=card, forms=list(forms))


def _calibration(shop: Workshop, t: int, forms: Sequence[AnyForm]) -> dict[str, Any]:
    """The shift that was asked, matched on the texts that were tuned on; empty where none was."""
    how, part = shop.config.tune.calibrate, shop.parts[t]
    if not how:
        return {}
    shift = calibrate(_solver(shop, t, forms), how, [*part.train, *part.validation][:MATCHED_ROWS]).shift
    return shift.to_dict() if shift is not None else {}


def _final(shop: Workshop, t: int, card: Card, scores: Scores, start: str) -> Card:
    """The card as it is stored: what was measured, and what it was tuned with."""
    kind = shop.config.kind
    others = ", ".join(task.name for k, task in enumerate(shop.tasks) if k != t)
    return replace(
        card,
        scores=scores.json,
        settings={**card.settings, "together": kind},
        lineage=Lineage(parents=(start,) if start else (), how=f"tuned together with {others} ({kind})"),
        files={},
    )


def _universal_card(shop: Workshop, name: str, forms: Sequence[Form]) -> Card:
    names = ", ".join(task.name for task in shop.tasks)
    plain = shop.plain[0].card
    return Card(
        name=name,
        kind=shop.config.kind if shop.config.kind == "multitask" else shop.plain_kind,
        place=plain.place,
        trained_parameters=sum(pack(form).numel() for form in forms),
        base=facts(shop.engine.base),
        settings={
            "together": shop.config.kind,
            "tasks": [task.name for task in shop.tasks],
            "start": _shared_start(shop) if shop.config.kind in IN_ONE_PASS else str(plain.settings.get("start", "")),
        },
        reasons={"task": "none: new tasks start from it, with --from"},
        lineage=Lineage(how=f"shared by {names} ({shop.config.kind})"),
    )


def _gains(shop: Workshop) -> Gains:
    """Score of each task tuned on a few rows from each other task's prompt, less that from its own text start."""
    few = shop.config.transfer
    gains = Gains.none(len(shop.tasks))
    for j, task in enumerate(shop.tasks):
        rows = tuple(head(shop.parts[j].train, few, seed=shop.config.tune.seed))
        tests = tuple(head(shop.parts[j].final, MOST_TRANSFER_TESTS, seed=0))
        small = replace(task, train=Split(rows=rows), test=Split(rows=tests))
        config = shop.single
        own = _score_on(shop, shop.tuned(f"{TRANSFER}/text", j, small, config), tests)
        for i, stored in enumerate(shop.plain):
            if i == j:
                continue
            shop.note(f"transfer from {shop.tasks[i].name} to {task.name}, {len(rows)} rows")
            forms = _plain_forms(stored.forms)
            moved = replace(config, start="prompt:source")
            found = shop.tuned(f"{TRANSFER}/{shop.tasks[i].name}", j, small, moved, forms_of=lambda _name, f=forms: f)
            gains.put(i, j, _difference(task.metric, tests, own, _score_on(shop, found, tests)))
    return gains


def _score_on(shop: Workshop, stored: StoredPrompt, rows: Sequence[Row]) -> Scores:
    return evaluate(PromptModel(stored, shop.engine.base, engine=shop.engine).method, rows, split="test")


def _difference(metric: str, rows: Sequence[Row], first: Scores, second: Scores) -> tuple[float, float | None, float | None]:
    """second − first on the same rows, higher is better, with its paired interval where the metric can be resampled."""
    try:
        draws = [
            resample([row_metric(metric, one.truth, one.predicted, references_of(rows))], len(rows))
            for one in (first, second)
        ]
    except Unsupported:
        return upward(metric, second.value(metric)) - upward(metric, first.value(metric)), None, None
    found = seeded_difference(*draws)
    return found.value, found.low, found.high


def _plain_forms(forms: Sequence[AnyForm]) -> list[Form]:
    return [form for form in forms if not isinstance(form, Dependent)]


def _kept(form: Form) -> Form:
    if isinstance(form, Embedded):
        return Embedded(form.vectors.detach().float().cpu().contiguous())
    return KeyValue(form.keys.detach().float().cpu().contiguous(), form.values.detach().float().cpu().contiguous())


# ---- the work folder ---------------------------------------------------------------------------------------------------


def _new_folder(library: Path, name: str) -> Path:
    return library.absolute() / ".runs" / f"multitask-{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _store(shop: Workshop, library: Library, name: str, forms: Sequence[AnyForm], card: Card) -> str:
    """Put a prompt into the library, once however often the work is gone on with; its reference."""
    mark = shop.folder / STORED / f"{name}.json"
    if not mark.is_file():
        _mark(mark, {"prompt": library.add(name, forms, card).reference})
    return str(json.loads(mark.read_text(encoding="utf-8"))["prompt"])


def _mark(file: Path, said: Mapping[str, Any]) -> None:
    with storing("the work of multitask", file):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps(said).encode())


def _refuse_finished(folder: Path | None) -> None:
    """InputError for work whose prompts are stored already."""
    if folder is not None and (folder / FINISHED).is_file():
        prompts = ", ".join(json.loads((folder / FINISHED).read_text(encoding="utf-8"))["prompts"])
        raise InputError(f"work {folder} is finished: its prompts are {prompts}.", "Begin anew for other versions.")


def _describe(folder: Path, said: Mapping[str, Any]) -> None:
    if not (folder / DESCRIPTION).is_file():
        with storing("the work of multitask", folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_toml(folder / DESCRIPTION, said)


def _description_of(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    if not (folder / DESCRIPTION).is_file():
        raise NotFound(
            f"{folder} is no work of multitask: it has no {DESCRIPTION}.", "Give the folder that multitask printed."
        )
    return read_toml(folder / DESCRIPTION)


def _check_rows(said: Mapping[str, Any], tasks: Sequence[Task], folder: Path | None) -> None:
    for then, task in zip(said["rows"], tasks, strict=True):
        if then != rows_hash(task.train.rows):
            raise ConfigError(
                f"{folder} cannot be resumed: the rows of task {task.name!r} are not what they were.",
                "Bring back what they were, or begin anew.",
            )


def _absolute(path: str) -> str:
    return path if path.startswith("hub:") else str(Path(path).resolve())
