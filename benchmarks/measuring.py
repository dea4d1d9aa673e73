"""What the scripts share: arguments, the base, random texts, runs that are timed, alternation, tables, verdicts, JSON.

Ratios are of medians over rounds. In a round everything that is compared is measured in turn, so that a machine that is
slower for a while is slower for all of it. The first round warms up and is thrown away.

Random texts are random token ids: speed does not depend on what a text says. They go through the house's own solver,
objective and loop; only the tokenizer is left out.
"""

import argparse
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from epigraph.base import Base, load_base
from epigraph.base.toy import toy_base
from epigraph.bench.tuning import data_folder
from epigraph.engine import Engine
from epigraph.methods.solver import PromptedBase
from epigraph.methods.watched import Watched
from epigraph.prompts import KINDS, Form, SoftPrompt
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.loop import Loop, Settings, run_together
from epigraph.tuning.objective import LabelObjective
from epigraph.tuning.start import make_prompt

K = TypeVar("K")
LABELS = ("good", "bad")
LENGTH = 8  # vectors of a prompt: the default for classification
TEMPLATE = "{text}{prompt}:"


# ---- what was asked, and the base --------------------------------------------------------------------------------------


def parser(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """The arguments that every script takes."""
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--quick", action="store_true", help="a toy base and few rows: to try the script, not the machine")
    found.add_argument("--rounds", type=int, default=rounds, help="the medians are over so many")
    found.add_argument("--dtype", default="auto")
    found.add_argument("--out", type=Path, default=Path("results"), help="the folder of the JSON")
    return found


def open_base(asked: argparse.Namespace) -> Base:
    """The embedded base, or a toy one; says what it is."""
    base = toy_base() if asked.quick else load_base(dtype=asked.dtype)
    print(f"{base.name} {base.precision.name}: {base.precision.reason}; {torch.get_num_threads()} threads", flush=True)
    return base


@contextmanager
def fresh_engine(base: Base, *, budget: int | None = None, keep: bool = True) -> Iterator[Engine]:
    """An engine that has read nothing yet; its frozen states go when it is left."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Engine(base, folder=Path(folder), budget=budget, keep=keep)


@contextmanager
def data_set(name: str, *, quick: bool) -> Iterator[Path]:
    """The folder of a set in $EPIGRAPH_DATA; for a quick run one of made-up rows."""
    if not quick:
        yield data_folder() / name
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        rng = random.Random(0)
        for part, rows in (("train", 320), ("test", 4)):
            lines = [{"text": _made_up(rng, i), "label": LABELS[i % 2]} for i in range(rows)]
            Path(folder, f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        yield Path(folder)


def _made_up(rng: random.Random, number: int) -> str:
    return f"{number} " + " ".join(("yes", "no")[number % 2] for _ in range(rng.randint(3, 12)))


# ---- random texts ------------------------------------------------------------------------------------------------------

_seeds = itertools.count()


def random_rows(lengths: Sequence[int]) -> list[Row]:
    """Rows of so many tokens each, never the same twice; ``RandomTexts`` draws their tokens."""
    numbered = [(next(_seeds), n) for n in lengths]
    return [Row(fields={"text": f"{seed} {n}"}, target=LABELS[seed % 2]) for seed, n in numbered]


class RandomTexts(PromptedBase):
    """Reads the text "7 32" as 32 random tokens drawn with seed 7; one token stands behind the prompt."""

    def __init__(self, engine: Engine, *, kind: str = "kv", start: str = "text", seed: int = 0) -> None:
        task = Task.from_rows(["0 1", "1 1"], LABELS, template=TEMPLATE)
        self.prompt = make_prompt(engine, task, kind=kind, length=LENGTH, start=start, seed=seed)
        super().__init__(engine, task, self.prompt.fold())

    def encode(self, rows: Sequence[Row], *, answers: bool = False) -> list[Encoded]:  # noqa: ARG002 (the solver's contract)
        """Random tokens, and the cue."""
        cue = tuple(self.engine.base.tokenize(":")[-1:])
        return [Encoded((self._drawn(*map(int, row.fields["text"].split())), cue)) for row in rows]

    def _drawn(self, seed: int, length: int) -> tuple[int, ...]:
        rng, vocabulary = random.Random(seed), len(self.engine.base.tokenizer)
        return tuple(rng.randrange(vocabulary) for _ in range(length))

    @property
    def computed(self) -> int:
        """Tokens that a step computes for a row: the prompt's where it is vectors, the cue, the label up to its last fork."""
        vectors = sum(form.length for form in self.forms) if self.prompt.kind == "token" else 0
        return vectors + 1 + len(self.tree.trie.spoken(0))


class Unwatched(LabelObjective):
    """Validation costs nothing, and each is better than the one before, so that the last prompt is kept."""

    def __init__(self, solver: PromptedBase, train: Sequence[Row]) -> None:
        super().__init__(solver, train, ())
        self.watched = 0

    def watch(self, forms: Sequence[Form]) -> Watched:  # noqa: ARG002 (the objective's contract)
        """One more than the last time."""
        self.watched += 1
        return Watched(float(self.watched), 0.0)


# ---- runs that are timed -----------------------------------------------------------------------------------------------


def settings(kind: str, *, batch: int, epochs: int, rate: float = 1.0, seed: int = 0) -> Settings:
    """The loop's numbers without an early stop; ``rate`` in units of the kind's default."""
    each = KINDS[kind].default_rate * rate
    return Settings(epochs=epochs, batch=batch, rate=each, warmup=0.1, clip=1.0, patience=epochs + 1, seed=seed)


def timed_steps(prompt: SoftPrompt, objective: LabelObjective, asked: Settings) -> list[float]:
    """Tune; the seconds of every step."""
    ends = [time.perf_counter()]
    Loop(prompt, objective, asked, lambda _moment: ends.append(time.perf_counter())).run()
    return [after - before for before, after in itertools.pairwise(ends)]


def timed_together(loops: Sequence[Loop]) -> float:
    """Tune these side by side; the seconds."""
    started = time.perf_counter()
    run_together(loops)
    return time.perf_counter() - started


def alternate(measures: Mapping[K, Callable[[], float]], rounds: int) -> dict[K, list[float]]:
    """Every measure in turn, ``rounds`` times over after a round to warm up; what each gave."""
    found: dict[K, list[float]] = {key: [] for key in measures}
    for turn in range(rounds + 1):
        for key, measure in measures.items():
            value = measure()
            if turn:
                found[key].append(value)
        print(f"round {turn} of {rounds}" + (" (to warm up)" if not turn else ""), flush=True)
    return found


def medians(found: Mapping[K, Sequence[float]]) -> dict[K, float]:
    """The median of every measure."""
    return {key: statistics.median(values) for key, values in found.items()}


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median over rounds of a round's ratio: a machine's rate changes between rounds, less within one."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


# ---- what comes out ----------------------------------------------------------------------------------------------------


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table; the first row's keys are the columns."""
    lines = [list(rows[0]), *([_cell(row.get(key)) for key in rows[0]] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    print(f"\n{title}")
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print(flush=True)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)


def verdict(what: str, value: float, *, least: float | None = None, most: float | None = None) -> dict[str, Any]:
    """Say whether a target is met; without one, the value is told and nothing is missed."""
    met = (least is None or value >= least) and (most is None or value <= most)
    if least is None and most is None:
        asked, said = "nothing", "told"
    else:
        asked = f"at least {least:g}" if least is not None else f"at most {most:g}"
        said = "met" if met else "MISSED"
    print(f"{what}: {value:.3g}, asked {asked}: {said}", flush=True)
    return {"what": what, "value": value, "asked": asked, "met": met}


def write(asked: argparse.Namespace, base: Base, name: str, found: Mapping[str, Any]) -> None:
    """The figures and what they were measured on, as JSON."""
    machine = {
        "base": base.name,
        "dtype": base.precision.name,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "quick": asked.quick,
        "rounds": asked.rounds,
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    file = asked.out / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.write_text(json.dumps({"machine": machine, **found}, indent=1))
    print(f"written: {file}")
