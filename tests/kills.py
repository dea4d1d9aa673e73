"""Kills tunings, for resume_test.py: one warm process forks a tuning, kills it, lets another fork go on, and reports.

    python tests/kills.py WORK BASE DATA → one JSON object on standard output

The first kills come at random moments, the others at chosen calls of fsync: the last ones are those that store the prompt.
"""

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from epigraph.cli.main import run
from epigraph.library import Library

RANDOM, CHOSEN = 12, 8


def main(work: Path, base: str, data: str) -> None:
    torch.set_num_threads(1)
    tune = ["tune", data, "--name", "killed", "--base", base, "--dtype", "float32", "--epochs", "3", "--batch", "8"]
    tune += ["--rate", "0.3", "--budget", "1", "--validation", "0.15", "--keep", "soft"]
    with contextlib.redirect_stdout(sys.stderr):
        run([*tune, "--library", str(work / "warm")])  # everything is imported, here and so in every fork
    calls = work / "calls"
    in_fork(tune, work / "whole", before=lambda: count_fsyncs(calls))
    started = time.monotonic()
    in_fork(tune, work / "whole")
    seconds = time.monotonic() - started
    syncs = int(calls.read_text())
    draw, library = random.Random(0), work / "killed"
    report = []
    for number in range(RANDOM + CHOSEN):
        if number < RANDOM:
            after = draw.uniform(0.1, 1.0) * seconds
            killed = in_fork(tune, library, kill_after=after)
        else:
            fatal = syncs - (number - RANDOM)
            killed = in_fork(tune, library, before=lambda fatal=fatal: die_at_fsync(fatal))
        report.append(go_on(tune, library) | {"killed": killed == -signal.SIGKILL})
    reference = Library(work / "whole").folder("killed") / "prompt.safetensors"
    prompts = sorted(library.glob("killed/*/prompt.safetensors"))
    print(
        json.dumps(
            {
                "kills": report,
                "problems": [str(p) for p in Library(library).verify()],
                "versions": len(prompts),
                "same": [p.read_bytes() == reference.read_bytes() for p in prompts],
            }
        )
    )


def go_on(tune: list[str], library: Path) -> dict[str, object]:
    """Resume the run that is left, or tune anew where the kill came before there was one."""
    runs = sorted((f for f in library.glob(".runs/*/run.toml")), key=lambda f: f.stat().st_mtime)
    stored = len(list(library.glob("killed/*/card.toml")))
    fresh = [f.parent for f in runs if not (f.parent / "seen").exists()]
    for folder in fresh:
        (folder / "seen").touch()
    resumed = bool(fresh) and (fresh[-1] / "state.safetensors").exists()
    finished = bool(fresh) and (fresh[-1] / "stored").exists()  # the kill came too late
    again = ["tune", "--resume", str(fresh[-1])] if fresh else tune
    code = in_fork(again, library)
    for folder in (f.parent for f in library.glob(".runs/*/run.toml")):
        (folder / "seen").touch()
    return {
        "resumed": resumed,
        "finished": finished,
        "code": code,
        "added": len(list(library.glob("killed/*/card.toml"))) - stored,
    }


def in_fork(
    arguments: list[str], library: Path, *, kill_after: float | None = None, before: Callable[[], None] = lambda: None
) -> int:
    """Run a command in a child; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            silence(library)
            before()
            code = run([*arguments, "--library", str(library)])
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def silence(library: Path) -> None:
    """Keep what a child says in a file beside the library."""
    library.mkdir(parents=True, exist_ok=True)
    said = os.open(library.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)


def count_fsyncs(calls: Path) -> None:
    """Write down how often fsync was called so far."""
    fsync, seen = os.fsync, [0]

    def counted(handle: int) -> None:
        fsync(handle)
        seen[0] += 1
        calls.write_text(str(seen[0]))

    os.fsync = counted


def die_at_fsync(number: int) -> None:
    """Be killed instead of making this call."""
    fsync, seen = os.fsync, [0]

    def deadly(handle: int) -> None:
        seen[0] += 1
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(handle)

    os.fsync = deadly


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
