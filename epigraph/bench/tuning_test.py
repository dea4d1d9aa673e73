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


def outcome(method: str) -> Outcome:
    """A contest that took two seconds."""
    numbers = {"frozen_seconds": 1.0, "steps": 1, "step_seconds": 0.1, "flops": 1, "whole_flops": 1.0, "memory": 1}
    return Outcome(method=method, seconds=2.0, rate_share=0.5, accuracy=0.5, curve=[(2.0, 0.5)], **numbers)  # type: ignore[arg-type]


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
