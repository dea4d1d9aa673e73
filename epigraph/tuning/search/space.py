"""Which trials a search tries, the most promising first.

    trials = rates × lengths × starts × epochs              around the defaults, by how far from them
             + token, first, both …                         with time or trials to spend: the base reads every text anew at
                                                            every step

A setting that was asked for has one value only. Source of the values: this project's own measurements (``benchmarks/``):
with 16 to 300 rows the rate, the length and the start move the score by up to 20 points, with 1,000 rows by few.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from epigraph.config import TuneConfig
from epigraph.prompts import KINDS
from epigraph.tuning.choices import EXAMPLES, Choices
from epigraph.tuning.data import CROSS_ROWS, FEW_ROWS
from epigraph.tuning.search.trial import Trial
from epigraph.tuning.start.values import PROMPT

RATES, LENGTHS = (1.0, 0.4, 1.6, 0.16), (1, 4)  # in units of the defaults
STARTS = ("text", "labels")
EPOCHS = (1.0, 0.5)  # where folds cannot choose when to stop
OTHERS = (("token", ""), ("kv", "first"), ("token", "first"), ("kv", "both"))  # kind and place
MOST_TRIALS = 32


def default_trials(choices: Choices, rows: int, *, plain: bool) -> tuple[int, str]:
    """How many trials without a budget, and why."""
    if plain or not choices.task.template.segments[0]:
        return 1, "1: the base reads every text anew at every step, so each trial costs as much as the tuning"
    if choices.task.writes:
        return 2, "2: outputs take long to learn"
    if rows <= FEW_ROWS:
        some = 8 if rows <= CROSS_ROWS else 16
        return some, f"{some}: with {rows} rows a trial takes seconds, and settings matter most"
    return 4, f"4: with {rows} rows they cost about as much as the tuning itself"


def near_trials(config: TuneConfig, choices: Choices, rows: int) -> list[Trial]:
    """Trials around the defaults over the same frozen states, the defaults first."""
    own, loop = KINDS[choices.kind], choices.loop
    rates = RATES if config.rate is None else (1.0,)
    free_length = config.length is None and own.default_length is None and not _settles_length(choices.start)
    lengths = LENGTHS if free_length else (1,)
    starts = STARTS if rows <= FEW_ROWS and _free_start(config, choices) else (choices.start,)
    epochs = EPOCHS if config.epochs is None and rows <= CROSS_ROWS else (1.0,)
    sizes = [range(len(values)) for values in (epochs, starts, lengths, rates)]
    ranks = sorted(product(*sizes), key=lambda at: (sum(at), at))
    return [
        Trial(
            kind=choices.kind,
            length=choices.length * lengths[length],
            place=choices.place,
            readings=choices.readings,
            start=starts[start],
            loop=replace(loop, rate=loop.rate * rates[rate], epochs=max(1, round(loop.epochs * epochs[passes]))),
        )
        for passes, start, length, rate in ranks
    ]


def other_trials(config: TuneConfig, choices: Choices, *, plain: bool) -> list[Trial]:
    """Other kinds and places, each at its own rate, and another start: only of what was not asked for.

    An ensemble has none: its members answer from one template. A start from a stored prompt keeps its kind.
    """
    if config.ensemble > 1:
        return []
    first = near_trials(config, choices, FEW_ROWS + 1)[0]
    starts = [replace(first, start=start) for start in STARTS if _free_start(config, choices) and start != first.start]
    return [*_other_kinds(config, choices, first, plain=plain), *starts]


def _free_start(config: TuneConfig, choices: Choices) -> bool:
    own = KINDS[choices.kind]
    return not config.start and own.default_start == STARTS[0] and choices.task.knows_labels


def _other_kinds(config: TuneConfig, choices: Choices, first: Trial, *, plain: bool) -> list[Trial]:
    if config.kind or config.place or config.portable or plain:
        return []
    scale = choices.loop.rate / KINDS[choices.kind].default_rate
    return [
        replace(
            first,
            kind=kind,
            place=place or choices.place,
            readings=1 if place else choices.readings,
            loop=first.loop if config.rate is not None else replace(first.loop, rate=KINDS[kind].default_rate * scale),
        )
        for kind, place in OTHERS
        if kind == choices.kind or not choices.start.startswith(PROMPT)
    ]


def _settles_length(start: str) -> bool:
    """Whether a start has a length of its own: that of a stored prompt, or of the rows that are kept whole."""
    return start == EXAMPLES or start.startswith(PROMPT)


def numbered(trials: Sequence[Trial], count: int) -> list[Trial]:
    """So many trials: these in order, then the same with other seeds."""
    rounds = [divmod(i, len(trials)) for i in range(count)]
    return [_reseeded(trials[which], turn) for turn, which in rounds]


def voters(config: TuneConfig, choices: Choices) -> list[Trial]:
    """The trials of an ensemble without a search: one setting, other seeds."""
    first = near_trials(config, choices, FEW_ROWS + 1)[:1]
    return numbered(first, config.ensemble)


def candidates(config: TuneConfig, choices: Choices, rows: int, *, plain: bool) -> Iterator[Trial]:
    """All trials that a budget in seconds may try, in the order in which it does: other kinds after the first few."""
    near = near_trials(config, choices, rows)
    yield from near[:4]
    yield from (trial for trial in other_trials(config, choices, plain=plain) if trial not in near)
    yield from near[4:]


def _reseeded(trial: Trial, turn: int) -> Trial:
    return replace(trial, loop=replace(trial.loop, seed=trial.loop.seed + turn))
