"""The end of a tuning: the best prompt scored beside the hard prompt, and its card.

final rows → scores of prompt and hard prompt      settings, reasons, cost, lineage → card
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from epigraph.config import TuneConfig
from epigraph.cost import Meter, peak_memory
from epigraph.evaluation import Scores, evaluate
from epigraph.library import Card, Lineage, StoredPrompt
from epigraph.methods import PromptedBase, best_zero_shot
from epigraph.methods.calibration import calibrate
from epigraph.methods.threshold import with_best_threshold
from epigraph.metrics import RANK_SCORES, upward
from epigraph.model import PromptModel, facts
from epigraph.prompts import KINDS, AnyForm, SoftPrompt, kept_numbers
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.choices import Choices
from epigraph.tuning.data import Parts
from epigraph.tuning.loop import Loop
from epigraph.tuning.result import TunedPrompt, TuneResult
from epigraph.tuning.run import Run
from epigraph.tuning.state import State
from epigraph.tuning.surroundings import Surroundings

MATCHED_ROWS = 500  # on which a calibration is matched


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
    def kept(self) -> list[Loop]:
        """The trials that are kept, the best on validation first: one, or those that vote."""
        ranked = sorted(self.loops, key=lambda loop: (loop.state.best_score, loop.state.best_minus_loss), reverse=True)
        return ranked[: self.choices.members]

    @property
    def loop(self) -> Loop:
        """The trial that was best on validation."""
        return self.kept[0]

    @property
    def state(self) -> State:
        """Where it ended."""
        return self.loop.state

    @property
    def prompt(self) -> SoftPrompt:
        """The prompt that was best on validation."""
        return self.loop.prompt

    @property
    def trained_parameters(self) -> int:
        """Of all that are kept."""
        return sum(loop.prompt.trained_parameters for loop in self.kept)


def finish(made: Made) -> TuneResult:
    """Score the best prompt and the hard prompt on the final rows, and write the card."""
    solver, parts = made.solver, made.parts
    forms = [form for loop in made.kept for form in loop.prompt.fold()]
    tuned_seconds = made.meter.seconds
    members = made.choices.members
    tuned = PromptedBase(solver.engine, solver.task, forms, output_tokens=solver.output_tokens, members=members)
    tuned = _calibrated(made, with_best_threshold(tuned, parts.validation))
    final = list(parts.final)
    made.around.stage("scoring", 0, len(final))
    scored = evaluate(tuned, final, split=parts.split, seed=made.config.seed)
    chosen = best_zero_shot(solver.engine, solver.task, parts.validation, solver.output_tokens)
    rival = _calibrated(made, chosen.method)
    hard = evaluate(rival, final, split=parts.split, seed=made.config.seed)
    made.around.stage("scoring", len(final), len(final))
    reasons = {**solver.task.reasons, **made.choices.reasons, "hard_prompt": f"{chosen.name}: {chosen.reason}"}
    reasons["dtype"] = solver.engine.base.precision.reason
    reasons["stop"] = _stop_reason(made)
    if len(made.loops) > 1:
        reasons["trials"] = _trials_reason(made)
    reasons |= _answer_reasons(made, tuned)
    cost = _cost(made, forms, tuned_seconds)
    settings = made.choices.to_dict() | {
        "output_tokens": solver.output_tokens,
        "dtype": solver.engine.base.precision.name,
        "hard_prompt": chosen.name,
        **_answer_settings(tuned, rival),
        "rate": made.loop.settings.rate,
        "seed": made.loop.settings.seed,
    }
    card = _card(made, tuned.task, scored, hard, cost, settings, reasons)
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


def _calibrated(made: Made, solver: PromptedBase) -> PromptedBase:
    """With the calibration that was asked, matched on the texts that were tuned on, and a threshold that fits it."""
    how, parts = made.config.calibrate, made.parts
    if not how:
        return solver
    shifted = calibrate(solver, how, [*parts.train, *parts.validation][:MATCHED_ROWS])
    return with_best_threshold(shifted, parts.validation)


def _answer_settings(tuned: PromptedBase, rival: PromptedBase) -> dict[str, Any]:
    """How answers are read off, where there is something to choose: for the prompt and for the hard prompt."""
    found: dict[str, Any] = {}
    if tuned.task.knows_labels and not tuned.task.has_labels:
        found |= {"threshold": tuned.task.threshold, "hard_threshold": rival.task.threshold}
    if tuned.shift is not None:
        found |= {"calibration": tuned.shift.to_dict()}
    return found


def _answer_reasons(made: Made, tuned: PromptedBase) -> dict[str, str]:
    task, found = tuned.task, {}
    if task.knows_labels and not task.has_labels:
        rows = len(made.parts.validation)
        found["threshold"] = (
            f"{task.threshold:g}: a label is given from this probability on; best {task.metric} on {rows} validation rows"
        )
    if task.kind == "ordinal":
        median = task.metric in RANK_SCORES
        what = "the median of the labels' distribution" if median else "the likeliest label"
        found["answer"] = (
            f"{what}, which is what suits {task.metric}; mae is the mean distance in ranks, 0 to {len(task.labels) - 1}"
        )
    if tuned.shift is not None:
        found["calibration"] = f"{tuned.shift.how}, as asked"
    return found


def _card(
    made: Made,
    task: Task,
    scored: Scores,
    hard: Scores,
    cost: dict[str, Any],
    settings: dict[str, Any],
    reasons: dict[str, str],
) -> Card:
    start = made.choices.start
    parents = (start.removeprefix("prompt:"),) if start.startswith("prompt:") else ()
    template = made.choices.task.template
    return Card(
        name=made.name,
        kind=made.prompt.kind if made.prompt.kind in KINDS else made.choices.kind,
        place=made.choices.place,  # type: ignore[arg-type]
        portable=template.blocks == made.choices.members == 1 and not template.segments[0] and not made.prompt.needs_query,
        trained_parameters=made.trained_parameters,
        base=facts(made.solver.engine.base),
        task=task.to_dict(),
        scores=scored.json,
        hard_prompt=hard.json,
        cost=cost,
        settings=settings,
        reasons=reasons,
        lineage=Lineage(parents=parents, how=f"tuned from {start}"),
    )


def _cost(made: Made, forms: Sequence[AnyForm], seconds: float) -> dict[str, Any]:
    kept = kept_numbers(forms)
    return {
        "seconds": round(seconds, 1),
        "frozen_seconds": round(made.frozen_seconds, 1),
        "train_seconds": round(made.state.train_seconds, 1),
        "trained_parameters": made.trained_parameters,
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
    best = f"best {metric} {upward(metric, state.best_score):.3f} on {rows} validation rows at step {state.best_step}"
    halved = f"; the rate was halved {state.rollbacks} times after a loss that was not finite" if state.rollbacks else ""
    ended = f"no gain in {made.loop.settings.patience} validations" if state.stopped else "all epochs done"
    return f"{ended} after {steps} steps; {best}{halved}"


def _trials_reason(made: Made) -> str:
    """What every trial reached."""
    metric = made.choices.task.metric
    reached = [
        f"rate {loop.settings.rate:.3g} seed {loop.settings.seed}: {upward(metric, loop.state.best_score):.3f}"
        + (" (kept)" if loop in made.kept else "")
        for loop in made.loops
    ]
    return f"{len(reached)} prompts side by side, best {metric} on validation: " + "; ".join(reached)


def _warnings(solver: PromptedBase, parts: Parts) -> list[str]:
    """Of the rows, and of a base that is run the slow way."""
    slow = [solver.engine.warning] if solver.engine.plain else []
    return [*slow, *parts.warnings, *_truncated(solver, [*parts.train, *parts.validation, *parts.final])]


def _truncated(solver: PromptedBase, rows: Sequence[Row]) -> list[str]:
    touched = sum(row.truncated for row in solver.encode(rows))
    limit = solver.encoder.limit
    found = [f"{touched} of {len(rows)} rows were shortened at their longest field to fit {limit} tokens"] if touched else []
    what = "an output" if solver.task.writes else "a choice"
    cut = [f"{n} of {len(rows)} rows have {what} {why}: the rest is left out" for why, n in solver.cut(rows).items()]
    return found + cut
