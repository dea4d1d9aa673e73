"""``tune``: from a base and a task to a scored prompt.

rows → train | validation | final      trials → search → best prompt      final rows → scores, beside the hard prompt's
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from epigraph.base import Base
from epigraph.config import TuneConfig, parse_budget
from epigraph.cost import Meter
from epigraph.engine import Engine
from epigraph.engine.engine import own_tokens
from epigraph.errors import ConfigError, Corrupt
from epigraph.methods import PromptedBase
from epigraph.methods.calibration import check_calibration
from epigraph.methods.shortened import shortened_note
from epigraph.prompts import SoftPrompt
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tasks.text_file import read_text
from epigraph.tuning.choices import Choices, choose
from epigraph.tuning.compiling import Compiling, weigh
from epigraph.tuning.data import FEW_ROWS, Parts, divide
from epigraph.tuning.diagnosis import diagnose_rows
from epigraph.tuning.finish import Made, finish
from epigraph.tuning.midway import Midway
from epigraph.tuning.objective import make_objective
from epigraph.tuning.reporter import Reporter
from epigraph.tuning.result import TuneResult
from epigraph.tuning.run import COMPILING, TRIALS, Run, rows_hash
from epigraph.tuning.search import Chosen, Halving, Lanes, Trial, choose_trials
from epigraph.tuning.search.choosing import seconds_again
from epigraph.tuning.search.costs import Costs, seconds_a_token, timed_step
from epigraph.tuning.spot import settle_start
from epigraph.tuning.start import make_prompt
from epigraph.tuning.start.values import TEXT, can_start
from epigraph.tuning.start.words import word_ids
from epigraph.tuning.surroundings import Surroundings
from epigraph.tuning.training import Trained, train
from epigraph.tuning.verdict import Wordings, zero_shots_that_fit

OUTPUT_MARGIN, MOST_OUTPUT_TOKENS = 1.25, 256
SHARE_OF_CONTEXT = 8  # a prompt that nobody asked for takes at most this part of what the base reads


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
    parts = divide(task, config, thrifty=True)
    engine = engine or Engine(base)
    if engine.plain:
        around.note(f"{base.name} is run by plain concatenation, which is slower")
    choices = choose(config, task, len(parts.learned), plain=engine.plain)
    _check_length(base, choices)
    flops_before = engine.flops
    choices = settle_start(engine, choices, parts, around)
    if config.start == "nearest":
        config = replace(config, start=choices.start)  # a resumed run starts from the same
    output_tokens = longest_output(base, choices.task, parts.all)
    first = _start(engine, choices, parts, around)
    solver = PromptedBase(engine, choices.task, first.fold(), output_tokens=output_tokens)
    shortened = shortened_note(solver, parts.each, strict=config.strict)
    tasks = Wordings(written=task, tuned=choices.task)
    zero_shots_that_fit(engine, tasks, output_tokens)  # what it is judged against at the end is there
    run = _run(engine, config, choices, around, name)  # nothing is written before all that can be checked is
    if run is not None:
        around.started(run)
    findings = [*filter(None, [shortened]), *diagnose_rows(solver, parts)]
    for finding in findings if around.resume is None else ():  # a resumed run has said it
        around.note(f"warning: {finding}")
    frozen_seconds = _freeze(engine, solver, parts, run, around)
    chosen = _trials(solver, first, choices, parts, config, run, meter)

    def start(trial: Trial) -> SoftPrompt:
        return _start(engine, choices.of(task, **vars(trial)), parts, around)

    lanes = Lanes(engine, task, chosen.trials, parts, start=start, output_tokens=output_tokens)
    lanes.prepare()
    try:
        compiling = _compiling(lanes, run)
        trained = _train(lanes, chosen, choices, config, run, around, meter)
    finally:
        engine.trunk.leave_plain()
    winner = trained.kept[0]
    return finish(
        Made(
            task=task,
            solver=lanes.solvers[winner.lane],
            trained=trained,
            parts=parts,
            chosen=chosen,
            compiling=compiling,
            choices=choices.of(task, **vars(winner.trial)),
            config=config,
            run=run,
            meter=meter,
            frozen_seconds=frozen_seconds,
            flops=engine.flops - flops_before,
            around=around,
            name=name,
            findings=findings,
        )
    )


def _start(engine: Engine, choices: Choices, parts: Parts, around: Surroundings) -> SoftPrompt:
    prompt = make_prompt(
        engine,
        choices.task,
        kind=choices.kind,
        length=choices.length,
        start=choices.start,
        seed=choices.loop.seed,
        forms_of=around.forms_of,
        rows=parts.train,
        share_blocks=choices.share_blocks,
    )
    return around.wrap(prompt)


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
    reasons = {**choices.reasons, "dtype": base.precision.reason}
    return Run.create(around.runs, name, depends | asked | {"reasons": reasons})


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


def _trials(
    solver: PromptedBase,
    first: SoftPrompt,
    choices: Choices,
    parts: Parts,
    config: TuneConfig,
    run: Run | None,
    meter: Meter,
) -> Chosen:
    """The trials to tune; those of a run that is resumed are the ones it began with."""
    engine, budget = solver.engine, parse_budget(config.budget)

    def choose_now() -> Chosen:
        return choose_trials(
            config,
            choices,
            len(parts.all),
            plain=bool(engine.plain),
            differs=lambda trial: _differs(engine, choices, trial),
            measure=lambda: _measure(solver, first, choices, parts),
            seconds_left=budget - meter.seconds if isinstance(budget, float) else 0.0,
        )

    if run is None:
        return choose_now()
    noted = run.noted(TRIALS, lambda: choose_now().to_dict())
    try:
        return Chosen.from_dict(noted)
    except (TypeError, KeyError, ValueError) as error:
        raise Corrupt(f"{run.folder / TRIALS} does not hold the trials of a run: {error}.", "Tune again.") from error


def _differs(engine: Engine, choices: Choices, trial: Trial) -> bool:
    """Whether a trial fits beside the rows, can be started, and does not start where another does under another name."""
    if trial.length > max(choices.length, engine.base.context // SHARE_OF_CONTEXT):
        return False
    if not can_start(engine, trial.start, trial.length):
        return False
    if trial.start == choices.start or trial.start != "labels":
        return True
    return word_ids(engine, choices.task, "labels", trial.length) != word_ids(engine, choices.task, "text", trial.length)


def _measure(solver: PromptedBase, first: SoftPrompt, choices: Choices, parts: Parts) -> Costs:
    encoded = solver.encode(parts.train)
    frozen = not solver.engine.plain and bool(solver.template.segments[0])
    tokens = round(sum(own_tokens(row) if frozen else row.length for row in encoded) / len(encoded))
    prompt = first.to(solver.engine.base.device)
    if prompt.needs_query:
        prompt.prepare(solver.engine.query(encoded).cpu(), solver.engine.neutral_queries().cpu())
    speed = seconds_a_token(prompt, make_objective(solver, parts.train, parts.validation), choices.loop, tokens)
    held, folds = len(parts.validation), len(parts.folds)
    return Costs(rows=encoded, held=held, folds=folds, seconds_a_token=speed, frozen=frozen, again=parts.again)


def _compiling(lanes: Lanes, run: Run | None) -> Compiling:
    """Whether the steps to come are compiled: of every lane one trial to its end, and one that learns from all rows."""
    trunk = lanes.engine.trunk

    def decide() -> dict[str, Any]:
        objective, settings = lanes.objectives[lanes.lane_of[0]], lanes.trials[0].loop
        steps = settings.epochs * math.ceil(len(objective.lengths) / settings.batch)
        prompt = lanes.prompts[0].to(lanes.engine.base.device)
        to_come = round(steps * (len(lanes.solvers) + lanes.parts.again))
        return weigh(trunk, to_come, lambda: timed_step(prompt, objective, settings)[0]).to_dict()

    if run is None:
        return Compiling(**decide())
    decided = Compiling(**run.noted(COMPILING, decide))
    if decided.on and trunk.compiled is None:
        trunk.compile_steps()
    return decided


def _train(
    lanes: Lanes,
    chosen: Chosen,
    choices: Choices,
    config: TuneConfig,
    run: Run | None,
    around: Surroundings,
    meter: Meter,
) -> Trained:
    """The search, and the prompts that are kept."""
    reporter = Reporter(run, around.listener)
    budget = parse_budget(config.budget)
    seconds = dict(enumerate(chosen.seconds))
    again = seconds_again(chosen.seconds, lanes.parts.again, choices.members)
    time_left = (lambda: budget - meter.seconds) if isinstance(budget, float) else None
    limit = (lambda: time_left() - again) if time_left else None
    search = Halving(
        lanes.contenders(reporter.listener),
        members=choices.members,
        usual=0 if len(lanes.parts.all) > FEW_ROWS else None,  # with few rows settings matter more
        seconds_left=limit,
        cost=lambda contender: seconds.get(contender.number, 0.0),
        note=around.note,
    )
    state_file = run.state_file if run is not None else None
    midway = Midway(lanes.parts, lambda contender: lanes.solvers[contender.lane], around.note)
    resume = around.resume is not None
    return train(search, lanes, reporter, state_file, resume=resume, midway=midway, time_left=time_left)


def longest_output(base: Base, task: Task, rows: Sequence[Row]) -> int:
    """Room for outputs and choices: as the task says, else a quarter more than the longest in training, at most 256."""
    if task.knows_labels:
        return 1
    if task.output_tokens is not None:
        return task.output_tokens
    texts = [text for row in rows for text in (*row.choices, row.target or "")]
    longest = max(len(base.tokenize(text)) for text in texts)
    return min(MOST_OUTPUT_TOKENS, int(OUTPUT_MARGIN * longest) + 8)
