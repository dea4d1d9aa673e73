"""From what was asked to the trials of a search, with the reason, and what was left out for its cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from epigraph.config import TuneConfig, parse_budget
from epigraph.tuning.choices import Choices
from epigraph.tuning.search.costs import Costs
from epigraph.tuning.search.halving import epochs_of_all
from epigraph.tuning.search.space import MOST_TRIALS, candidates, default_trials, near_trials, numbered, other_trials, voters
from epigraph.tuning.search.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The trials, why so many, and what was left out. ``seconds`` is what each takes where that was measured."""

    trials: Sequence[Trial]
    reason: str
    left_out: Sequence[str] = ()
    seconds: Sequence[float] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the run folder."""
        return {
            "trials": [trial.to_dict() for trial in self.trials],
            "reason": self.reason,
            "left_out": list(self.left_out),
            "seconds": list(self.seconds),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Chosen":
        """What the run folder holds."""
        return cls(**{**values, "trials": [Trial.from_dict(one) for one in values["trials"]]})


def choose_trials(
    config: TuneConfig,
    choices: Choices,
    rows: int,
    *,
    plain: bool,
    differs: Callable[[Trial], bool],
    measure: Callable[[], Costs],
    seconds_left: float,
) -> Chosen:
    """The trials for ``rows`` rows in all.

    ``measure`` is asked for costs only where the budget is a time, of which ``seconds_left`` are left. ``differs`` says whether
    a trial is one that can be tried and is not the same as another.
    """
    budget = parse_budget(config.budget) if config.trials is None else config.trials
    if isinstance(budget, float):
        possible = [trial for trial in candidates(config, choices, rows, plain=plain) if differs(trial)]
        return _within(config, possible, costs=measure(), left=seconds_left)
    if config.ensemble > 1 and budget in (None, config.ensemble):
        return Chosen(trials=voters(config, choices), reason=f"{config.ensemble}, which all vote")
    near = [trial for trial in near_trials(config, choices, rows) if differs(trial)]
    if budget is not None:
        others = other_trials(config, choices, plain=plain) if budget > len(near) else []
        more = [trial for trial in others if trial not in near and differs(trial)]
        return Chosen(trials=numbered([*near, *more], budget), reason=f"{budget}, as asked")
    count, reason = default_trials(choices, rows, plain=plain)
    if len(near) < count:
        return Chosen(trials=near, reason=f"{len(near)}: all that was not asked for")
    return Chosen(trials=near[:count], reason=reason)


def _within(config: TuneConfig, possible: Sequence[Trial], *, costs: Costs, left: float) -> Chosen:
    """As many trials as a time does for, learning from all rows afterwards in it; fewer epochs where it does not even for one."""

    def whole(seconds: Sequence[float]) -> float:
        return epochs_of_all(seconds, members=config.ensemble) + seconds_again(seconds, costs.again, config.ensemble)

    taken: list[Trial] = []
    seconds: list[float] = []
    left_out: list[str] = []
    for trial in possible[:MOST_TRIALS]:
        cost = costs.seconds(trial)
        if taken and whole([*seconds, cost]) > left:
            left_out.append(f"{trial} ({cost:.0f} s)")
            continue
        taken.append(trial)
        seconds.append(cost)
    if len(taken) < config.ensemble:
        taken, seconds = numbered(taken, config.ensemble), [seconds[0]] * config.ensemble
    if len(taken) == 1 and whole(seconds) > left and config.epochs is None:
        epochs = max(1, int(taken[0].loop.epochs * max(0.0, left) / whole(seconds)))
        taken = [replace(taken[0], loop=replace(taken[0].loop, epochs=epochs))]
    reason = f"{len(taken)}: what fits into {max(0.0, left):.0f} s, {costs.seconds_a_token * 1000:.2f} ms a token measured"
    return Chosen(trials=taken, reason=reason, left_out=left_out, seconds=seconds)


def seconds_again(seconds: Sequence[float], again: float, members: int) -> float:
    """What the prompts that are kept take to learn from all rows, as the dearest of these trials would; ``again`` of a trial each."""
    return again * members * max(seconds, default=0.0)
