"""``tune``: from a base and a task to a scored prompt.

rows → train | validation | final      start → loop → best prompt      final rows → scores, beside the hard prompt's
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from epigraph.base import Base
from epigraph.config import TuneConfig
from epigraph.cost import Meter, peak_memory
from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.evaluation import Scores, evaluate
from epigraph.library import Card, Lineage, StoredPrompt
from epigraph.methods import PromptedBase, best_zero_shot
from epigraph.model import PromptModel, facts
from epigraph.prompts import Form, SoftPrompt
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.choices import Choices, choose
from epigraph.tuning.data import Parts, divide
from epigraph.tuning.loop import Listener, Loop, Moment, run_together
from epigraph.tuning.objective import make_objective
from epigraph.tuning.result import TunedPrompt, TuneResult
from epigraph.tuning.run import Run, rows_hash
from epigraph.tuning.start import FormsOf, make_prompt
from epigraph.tuning.state import State, load_states

OUTPUT_MARGIN, MOST_OUTPUT_TOKENS = 1.25, 256
Stage = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What surrounds a tuning: where it reports, where it keeps its run, where other prompts come from."""

    runs: Path | None = None
    resume: Path | None = None
    listener: Listener = lambda _moment: None
    stage: Stage = lambda _name, _done, _total: None
    started: Callable[[Run], None] = lambda _run: None
    note: Callable[[str], None] = lambda _text: None
    forms_of: FormsOf | None = None
    source: Sequence[str] = ()


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
    parts = divide(task, config)
    engine = engine or Engine(base)
    if engine.plain:
        around.note(f"{base.name} is run by plain concatenation, which is slower")
    choices = choose(config, task, len(parts.train), plain=engine.plain)
    _check_length(base, choices)
    flops_before = engine.flops
    prompts = [_start(engine, choices, trial.seed, around.forms_of) for trial in choices.trials]
    output_tokens = _output_tokens(base, choices.task, parts.train)
    solver = PromptedBase(engine, choices.task, prompts[0].fold(), output_tokens=output_tokens)
    run = _run(base, config, choices, around, name)  # nothing is written before all that can be checked is
    if run is not None:
        around.started(run)
    frozen_seconds = _freeze(engine, solver, parts, run, around)
    loops = _tune(solver, prompts, parts, choices, run, around)
    return _finish(
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


def _start(engine: Engine, choices: Choices, seed: int, forms_of: FormsOf | None) -> SoftPrompt:
    return make_prompt(
        engine,
        choices.task,
        kind=choices.kind,
        length=choices.length,
        start=choices.start,
        seed=seed,
        forms_of=forms_of,
    )


def _check_length(base: Base, choices: Choices) -> None:
    """Before the start is computed: many vectors take long, and learned positions end with the context."""
    asked = choices.length * choices.task.template.blocks
    if asked >= base.context:
        raise ConfigError(
            f"a prompt of {asked} vectors leaves no room: {base.name} reads {base.context} tokens.",
            "Ask for a smaller --length.",
        )


@dataclass(frozen=True, kw_only=True)
class Made:
    """Everything the end of a tuning needs."""

    solver: PromptedBase
    loops: Sequence[Loop]
    parts: Parts
    choices: Choices
    config: TuneConfig
    run: Run | None
    meter: Meter
    frozen_seconds: float
    flops: int
    around: Surroundings
    name: str

    @property
    def loop(self) -> Loop:
        """The trial that was best on validation."""
        return max(self.loops, key=lambda loop: (loop.state.best_score, loop.state.best_minus_loss))

    @property
    def state(self) -> State:
        """Where it ended."""
        return self.loop.state

    @property
    def prompt(self) -> SoftPrompt:
        """The prompt it ended in."""
        return self.loop.prompt


def _run(base: Base, config: TuneConfig, choices: Choices, around: Surroundings, name: str) -> Run | None:
    """The run folder to write or, on resume, the one to obey."""
    depends = {
        "data": {"source": list(around.source), **_rows_of(choices.task)},
        "task": choices.task.to_dict(),
        "settings": choices.to_dict(),
        "base": {"fingerprint": base.fingerprint, "dtype": base.precision.name, "device": base.device.type},
        "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__},
    }
    if around.resume is not None:
        run = Run.open(around.resume)
        run.check_unchanged(depends)
        return run
    if around.runs is None:
        return None
    asked = {"name": name, "base_name": str(base.path or base.name), "config": config.to_dict()}
    return Run.create(around.runs, name, depends | asked | {"reasons": dict(choices.reasons)})


def _rows_of(task: Task) -> dict[str, str]:
    """What the data says, so that a resumed tuning learns the same: "60 rows of train.csv, sha256 …" for each part."""
    parts = {"train": task.train, "test": task.test}
    return {
        part: f"{len(split.rows)} rows of {Path(split.source).name}, sha256 {rows_hash(split.rows)[:16]}"
        for part, split in parts.items()
        if split is not None
    }


def _freeze(engine: Engine, solver: PromptedBase, parts: Parts, run: Run | None, around: Surroundings) -> float:
    """Read what is not read yet. Which texts those are is noted, so that a resumed run reads them in the same batches."""
    meter = Meter()
    rows = solver.encode([*parts.train, *parts.validation])
    if any(row.segments[0] for row in rows):
        planned = run.planned(lambda: engine.missing(rows)) if run is not None else ()
        engine.freeze(rows, lambda done, total: around.stage("reading the texts once", done, total), planned=planned)
    return meter.seconds


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


def _finish(made: Made) -> TuneResult:
    """Score the best prompt and the hard prompt on the final rows, and write the card."""
    solver, parts = made.solver, made.parts
    forms = made.prompt.fold()
    tuned_seconds = made.meter.seconds
    tuned = PromptedBase(solver.engine, solver.task, forms, output_tokens=solver.output_tokens)
    final = list(parts.final)
    made.around.stage("scoring", 0, len(final))
    scored = evaluate(tuned, final, split=parts.split, seed=made.config.seed)
    chosen = best_zero_shot(solver.engine, solver.task, parts.validation, solver.output_tokens)
    hard = evaluate(chosen.method, final, split=parts.split, seed=made.config.seed)
    made.around.stage("scoring", len(final), len(final))
    reasons = {**solver.task.reasons, **made.choices.reasons, "hard_prompt": f"{chosen.name}: {chosen.reason}"}
    reasons["dtype"] = solver.engine.base.precision.reason
    reasons["stop"] = _stop_reason(made)
    if len(made.loops) > 1:
        reasons["trials"] = _trials_reason(made)
    cost = _cost(made, forms, tuned_seconds)
    settings = made.choices.to_dict() | {
        "output_tokens": solver.output_tokens,
        "dtype": solver.engine.base.precision.name,
        "hard_prompt": chosen.name,
        "rate": made.loop.settings.rate,
        "seed": made.loop.settings.seed,
    }
    card = _card(made, scored, hard, cost, settings, reasons)
    stored = StoredPrompt(card=card, forms=forms)
    return TuneResult(
        prompt=TunedPrompt(stored=stored, metrics_file=made.run.metrics_file if made.run else None),
        model=PromptModel(stored, solver.engine.base, engine=solver.engine),
        scored=scored,
        hard=hard,
        cost=cost,
        settings=settings,
        reasons=reasons,
        warnings=_warnings(solver, parts),
    )


def _card(
    made: Made, scored: Scores, hard: Scores, cost: dict[str, Any], settings: dict[str, Any], reasons: dict[str, str]
) -> Card:
    start = made.choices.start
    parents = (start.removeprefix("prompt:"),) if start.startswith("prompt:") else ()
    template = made.choices.task.template
    return Card(
        name=made.name,
        kind=made.choices.kind,
        place=made.choices.place,  # type: ignore[arg-type]
        portable=template.blocks == 1 and not template.segments[0],
        trained_parameters=made.prompt.trained_parameters,
        base=facts(made.solver.engine.base),
        task=made.choices.task.to_dict(),
        scores=scored.json,
        hard_prompt=hard.json,
        cost=cost,
        settings=settings,
        reasons=reasons,
        lineage=Lineage(parents=parents, how=f"tuned from {start}"),
    )


def _cost(made: Made, forms: Sequence[Form], seconds: float) -> dict[str, Any]:
    kept = sum(t.numel() for form in forms for t in asdict(form).values())
    return {
        "seconds": round(seconds, 1),
        "frozen_seconds": round(made.frozen_seconds, 1),
        "train_seconds": round(made.state.train_seconds, 1),
        "trained_parameters": made.prompt.trained_parameters,
        "kept_parameters": kept,
        "kept_bytes": 4 * kept,
        "flops": made.flops,
        **made.meter.energy(),
        "peak_memory_bytes": peak_memory(),
        "added_tokens": sum(form.length for form in forms),
    }


def _stop_reason(made: Made) -> str:
    state, steps = made.state, made.state.step
    metric, rows = made.choices.task.metric, len(made.parts.validation)
    best = f"best {metric} {state.best_score:.3f} on {rows} validation rows at step {state.best_step}"
    halved = f"; the rate was halved {state.rollbacks} times after a loss that was not finite" if state.rollbacks else ""
    ended = f"no gain in {made.loop.settings.patience} validations" if state.stopped else "all epochs done"
    return f"{ended} after {steps} steps; {best}{halved}"


def _trials_reason(made: Made) -> str:
    """What every trial reached."""
    metric = made.choices.task.metric
    reached = [
        f"rate {loop.settings.rate:.3g} seed {loop.settings.seed}: {loop.state.best_score:.3f}"
        + (" (kept)" if loop is made.loop else "")
        for loop in made.loops
    ]
    return f"{len(reached)} prompts side by side, best {metric} on validation: " + "; ".join(reached)


def _output_tokens(base: Base, task: Task, rows: Sequence[Row]) -> int:
    """Room for generated answers: a quarter more than the longest in training, at most 256."""
    if task.kind == "classification":
        return 1
    longest = max(len(base.tokenize(row.target or "")) for row in rows)
    return min(MOST_OUTPUT_TOKENS, int(OUTPUT_MARGIN * longest) + 8)


def _warnings(solver: PromptedBase, parts: Parts) -> list[str]:
    """Of the rows, and of a base that is run the slow way."""
    slow = [solver.engine.warning] if solver.engine.plain else []
    return [*slow, *parts.warnings, *_truncated(solver, [*parts.train, *parts.validation, *parts.final])]


def _truncated(solver: PromptedBase, rows: Sequence[Row]) -> list[str]:
    touched = sum(row.truncated for row in solver.encode(rows))
    limit = solver.encoder.limit
    return [f"{touched} of {len(rows)} rows were shortened at their longest field to fit {limit} tokens"] if touched else []
