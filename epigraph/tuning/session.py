"""``tune``: from a base and a task to a scored prompt.

rows → train | validation | final      start → loop → best prompt      final rows → scores, beside the hard prompt's
"""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch

from epigraph.base import Base
from epigraph.config import TuneConfig
from epigraph.cost import Meter
from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.methods import PromptedBase
from epigraph.methods.calibration import check_calibration
from epigraph.prompts import SoftPrompt
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tasks.text_file import read_text
from epigraph.tuning.choices import Choices, choose
from epigraph.tuning.data import Parts, divide
from epigraph.tuning.finish import Made, finish
from epigraph.tuning.loop import Listener, Loop, Moment, run_together
from epigraph.tuning.objective import make_objective
from epigraph.tuning.result import TuneResult
from epigraph.tuning.run import Run, rows_hash
from epigraph.tuning.spot import settle_start
from epigraph.tuning.start import make_prompt
from epigraph.tuning.start.values import TEXT
from epigraph.tuning.state import load_states
from epigraph.tuning.surroundings import Surroundings

OUTPUT_MARGIN, MOST_OUTPUT_TOKENS = 1.25, 256


def tune(
    base: Base,
    task: Task,
    config: TuneConfig | None = None,
    *,
    name: str = "prompt",
    engine: Engine | None = None,
    around: Surroundings | None = None,
) -> TuneResult:
    """Tune a prompt for this task on this base.

    Raises ConfigError, TaskError and DataError for what cannot be, Unsupported for a base or a kind on it that is refused,
    Diverged if no rate keeps the loss finite, StorageFailed if the disk is full.

    Ctrl-C leaves a run folder from which ``around.resume`` goes on.
    """
    config, around = config or TuneConfig(), around or Surroundings()
    meter = Meter()
    if config.calibrate:
        check_calibration(task, config.calibrate)
    parts = divide(task, config)
    engine = engine or Engine(base)
    if engine.plain:
        around.note(f"{base.name} is run by plain concatenation, which is slower")
    choices = choose(config, task, len(parts.train), plain=engine.plain)
    _check_length(base, choices)
    flops_before = engine.flops
    choices = settle_start(engine, choices, parts, around)
    if config.start == "nearest":
        config = replace(config, start=choices.start)  # a resumed run starts from the same
    prompts = [around.wrap(_start(engine, choices, trial.seed, parts, around)) for trial in choices.trials]
    output_tokens = longest_output(base, choices.task, parts.train)
    solver = PromptedBase(engine, choices.task, prompts[0].fold(), output_tokens=output_tokens)
    run = _run(engine, config, choices, around, name)  # nothing is written before all that can be checked is
    if run is not None:
        around.started(run)
    frozen_seconds = _freeze(engine, solver, parts, run, around)
    _prepare(solver, prompts, parts)
    loops = _tune(solver, prompts, parts, choices, run, around)
    return finish(
        Made(
            solver=solver,
            loops=loops,
            parts=parts,
            choices=choices,
            config=config,
            run=run,
            meter=meter,
            frozen_seconds=frozen_seconds,
            flops=engine.flops - flops_before,
            around=around,
            name=name,
        )
    )


def _start(engine: Engine, choices: Choices, seed: int, parts: Parts, around: Surroundings) -> SoftPrompt:
    return make_prompt(
        engine,
        choices.task,
        kind=choices.kind,
        length=choices.length,
        start=choices.start,
        seed=seed,
        forms_of=around.forms_of,
        rows=parts.train,
        share_blocks=choices.share_blocks,
    )


def _check_length(base: Base, choices: Choices) -> None:
    """Before the start is computed: many vectors take long, and learned positions end with the context."""
    asked = choices.length * choices.task.template.blocks
    if asked >= base.context:
        raise ConfigError(
            f"a prompt of {asked} vectors leaves no room: {base.name} reads {base.context} tokens.",
            "Ask for a smaller --length.",
        )


