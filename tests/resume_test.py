"""A tuning that was stopped and resumed is the tuning that was not; a kill at any moment leaves a library that verifies."""

import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import epigraph.tuning.training as training_module
from epigraph.base import Base
from epigraph.base.toy import toy_base
from epigraph.config import TuneConfig
from epigraph.engine import Engine
from epigraph.library import Card, Library
from epigraph.model import facts
from epigraph.prompts import KINDS, AnyForm, Dependent, Embedded
from epigraph.tasks.task import Task
from epigraph.tuning import Surroundings, tune
from epigraph.tuning.loop import Moment

CONFIG = TuneConfig(epochs=3, batch=8, rate=0.3, budget="1", validation=0.15, keep="soft")  # 12 steps on 40 rows


@pytest.fixture
def task(make_csv: Any) -> Task:
    return Task.from_file(make_csv(rows=40))


def tensors(forms: list[AnyForm]) -> list[torch.Tensor]:
    """All that is kept: of a block that depends on the input the prompt's whole state."""
    found = []
    for form in forms:
        if isinstance(form, Dependent):
            found += list(form.prompt.state_dict().values())
        else:
            found += [form.vectors] if isinstance(form, Embedded) else [form.keys, form.values]
    return found


def same(left: list[AnyForm], right: list[AnyForm]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(left), tensors(right), strict=True))


def stopping_at(step: int) -> Any:
    def listen(moment: Moment) -> None:
        if moment.step == step:
            raise KeyboardInterrupt("stop")

    return listen


@pytest.fixture(scope="module")
def engine(toy: Base) -> Engine:
    return Engine(toy)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.alone])
def test_resumed_is_uninterrupted_bit_for_bit(engine: Engine, task: Task, tmp_path: Path, kind: str) -> None:
    """Interrupted in the first epoch, at a validation, between two, and in the last step: four times in one run."""
    config = TuneConfig(kind=kind, **{k: v for k, v in CONFIG.to_dict().items() if k != "kind"})
    whole = tune(engine.base, task, config, engine=engine).prompt.stored.forms
    folder = None
    for step in (1, 4, 6, 12) if kind in ("token", "kv") else (6,):
        around = Surroundings(runs=tmp_path / "runs", resume=folder, listener=stopping_at(step))
        with pytest.raises(KeyboardInterrupt, match="stop"):
            tune(engine.base, task, config, engine=engine, around=around)
        (folder,) = (tmp_path / "runs").iterdir()
    result = tune(engine.base, task, config, engine=engine, around=Surroundings(resume=folder))
    assert same(result.prompt.stored.forms, whole)
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 12]


