"""The end of a tuning: the best prompt scored beside the hard prompt, and its card.

final rows → scores of prompt and hard prompt      settings, reasons, cost, lineage → card
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from epigraph.config import TuneConfig
from epigraph.cost import Meter, peak_memory
from epigraph.evaluation import Scores, evaluate
from epigraph.library import Card, Lineage, StoredPrompt
from epigraph.methods import PromptedBase, best_zero_shot
from epigraph.model import PromptModel, facts
from epigraph.prompts import Form, SoftPrompt
from epigraph.tasks.row import Row
from epigraph.tuning.choices import Choices
from epigraph.tuning.data import Parts
from epigraph.tuning.loop import Loop
from epigraph.tuning.result import TunedPrompt, TuneResult
from epigraph.tuning.run import Run
from epigraph.tuning.state import State
from epigraph.tuning.surroundings import Surroundings


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


def finish(made: Made) -> TuneResult:
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


def _warnings(solver: PromptedBase, parts: Parts) -> list[str]:
    """Of the rows, and of a base that is run the slow way."""
    slow = [solver.engine.warning] if solver.engine.plain else []
    return [*slow, *parts.warnings, *_truncated(solver, [*parts.train, *parts.validation, *parts.final])]


def _truncated(solver: PromptedBase, rows: Sequence[Row]) -> list[str]:
    touched = sum(row.truncated for row in solver.encode(rows))
    limit = solver.encoder.limit
    return [f"{touched} of {len(rows)} rows were shortened at their longest field to fit {limit} tokens"] if touched else []
