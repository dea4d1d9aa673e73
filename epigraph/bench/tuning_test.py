"""What a measurement refuses before it starts, and what it keeps when one of its contests fails."""

import subprocess
from pathlib import Path

import pytest

from epigraph.bench import tuning
from epigraph.bench.contest import Outcome, Plan
from epigraph.bench.tuning import BenchConfig, bench_tuning
from epigraph.errors import ConfigError, NotFound


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "toy").mkdir(parents=True)
    monkeypatch.setenv("EPIGRAPH_DATA", str(tmp_path / "data"))


def outcome(method: str, seed: int = 0, seconds: float = 2.0) -> Outcome:
    """A contest that took so long."""
    numbers = {"frozen_seconds": 1.0, "steps": 1, "step_seconds": 0.1, "flops": 1, "whole_flops": 1.0, "memory": 1}
    curve = [(seconds, 0.5)]
    return Outcome(method=method, seed=seed, seconds=seconds, rate_share=0.5, accuracy=0.5, curve=curve, **numbers)  # type: ignore[arg-type]


def test_names_are_checked_before_hours_are_spent() -> None:
    """A misspelt rival was measured as our own prompt under its name."""
    with pytest.raises(ConfigError, match="'peft-promt' is not known"):
        bench_tuning(BenchConfig(sets=["toy"], methods=["peft-promt"]), print)
    with pytest.raises(NotFound, match="'toys'"):
        bench_tuning(BenchConfig(sets=["toy", "toys"]), print)
    for cannot_be_timed in ({"steps": 1}, {"rows": 64}):  # these ended in a StatisticsError
        with pytest.raises(ConfigError, match=r"(was|were) asked"):
            bench_tuning(BenchConfig(sets=["toy"], **cannot_be_timed), print)  # type: ignore[arg-type]


def test_a_failed_contest_loses_nothing_and_is_the_only_one_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[str] = []

    def apart(method: str, plan: Plan, config: BenchConfig) -> list[Outcome]:
        run.append(method)
        if method == "lora" and len(run) == 2:
            raise subprocess.CalledProcessError(-9, "a process without memory")
        return [outcome(method)]

    monkeypatch.setattr(tuning, "run_apart", apart)
    config = BenchConfig(sets=["toy"], methods=["epigraph", "lora", "full"], seeds=1, out=tmp_path / "kept.jsonl")
    found = bench_tuning(config, print)
    assert found["failed"] == ["toy seed 0 lora: ended with code -9"]
    assert [row["method"] for row in found["summary"]["toy"]] == ["epigraph", "full"]
    with config.out.open("a") as out:  # type: ignore[union-attr]
        out.write('{"contest": {')  # a kill while a line was written
    again = bench_tuning(config, print)
    assert (run, again["failed"]) == (["epigraph", "lora", "full", "lora"], [])
    assert [row["method"] for row in again["summary"]["toy"]] == ["epigraph", "lora", "full"]


def test_seconds_to_an_accuracy_are_compared_seed_by_seed() -> None:
    """Runs were paired in their order: where one of ours had failed there was no figure, and where one of each, a wrong one."""
    ours = [outcome("epigraph", seed, 1.0 + seed) for seed in (0, 2)]
    theirs = [outcome("lora", seed, 10.0 * (1 + seed)) for seed in (0, 1, 2)]
    rows = {row["method"]: row for row in tuning.summary([*ours, *theirs])}
    assert rows["lora"]["times_to_accuracy"] == 10.0
    assert "times_to_accuracy" not in {row["method"]: row for row in tuning.summary(ours[:1] + theirs[1:2])}["lora"]
