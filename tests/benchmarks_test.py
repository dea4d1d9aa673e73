"""Every benchmark script runs, on a toy base and few rows; what it measures there means nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = (
    "building",
    "side_by_side",
    "scaling",
    "memory",
    "compile",
    "kinds",
    "decoding",
    "serving",
    "soak",
    "distill",
    "shortcut",
    "fix",
    "curve",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_prints_its_verdicts_and_writes_json(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--rounds", "1"]
    surroundings = {**os.environ, "EPIGRAPH_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "results").glob("*.json")
    found = json.loads(file.read_text())
    assert found["machine"]["quick"]
    for each in found["verdicts"]:
        assert f"{each['what']}: " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("name", "found"), [("multitask", "multitask.json"), ("continual", "continual-prompts.json")])
def test_a_script_of_many_tasks_writes_json(name: str, found: str, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--dtype", "float32"]
    surroundings = {**os.environ, "EPIGRAPH_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "results" / found).read_text())["quick"]


def test_every_script_is_tried() -> None:
    shared = {"measuring", "drawing", "kept"}
    needs_the_base = {"main_job", "calibration"}
    many_tasks = {"multitask", "continual"}
    assert {file.stem for file in BENCHMARKS.glob("*.py")} == {*SCRIPTS, *shared, *needs_the_base, *many_tasks}
