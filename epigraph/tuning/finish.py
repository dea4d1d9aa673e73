"""The end of a tuning: what is kept, scored beside the hard prompt, and its card.

validation → soft or hard      final rows → scores of both      settings, reasons, cost, lineage → card
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from epigraph.config import TuneConfig
from epigraph.cost import Meter, peak_memory
from epigraph.evaluation import Scores, evaluate
from epigraph.library import Card, Lineage, StoredPrompt
from epigraph.methods import PromptedBase
from epigraph.methods.calibration import calibrate
from epigraph.methods.solver import Scorable
from epigraph.methods.threshold import best_threshold, with_best_threshold
from epigraph.metrics import RANK_SCORES, upward
from epigraph.model import PromptModel, facts
from epigraph.prompts import KINDS, AnyForm, SoftPrompt, kept_numbers
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.choices import Choices
from epigraph.tuning.compiling import Compiling
from epigraph.tuning.data import Parts
from epigraph.tuning.diagnosis import Answers, Training, diagnose
from epigraph.tuning.loop import Loop
from epigraph.tuning.result import TunedPrompt, TuneResult
from epigraph.tuning.run import Run
from epigraph.tuning.search import Chosen, Contender, CrossValidated
from epigraph.tuning.search.table import table, tried, why
from epigraph.tuning.surroundings import Surroundings
from epigraph.tuning.training import Trained
from epigraph.tuning.verdict import Verdict, Wordings, decide

MOST_NAMED = 6  # of the trials that were left out
MATCHED_ROWS = 500  # on which a calibration is matched


@dataclass(frozen=True, kw_only=True)
class Made:
    """Everything the end of a tuning needs."""

    task: Task
    solver: PromptedBase
    trained: Trained
    parts: Parts
    chosen: Chosen
    compiling: Compiling
    choices: Choices
    config: TuneConfig
    run: Run | None
    meter: Meter
    frozen_seconds: float
    flops: int
    around: Surroundings
    name: str
    findings: Sequence[str] = ()

    @property
    def contender(self) -> Contender:
        """The trial that was best on validation."""
        return self.trained.kept[0]

    @property
    def loop(self) -> Loop:
        """The loop that made its prompt."""
        return self.trained.loops[0]

    @property
    def prompt(self) -> SoftPrompt:
        """Its prompt."""
        return self.loop.prompt

    @property
    def trained_parameters(self) -> int:
        """Of all that are kept."""
        return sum(loop.prompt.trained_parameters for loop in self.trained.loops)

    def method(self, prompts: Sequence[SoftPrompt]) -> PromptedBase:
        """The task solved by these prompts, which vote where they are several."""
        forms = [form for prompt in prompts for form in prompt.fold()]
        return PromptedBase(
            self.solver.engine, self.solver.task, forms, output_tokens=self.solver.output_tokens, members=len(prompts)
        )


def finish(made: Made) -> TuneResult:
    """Decide what is kept, score it and the hard prompt on the final rows, and write the card."""
    solver, parts, seed = made.solver, made.parts, made.config.seed
    tuned_seconds = made.meter.seconds
    tuned, judged = _tuned(made)
    final = list(parts.final)
    made.around.stage("scoring", 0, len(final))
    tasks = Wordings(written=made.task, tuned=solver.task)
    book, soft_only = made.around.book, _soft_only(made.config)
    verdict = decide(
        judged,
        solver.engine,
        tasks,
        parts,
        solver.output_tokens,
        seed=seed,
        soft_only=soft_only,
        book=book,
        finish=lambda method: _calibrated(made, method),
    )
    keeps_hard = verdict.keeps == "hard"
    rival = verdict.hard.method
    kept = rival if keeps_hard else tuned
    unseen = parts.split in ("test", "holdout")  # else the final rows are those of the verdict
    hard = evaluate(book.of(rival) if unseen else verdict.hard.judged, final, split=parts.split, seed=seed)
    scored = hard if keeps_hard else evaluate(tuned if unseen else judged, final, split=parts.split, seed=seed)
    made.around.stage("scoring", len(final), len(final))
    reasons = _reasons(made, kept, verdict)
    cost = _cost(made, kept.forms, tuned_seconds, trained=0 if keeps_hard else made.trained_parameters)
    settings = _settings(made, kept, rival, verdict)
    failures = diagnose(Training.of(made.contender.loops[0]), Answers.of(verdict, solver.task))
    stored = StoredPrompt(card=_card(made, kept, scored, hard, cost, settings, reasons), forms=list(kept.forms))
    return TuneResult(
        prompt=TunedPrompt(stored=stored, metrics_file=made.run.metrics_file if made.run else None),
        model=PromptModel(stored, solver.engine.base, engine=solver.engine),
        scored=scored,
        hard=hard,
        cost=cost,
        settings=settings,
        reasons=reasons,
        warnings=[*_warnings(solver, parts), *made.findings, *failures],
        verdict=verdict,
        trials=table(made.trained.search, made.trained.kept, solver.task.metric),
    )


def _settings(made: Made, kept: PromptedBase, rival: PromptedBase, verdict: Verdict) -> dict[str, Any]:
    """The settings of what is kept; a hard prompt is vectors of the length of its text."""
    settings = made.choices.to_dict() | {
        "output_tokens": made.solver.output_tokens,
        "dtype": made.solver.engine.base.precision.name,
        "hard_prompt": verdict.hard.name,
        "hard_template": made.task.template.text,
        "trials": len(made.trained.search.contenders),
        "verdict": verdict.keeps,
        **_answer_settings(kept, rival),
    }
    if verdict.keeps == "soft":
        return settings
    template = kept.task.template
    own = {"kind": "token", "length": kept.forms[0].length, "template": template.text, "members": 1}
    return settings | own | {"place": "template" if template.segments[0] else "first"}


def _reasons(made: Made, kept: PromptedBase, verdict: Verdict) -> dict[str, str]:
    task, precision = made.solver.task, made.solver.engine.base.precision
    found = {**task.reasons, **made.choices.reasons, "hard_prompt": verdict.tried, **_search_reasons(made)}
    if task.skewed:
        found["class_weights"] = "rare labels weigh more in the loss: by the inverse root of their rows, mean 1"
    return found | {
        "verdict": verdict.reason,
        "dtype": precision.reason,
        "compiled": made.compiling.reason,
        "stop": _stop_reason(made),
        **_answer_reasons(made, kept),
    }


def _soft_only(config: TuneConfig) -> bool:
    asked = config.kind or config.place or config.portable or config.ensemble > 1
    return config.keep == "soft" or (not config.keep and bool(asked))


def _tuned(made: Made) -> tuple[PromptedBase, Scorable]:
    """The prompt that is kept, and what answers the validation rows: where rows are used twice, prompts that have not learned
    from them, from whose answers the threshold is learned as well."""
    parts = made.parts
    tuned = _calibrated(made, made.method([loop.prompt for loop in made.trained.loops]))
    if parts.folds:
        return _crossed(made, tuned)
    tuned = with_best_threshold(tuned, parts.validation)
    if not parts.refit:
        return tuned, tuned
    return tuned, _calibrated(made, made.method([contender.loops[0].prompt for contender in made.trained.kept]))


def _crossed(made: Made, tuned: PromptedBase) -> tuple[PromptedBase, Scorable]:
    """The same of a cross-validation: every row is answered by the fold that has not learned from it."""
    rows, folds = made.parts.all, made.parts.folds
    methods = [_calibrated(made, made.method([prompt])) for prompt in made.trained.folds]
    judged = CrossValidated(methods, rows, folds)
    if not tuned.task.knows_labels or tuned.task.has_labels:
        return tuned, judged
    threshold = best_threshold(judged, rows)
    return tuned.with_threshold(threshold), CrossValidated([m.with_threshold(threshold) for m in methods], rows, folds)


def _search_reasons(made: Made) -> dict[str, str]:
    search, metric = made.trained.search, made.solver.task.metric
    found = {"trials": made.chosen.reason}
    if len(search.contenders) > 1:
        found |= tried(search, made.trained.kept) | {"winner": why(search, made.trained.kept, metric)}
    if made.chosen.left_out:
        found["left_out"] = _left_out(made.chosen.left_out)
    learned_again = made.loop in made.trained.again
    if made.parts.folds:
        then = "then learned from all rows" if learned_again else "is that of the first fold"
        found["validation"] = (
            f"cross-validation of {len(made.parts.all)} rows in {len(made.parts.folds)} folds chose the settings; the prompt "
            f"{then}. Its interval is over these rows only, and a little too narrow, since folds share rows"
        )
    elif learned_again:
        found["validation"] = (
            f"{len(made.parts.validation)} rows chose settings and epochs; the prompt then learned from all {len(made.parts.all)}"
        )
    return found


def _left_out(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return "too dear for the budget: " + "; ".join(names[:MOST_NAMED]) + more


def _calibrated(made: Made, solver: PromptedBase) -> PromptedBase:
    """With the calibration that was asked, matched on the texts that were tuned on."""
    how, parts = made.config.calibrate, made.parts
    return calibrate(solver, how, [*parts.train, *parts.validation][:MATCHED_ROWS]) if how else solver


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
        held = "held-out rows, whose score is a little too good for it" if made.parts.folds else "validation rows"
        found["threshold"] = (
            f"{task.threshold:g}: a label is given from this probability on; best {task.metric} on {len(made.parts.validation)} {held}"
        )
    if task.kind == "ordinal":
        median = task.metric in RANK_SCORES
        what = "the median of the labels' distribution" if median else "the likeliest label"
        found["answer"] = (
            f"{what}, which is what suits {task.metric}; mae is the mean distance in ranks, 0 to {len(task.labels) - 1}"
        )
    if tuned.shift is not None:
        found["calibration"] = f"{tuned.shift.how}, as asked; of the hard prompts that it is judged against too"
    return found


def _card(
    made: Made,
    kept: PromptedBase,
    scored: Scores,
    hard: Scores,
    cost: dict[str, Any],
    settings: dict[str, Any],
    reasons: dict[str, str],
) -> Card:
    start, is_hard = made.choices.start, settings["verdict"] == "hard"
    parents = (start.removeprefix("prompt:"),) if start.startswith("prompt:") and not is_hard else ()
    template = kept.task.template
    kind = made.prompt.kind if made.prompt.kind in KINDS else made.choices.kind
    needs_query = made.prompt.needs_query and not is_hard
    return Card(
        name=made.name,
        kind="token" if is_hard else kind,
        place=settings["place"],
        portable=template.blocks == settings["members"] == 1 and not template.segments[0] and not needs_query,
        trained_parameters=cost["trained_parameters"],
        base=facts(made.solver.engine.base),
        task=kept.task.to_dict(),
        scores=scored.json,
        hard_prompt=hard.json,
        cost=cost,
        settings=settings,
        reasons=reasons,
        lineage=Lineage(
            parents=parents, how=f"the hard prompt {settings['hard_prompt']}" if is_hard else f"tuned from {start}"
        ),
    )


def _cost(made: Made, forms: Sequence[AnyForm], seconds: float, *, trained: int) -> dict[str, Any]:
    kept = kept_numbers(forms)
    return {
        "seconds": round(seconds, 1),
        "frozen_seconds": round(made.frozen_seconds, 1),
        "train_seconds": round(made.trained.seconds, 1),
        "trained_parameters": trained,
        "kept_parameters": kept,
        "kept_bytes": 4 * kept,
        "flops": made.flops,
        **made.meter.energy(),
        "peak_memory_bytes": peak_memory(),
        "added_tokens": sum(form.length for form in forms),
    }


def _stop_reason(made: Made) -> str:
    contender, metric = made.contender, made.choices.task.metric
    state, watched, rows = made.loop.state, contender.watched, sum(contender.sizes)
    step = f" at step {contender.loops[0].state.best_step}" if not made.parts.folds else ""
    best = f"kept {metric} {upward(metric, watched.score):.3f} on {rows} validation rows{step}"
    halved = f"; the rate was halved {state.rollbacks} times after a loss that was not finite" if state.rollbacks else ""
    stopped = contender.loops[0].state.stopped
    ended = f"no gain in {made.loop.settings.patience} validations" if stopped else "all epochs done"
    return f"{ended} after {contender.steps} steps; {best}{_again(made)}{halved}"


def _again(made: Made) -> str:
    """How the prompt learned from all rows, where rows are used twice."""
    tried, loop = made.trained.again, made.loop
    if not tried:
        return ""
    if loop not in tried:
        rates = ", ".join(f"{one.settings.rate:g}" for one in tried)
        return f"; learned from all rows it answered worse at every rate tried ({rates}), so that one is kept"
    failed = f" at the rate {loop.settings.rate:g}, since a higher one answered them worse" if loop is not tried[0] else ""
    return f"; then {loop.state.step} steps over all rows{failed}"


def _warnings(solver: PromptedBase, parts: Parts) -> list[str]:
    """Of the rows, and of a base that is run the slow way."""
    slow = [solver.engine.warning] if solver.engine.plain else []
    return [*slow, *parts.warnings, *_cut(solver, [*parts.train, *parts.validation, *parts.final])]


def _cut(solver: PromptedBase, rows: Sequence[Row]) -> list[str]:
    what = "an output" if solver.task.writes else "a choice"
    return [f"{n} of {len(rows)} rows have {what} {why}: the rest is left out" for why, n in solver.cut(rows).items()]
