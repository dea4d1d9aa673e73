"""How fast is tuning beside its rivals? Every method in a process of its own, in turn, on the same rows; ratios of medians.

ratio = seconds of the rival / seconds of ours         bound = FLOPs of the rival / FLOPs of ours
to accuracy = seconds until both have the accuracy that the slower one ends with
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from epigraph.bench.contest import OURS, Outcome, Plan
from epigraph.errors import ConfigError, NotFound
from epigraph.methods.rivals import RIVALS

SETS = ("sst2", "trec6", "ag_news", "imdb")
OUR_BATCH = 64
"""Twice what ``tune`` takes by default: the same examples in half the steps, each of which fills the machine better."""
BATCHES = {"epigraph": OUR_BATCH, "once": OUR_BATCH, "token": OUR_BATCH}
RIVAL_BATCH = 16
ASKED = ("epigraph", "once", "token", "peft-prompt", "peft-prefix", "peft-documented", "lora", "full")
KNOWN = ("epigraph", "once", "token", *RIVALS)
Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What to measure."""

    sets: Sequence[str] = SETS
    methods: Sequence[str] = ASKED
    rows: int = 1000
    tests: int = 500
    epochs: int = 3
    seeds: int = 3
    steps: int | None = None
    """Time the rivals over so many steps only, and say what the whole would take."""
    base: str = "default"
    dtype: str = "auto"
    out: Path | None = None
    """JSON lines, one a finished contest, written at once; those found in it are not run again."""


def bench_tuning(config: BenchConfig, note: Note) -> dict[str, Any]:
    """All outcomes, and a table of medians with ratios for every set. A method that fails is noted, and the others go on."""
    data = data_folder()
    _check(config, data)
    kept = Kept(config.out)
    outcomes: dict[str, list[Outcome]] = {}
    failed: list[str] = []
    for name in config.sets:
        outcomes[name] = []
        for seed in range(config.seeds):
            for method in config.methods:
                plan = Plan(
                    folder=str(data / name),
                    rows=config.rows,
                    tests=config.tests,
                    epochs=config.epochs,
                    seed=seed,
                    steps=None if method in OURS else config.steps,
                )
                try:
                    found = kept.get(method, plan, config) or kept.put(method, plan, config, run_apart(method, plan, config))
                except subprocess.CalledProcessError as error:
                    failed.append(f"{name} seed {seed} {method}: ended with code {error.returncode}")
                    note(failed[-1])
                    continue
                outcomes[name] += found
                for outcome in found:
                    note(f"{name} seed {seed} {_line(outcome)}")
    return {
        "config": asdict(config) | {"out": str(config.out or "")},
        "failed": failed,
        "outcomes": {name: [o.json for o in found] for name, found in outcomes.items()},
        "summary": {name: summary(found) for name, found in outcomes.items()},
    }


def _check(config: BenchConfig, data: Path) -> None:
    """Every name, before hours are spent on the first."""
    for name in config.sets:
        if not (data / name).is_dir():
            raise NotFound(f"set {name!r} was asked, but {data} has no such folder.", "Name folders of $EPIGRAPH_DATA.")
    if config.steps is not None and config.steps < 2:
        raise ConfigError(
            f"{config.steps} step was asked.", "Ask for 2 or more: the last one ends in a validation and is not timed."
        )
    for method in config.methods:
        if method not in KNOWN:
            raise ConfigError(f"method {method!r} is not known.", f"Choose from: {', '.join(KNOWN)}.")
    largest = max(BATCHES.get(method, RIVAL_BATCH) for method in config.methods)
    if config.rows <= largest:
        raise ConfigError(
            f"{config.rows} rows were asked.", f"Ask for more than {largest}: an epoch needs two steps to be timed."
        )