def _run(engine: Engine, config: TuneConfig, choices: Choices, around: Surroundings, name: str) -> Run | None:
    """The run folder to write or, on resume, the one to obey."""
    base = engine.base
    depends = {
        "data": {"source": list(around.source), **_rows_of(choices.task), **_text_of(choices.start)},
        "task": choices.task.to_dict(),
        "settings": choices.to_dict(),
        "base": {"fingerprint": base.fingerprint, "dtype": base.precision.name, "device": base.device.type},
        "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__},
    }
    if around.resume is not None:
        run = Run.open(around.resume)
        run.check_unchanged(depends)
        engine.store.budget = int(run.description["budget"])  # steps are taken in the same parts
        return run
    if around.runs is None:
        return None
    asked = {
        "name": name,
        "base_name": str(base.path or base.name),
        "config": config.to_dict(),
        "budget": engine.store.budget,
    }
    return Run.create(around.runs, name, depends | asked | {"reasons": dict(choices.reasons)})


def _rows_of(task: Task) -> dict[str, str]:
    """What the data says, so that a resumed tuning learns the same: "60 rows of train.csv, sha256 …" for each part."""
    parts = {"train": task.train, "test": task.test}
    return {
        part: f"{len(split.rows)} rows of {Path(split.source).name}, sha256 {rows_hash(split.rows)[:16]}"
        for part, split in parts.items()
        if split is not None
    }


def _text_of(start: str) -> dict[str, str]:
    """What the file says that a prompt starts from, where it starts from one."""
    if not start.startswith(TEXT):
        return {}
    file = Path(start.removeprefix(TEXT))
    return {"start": f"{file.name}, sha256 {sha256(read_text(file).encode(errors='surrogatepass')).hexdigest()[:16]}"}


def _freeze(engine: Engine, solver: PromptedBase, parts: Parts, run: Run | None, around: Surroundings) -> float:
    """Read what is not read yet. Which texts those are is noted, so that a resumed run reads them in the same batches."""
    meter = Meter()
    rows = solver.encode([*parts.train, *parts.validation])
    if any(row.segments[0] for row in rows):
        planned = run.planned(lambda: engine.missing(rows)) if run is not None else ()
        engine.freeze(rows, lambda done, total: around.stage("reading the texts once", done, total), planned=planned)
    return meter.seconds


def _prepare(solver: PromptedBase, prompts: Sequence[SoftPrompt], parts: Parts) -> None:
    """Show the frozen queries to prompts that depend on them."""
    if any(prompt.needs_query for prompt in prompts):
        queries, neutral = solver.engine.query(solver.encode(parts.train)), solver.engine.neutral_queries()
        for prompt in prompts:
            prompt.prepare(queries.cpu(), neutral.cpu())


def _tune(
    solver: PromptedBase,
    prompts: Sequence[SoftPrompt],
    parts: Parts,
    choices: Choices,
    run: Run | None,
    around: Surroundings,
) -> list[Loop]:
    """Every trial tuned, side by side."""
    objective = make_objective(solver, parts.train, parts.validation)
    device = solver.engine.base.device
    loops = [
        Loop(prompt.to(device), objective, trial, _listener(number, run, around))
        for number, (prompt, trial) in enumerate(zip(prompts, choices.trials, strict=True))
    ]
    state_file = run.state_file if run is not None else None
    if around.resume is not None and state_file is not None and state_file.exists():
        for loop, saved in zip(loops, load_states(state_file), strict=True):
            loop.resume(*saved)
    run_together(loops, state_file)
    return loops


def _listener(trial: int, run: Run | None, around: Surroundings) -> Listener:
    """Validations of every trial go to the metrics; the first trial tells how far all are."""

    def listen(moment: Moment) -> None:
        if run is not None and (moment.score is not None or moment.note):
            run.record(replace(moment, trial=trial))
        if trial == 0:
            around.listener(moment)

    return listen


def longest_output(base: Base, task: Task, rows: Sequence[Row]) -> int:
    """Room for outputs and choices: as the task says, else a quarter more than the longest in training, at most 256."""
    if task.knows_labels:
        return 1
    if task.output_tokens is not None:
        return task.output_tokens
    texts = [text for row in rows for text in (*row.choices, row.target or "")]
    longest = max(len(base.tokenize(text)) for text in texts)
    return min(MOST_OUTPUT_TOKENS, int(OUTPUT_MARGIN * longest) + 8)