@pytest.mark.parametrize("save", [1, 2, 3])
def test_an_interrupt_during_a_save_loses_nothing(
    engine: Engine, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: int
) -> None:
    whole = tune(engine.base, task, CONFIG, engine=engine).prompt.stored.forms
    really, calls = training_module.save_states, []

    def interrupted(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == save:
            raise KeyboardInterrupt("stop")
        really(*arguments)

    monkeypatch.setattr(training_module, "save_states", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stop"):
        tune(engine.base, task, CONFIG, engine=engine, around=Surroundings(runs=tmp_path))
    monkeypatch.undo()
    (folder,) = tmp_path.glob("prompt-*")
    result = tune(engine.base, task, CONFIG, engine=engine, around=Surroundings(resume=folder))
    assert same(result.prompt.stored.forms, whole)


def test_a_run_that_was_stopped_before_its_first_step_begins_again(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIGRAPH_HOME", str(tmp_path / "home"))  # nothing of the task was read before
    engine = Engine(toy_base())

    def stop(name: str, done: int, total: int) -> None:
        raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt, match="stop"):
        tune(engine.base, task, CONFIG, engine=engine, around=Surroundings(runs=tmp_path, stage=stop))
    (folder,) = tmp_path.glob("prompt-*")
    assert not (folder / "state.safetensors").exists()
    resumed = tune(engine.base, task, CONFIG, engine=engine, around=Surroundings(resume=folder)).prompt.stored.forms
    assert same(resumed, tune(engine.base, task, CONFIG, engine=engine).prompt.stored.forms)


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_ctrl_c_prints_a_command_that_goes_on(
    cli: Any, toy_flags: list[str], learns: list[str], make_csv: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's path has a space: the printed command must still be one that a shell understands."""
    import epigraph.cli.progress as progress

    flags = ["--name", "stopped", "--library", "a library", "--template", "{text}{prompt}\\nIs:", *toy_flags[:2], *learns]
    with monkeypatch.context() as patched:
        patched.setattr(progress.Progress, "moment", lambda self, moment: stopping_at(2)(moment))
        answer = cli("tune", make_csv(rows=40), *flags)
    assert answer.code == 130
    command = next(line for line in answer.err.splitlines() if "epigraph tune --resume" in line)
    arguments = shlex.split(command[command.index("epigraph tune") :])[1:]
    found = cli(*arguments, "--json").json
    assert found["prompt"] == "stopped@1"
    assert found["settings"]["template"] == "{text}{prompt}\nIs:"
    assert "times as fast" in found["reasons"]["dtype"]  # nobody asked: the run only said which dtype it had begun in
    assert found["settings"]["rate"] == 0.3


@pytest.fixture
def run_folder(engine: Engine, task: Task, tmp_path: Path) -> Path:
    """A run that was interrupted at its second step."""
    around = Surroundings(runs=tmp_path / "runs", listener=stopping_at(2), source=("train.csv", "", ""))
    with pytest.raises(KeyboardInterrupt, match="stop"):
        tune(engine.base, task, CONFIG, engine=engine, around=around)
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def test_changed_data_is_refused_and_named(engine: Engine, make_csv: Any, run_folder: Path) -> None:
    """The message once showed the first 200 characters of two lists of paths and hashes, which were the same."""
    around = Surroundings(resume=run_folder, source=("train.csv", "", ""))
    with pytest.raises(ValueError, match=r"data\.train, 40 rows of train\.csv, sha256 \w+, became 40 rows of train\.csv"):
        tune(engine.base, Task.from_file(make_csv(rows=40, seed=1)), CONFIG, engine=engine, around=around)
    with pytest.raises(ValueError, match=r"data\.train, 40 rows of train\.csv, .* became 48 rows of train\.csv"):
        tune(engine.base, Task.from_file(make_csv(rows=48)), CONFIG, engine=engine, around=around)


def test_changed_data_behind_a_task_toml_is_refused(
    cli: Any, toy_flags: list[str], learns: list[str], make_csv: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only the TOML itself was hashed once: another train.csv behind it was resumed on as if nothing had happened."""
    import epigraph.cli.progress as progress

    make_csv(rows=40)
    toml = tmp_path / "routing.toml"
    toml.write_text('instruction = "Which?"\n[data]\ntrain = "train.csv"\n')
    with monkeypatch.context() as patched:
        patched.setattr(progress.Progress, "moment", lambda self, moment: stopping_at(2)(moment))
        assert cli("tune", toml, *toy_flags, *learns).code == 130
    (folder,) = Path("library/.runs").iterdir()
    make_csv(rows=40, seed=1)
    answer = cli("tune", "--resume", folder, "--json")
    assert answer.code == 2
    assert "data.train" in answer.json["error"]["message"]
    make_csv(rows=40)
    toml.write_text('instruction = "Whichever?"\n[data]\ntrain = "train.csv"\n')
    assert (
        "task.instruction, Which?, became Whichever?" in cli("tune", "--resume", folder, "--json").json["error"]["message"]
    )
    toml.write_text('instruction = "Which?"\n[data]\ntrain = "train.csv"\n')
    assert cli("tune", "--resume", folder, "--json").json["prompt"] == "routing@1"


def test_another_base_or_dtype_or_setting_is_refused(
    engine: Engine, task: Task, run_folder: Path, other_folder: Path
) -> None:
    from epigraph.base import load_base

    around = Surroundings(resume=run_folder, source=("train.csv", "", ""))
    with pytest.raises(ValueError, match=r"since it was begun, its base\.fingerprint, \w+, became"):
        tune(load_base(other_folder, dtype="float32"), task, CONFIG, around=around)
    with pytest.raises(ValueError, match=r"its settings\.rate, 0\.3, became 0\.1"):
        tune(engine.base, task, replace(CONFIG, rate=0.1), engine=engine, around=around)
    with pytest.raises(LookupError, match=r"is no run folder: it has no run\.toml"):
        tune(engine.base, task, CONFIG, engine=engine, around=Surroundings(resume=run_folder.parent))


def test_a_damaged_state_is_refused(engine: Engine, task: Task, run_folder: Path) -> None:
    state = run_folder / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"the state of the run at .* cannot be read"):
        tune(engine.base, task, CONFIG, engine=engine, around=Surroundings(resume=run_folder, source=("train.csv", "", "")))


# ---- kills -----------------------------------------------------------------------------------------------------------


def test_twenty_kills(toy_folder: Path, make_csv: Any, tmp_path: Path) -> None:
    """12 at random moments, 8 while the prompt is stored; see kills.py, which forks them from one warm process.

    The prompt files of equal prompts once differed: safetensors writes its metadata in a random order.
    """
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(toy_folder), str(make_csv(rows=24))],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["kills"]) == 20
    ended = [(kill["code"], kill["added"]) for kill in report["kills"]]
    assert ended == [(2, 0) if kill["finished"] else (0, 1) for kill in report["kills"]]
    assert not any(kill["finished"] for kill in report["kills"][-8:])
    assert all(kill["killed"] for kill in report["kills"][-8:])
    assert sum(kill["resumed"] for kill in report["kills"]) >= 8
    assert report["problems"] == []
    assert report["versions"] >= 20
    assert all(report["same"])


def environment(home: Path) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "EPIGRAPH_HOME": str(home / "home"), "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A resumed run sets the number of threads; put it back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_a_killed_and_an_interrupted_process_are_resumed_by_the_printed_command(
    cli: Any, toy_flags: list[str], make_csv: Any, tmp_path: Path
) -> None:
    """``python -m epigraph tune`` itself: SIGKILL without a word, SIGINT with exit code 130 and the command that goes on."""
    data = str(make_csv(rows=40))
    work = Path.cwd()
    flags = ["--epochs", "48", "--batch", "8", "--patience", "999", "--budget", "4", *toy_flags]  # a search that lasts
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", "epigraph", "tune", data, "--name", name, "--library", name, *flags],
            env=environment(tmp_path) | {"PYTHONPATH": str(Path(__file__).parent.parent)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            cwd=work,
        )
        for name in ("killed", "interrupted")
    }
    waiting = {"killed": signal.SIGKILL, "interrupted": signal.SIGINT}
    while waiting:  # each as soon as it has a state: while one was waited for, the other once came to its end
        for name in list(waiting):
            if list(work.glob(f"{name}/.runs/*/state.safetensors")) or started[name].poll() is not None:
                started[name].send_signal(waiting.pop(name))
        time.sleep(0.01)
    said = {name: process.communicate()[1] for name, process in started.items()}
    assert started["killed"].returncode == -signal.SIGKILL
    assert started["interrupted"].returncode == 130, said["interrupted"]
    assert "Traceback" not in said["interrupted"]
    command = said["interrupted"].splitlines()[-1].partition("go on with: ")[2]
    assert "epigraph tune --resume interrupted/.runs/interrupted-" in command
    assert "epigraph tune --resume killed/.runs/killed-" in said["killed"]  # said beforehand: a kill leaves no time
    (run,) = work.glob("killed/.runs/*")
    assert cli(*shlex.split(command.partition("epigraph ")[2]), "--json").json["prompt"] == "interrupted@1"
    assert cli("tune", "--resume", run, "--library", "killed", "--json").json["prompt"] == "killed@1"
    prompts = [work / name / name / "1" / "prompt.safetensors" for name in ("killed", "interrupted")]
    assert prompts[0].read_bytes() == prompts[1].read_bytes()


def test_two_writers_to_one_name_give_two_versions(toy: Base, tmp_path: Path) -> None:
    forms: list[AnyForm] = [Embedded(torch.ones(2, toy.hidden))]
    card = Card(name="both", kind="token", place="last", trained_parameters=0, base=facts(toy))
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(4)
    writers = [context.Process(target=write_versions, args=(tmp_path, forms, card, ready)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [w.exitcode for w in writers] == [0] * 4
    library = Library(tmp_path)
    assert [entry.version for entry in library.list()] == list(range(1, 13))
    assert list(library.verify()) == []


def write_versions(root: Path, forms: list[AnyForm], card: Card, ready: Any) -> None:
    ready.wait()
    for _ in range(3):
        Library(root).add("both", forms, card)


def test_a_finished_run_is_not_run_again(cli: Any, make_csv: Any, toy_flags: list[str]) -> None:
    """Resuming a run whose prompt was stored already gave a second, identical version."""
    flags = [*toy_flags, "--epochs", "1", "--budget", "1", "--json"]
    assert cli("tune", make_csv(rows=40), "--name", "once", *flags).code == 0
    (run,) = Path("library/.runs").iterdir()
    again = cli("tune", "--resume", run)
    assert again.code == 2
    assert "is finished: its prompt is once@1" in again.err
    assert [p["prompt"] for p in cli("library", "list", "--json").json["prompts"]] == ["once@1"]
