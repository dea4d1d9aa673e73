"""The table of what a search tried."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from epigraph.metrics import upward
from epigraph.tuning.search.contender import Contender
from epigraph.tuning.search.halving import Halving
from epigraph.tuning.search.trial import Trial

SETTINGS: Mapping[str, Callable[[Trial], object]] = {
    "kind": lambda trial: trial.kind,
    "place": lambda trial: trial.place,
    "length": lambda trial: trial.length,
    "readings": lambda trial: trial.readings,
    "rate": lambda trial: trial.loop.rate,
    "start": lambda trial: trial.start,
}


def table(search: Halving, kept: Sequence[Contender], metric: str) -> list[dict[str, Any]]:
    """One row a trial; ``score`` and ``loss`` (nats) are those of validation, ``kept`` is "kept" or when it was dropped."""
    return [_row(search, contender, metric, kept=contender in kept) for contender in search.contenders]


def _row(search: Halving, contender: Contender, metric: str, *, kept: bool) -> dict[str, Any]:
    trial, watched = contender.trial, contender.watched
    rung = next((number for number, gone in enumerate(search.dropped) if contender.number in gone), None)
    left = "at the end" if rung is None else f"at {search.rungs[rung].share:.0%} of the epochs"
    return {
        "trial": contender.number,
        "kind": trial.kind,
        "place": trial.place,
        "length": trial.length,
        "rate": trial.loop.rate,
        "start": trial.start,
        "seed": trial.loop.seed,
        "epochs": trial.loop.epochs,
        "steps": contender.steps,
        "score": round(upward(metric, watched.score), 4),
        "loss": round(-watched.minus_loss, 4),
        "kept": "kept" if kept else f"dropped {left}",
    }


def tried(search: Halving, kept: Sequence[Contender]) -> dict[str, str]:
    """For every setting in which the trials differ, the value that is kept and what else was tried."""
    found = {}
    for name, of in SETTINGS.items():
        values = list(dict.fromkeys(of(contender.trial) for contender in search.contenders))
        chosen = of(kept[0].trial)
        if len(values) > 1:
            others = ", ".join(_said(value) for value in values if value != chosen)
            found[name] = f"{_said(chosen)}: chosen by the search, which tried {others} too"
    return found


def _said(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def why(search: Halving, kept: Sequence[Contender], metric: str) -> str:
    """Why those that are kept were chosen, in words."""
    first, others = kept[0], [one for one in search.ranked if one not in kept]
    watched = first.watched
    said = f"trial {first.number} of {len(search.contenders)} ({first.trial}): {metric} {upward(metric, watched.score):.3f}"
    if not others:
        return f"{said}; {'; '.join(search.reasons)}" if search.reasons else said
    other = others[0].watched
    if other.score >= watched.score - watched.error:
        return f"{said}; trial {others[0].number} is within a standard error ({upward(metric, other.score):.3f}), its loss higher"
    return f"{said}; the next has {upward(metric, other.score):.3f}"