class Kept:
    """What was measured, a line of JSON a contest, so that nothing is lost when one fails or the machine stops."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        lines = file.read_text(encoding="utf-8").splitlines() if file is not None and file.is_file() else []
        self.found: dict[str, list[dict[str, Any]]] = {}
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):  # the last line of a killed process
                read = json.loads(line)
                self.found[_key(read["contest"])] = read["outcomes"]

    def get(self, method: str, plan: Plan, config: BenchConfig) -> list[Outcome]:
        """What was kept of this contest; nothing where it has not been run."""
        return [_outcome(each) for each in self.found.get(_key(_contest(method, plan, config)), [])]

    def put(self, method: str, plan: Plan, config: BenchConfig, outcomes: list[Outcome]) -> list[Outcome]:
        """Keep them, and give them back."""
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            line = {"contest": _contest(method, plan, config), "outcomes": [outcome.json for outcome in outcomes]}
            with self.file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")
        return outcomes


def _contest(method: str, plan: Plan, config: BenchConfig) -> dict[str, Any]:
    return {
        "method": method,
        "plan": asdict(plan),
        "batch": BATCHES.get(method, RIVAL_BATCH),
        "base": config.base,
        "dtype": config.dtype,
    }


def _key(contest: Mapping[str, Any]) -> str:
    return json.dumps(contest, sort_keys=True)


def _outcome(values: Mapping[str, Any]) -> Outcome:
    curve = [(float(seconds), float(score)) for seconds, score in values["curve"]]
    return Outcome(**{**values, "curve": curve})


def data_folder() -> Path:
    """Where the measuring data lie: $EPIGRAPH_DATA."""
    named = os.environ.get("EPIGRAPH_DATA")
    if not named:
        raise ConfigError("the data to measure on are not known.", "Set $EPIGRAPH_DATA to their folder.")
    return Path(named)


def run_apart(method: str, plan: Plan, config: BenchConfig) -> list[Outcome]:
    """One contest in a process of its own, so that memory and caches of one method are not another's."""
    command = [sys.executable, "-m", "epigraph.bench.apart", json.dumps(_contest(method, plan, config))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 (our own module)
    return [_outcome(each) for each in json.loads(done.stdout.splitlines()[-1])]


def summary(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One row a method: medians over the seeds, and how many times as long as our first and our later run."""
    methods = list(dict.fromkeys(outcome.method for outcome in outcomes))
    rows = {method: _medians([o for o in outcomes if o.method == method]) for method in methods}
    for method, row in rows.items():
        for ours in OURS:
            if method in OURS or ours not in rows:
                continue
            row[f"times_{ours}"] = round(row["seconds"] / rows[ours]["seconds"], 1)
            row[f"bound_{ours}"] = round(row["whole_flops"] / rows[ours]["whole_flops"], 1)
        ratio = _to_accuracy(outcomes, method)
        if ratio is not None:
            row["times_to_accuracy"] = round(ratio, 1)
    return list(rows.values())


def _medians(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    accuracies = [o.accuracy for o in outcomes if o.accuracy is not None]
    return {
        "method": outcomes[0].method,
        "seconds": round(statistics.median(o.seconds for o in outcomes), 1),
        "frozen_seconds": round(statistics.median(o.frozen_seconds for o in outcomes), 1),
        "step_seconds": round(statistics.median(o.step_seconds for o in outcomes), 4),
        "memory": int(statistics.median(o.memory for o in outcomes)),
        "rate_share": round(statistics.median(o.rate_share for o in outcomes), 2),
        "accuracy": round(statistics.mean(accuracies), 4) if accuracies else None,
        "whole_flops": statistics.median(o.whole_flops for o in outcomes),
        "extrapolated": outcomes[0].extrapolated,
        "runs": len(outcomes),
    }


def _to_accuracy(outcomes: Sequence[Outcome], method: str) -> float | None:
    """Median over the seeds that both ran of the rival's seconds by ours until both have what the slower one ends with."""
    ours = {o.seed: o for o in outcomes if o.method == "epigraph" and o.curve}
    pairs = [(ours[o.seed], o) for o in outcomes if o.method == method and o.curve and o.seed in ours]
    if method in OURS or not pairs:
        return None
    ratios = []
    for mine, other in pairs:
        slower = max(mine, other, key=lambda o: o.seconds)
        reached = [_seconds_until(o, slower.curve[-1][1]) for o in (mine, other)]
        if None in reached:
            return None
        ratios.append(reached[1] / reached[0])  # type: ignore[operator]
    return statistics.median(ratios)


def _seconds_until(outcome: Outcome, accuracy: float) -> float | None:
    """Seconds after which the test accuracy was first reached; None where it never was."""
    return next((seconds for seconds, reached in outcome.curve if reached >= accuracy), None)


def _line(outcome: Outcome) -> str:
    accuracy = "" if outcome.accuracy is None else f", accuracy {outcome.accuracy:.3f}"
    whole = " (from a part)" if outcome.extrapolated else ""
    return (
        f"{outcome.method}: {outcome.seconds:.1f} s{whole}, frozen {outcome.frozen_seconds:.1f} s, "
        f"{1000 * outcome.step_seconds:.0f} ms a step, {outcome.memory / 1e6:.0f} MB, "
        f"{outcome.rate_share:.0%} of the product rate{accuracy}"
    )
