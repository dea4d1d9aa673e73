"""The demo: critics' short sentences, fresh or rotten; tune, compare, store, load in a new process, predict.

1,000 rows → prompt     1,000 other rows → scores of prompt, zero-shot, best of three few-shot     3 more → predictions
"""

import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from epigraph.assets import demo_rows
from epigraph.base import load_base
from epigraph.config import TuneConfig
from epigraph.engine import Engine
from epigraph.evaluation import Scores, evaluate
from epigraph.library import Card, Library
from epigraph.methods import best_few_shot
from epigraph.tasks.row import Row
from epigraph.tasks.split import head
from epigraph.tasks.task import Task
from epigraph.tuning import Surroundings, TuneResult, tune

NAME = "demo-critics"
INSTRUCTION = "Fresh or rotten?"  # as one would write it by hand
ROWS, NEW = 1000, 3
LONGEST = 60  # characters: short sentences, so that three passes over them take a minute on two cores
SHORT = TuneConfig(epochs=2, batch=32, budget="1", validation=0.15, readings=1)  # rows used once, read once: soon over
Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo shows."""

    card: Card
    tuned: TuneResult
    few_shot: Scores | None
    few_shot_name: str
    predictions: list[dict[str, Any]]
    set_up_seconds: float
    """Fetching and verifying the base and the data, preparing the base, loading it."""
    seconds: float
    """All after that."""
    folder: Path

    @property
    def json(self) -> dict[str, Any]:
        """The contract's object of ``tune``, the few-shot scores and predictions beside it."""
        return self.tuned.json | {
            "prompt": self.card.reference,
            "few_shot": None if self.few_shot is None else self.few_shot.json | {"method": self.few_shot_name},
            "predictions": self.predictions,
            "set_up_seconds": round(self.set_up_seconds, 1),
            "demo_seconds": round(self.seconds, 1),
        }


def run_demo(library: Path, *, note: Note, around: Surroundings, rows: int = ROWS) -> DemoResult:
    """Run the whole demo and leave its CSV files and prompt in ``library``'s folder."""
    started = time.monotonic()
    train_file, test_file, new = _write_files(library.parent / "demo-data", rows, note)
    task = replace(Task.from_file(train_file, test=test_file), instruction=INSTRUCTION, instruction_generated=False)
    base = load_base(note=note)
    note(f"{base.name} in {base.precision.name}: {base.precision.reason}")
    engine = Engine(base)
    ready = time.monotonic()
    tuned = tune(base, task, SHORT, name=NAME, engine=engine, around=around)
    few, few_name = _few_shot(engine, tuned, task, note)
    stored = tuned.prompt.stored
    card = Library(library).add(NAME, stored.forms, stored.card, tuned.prompt.metrics_file)
    note(f"stored {card.reference}; loading it again in a new process")
    predictions = _predict_elsewhere(card.reference, [row.fields["text"] for row in new], library)
    return DemoResult(
        card=card,
        tuned=tuned,
        few_shot=few,
        few_shot_name=few_name,
        predictions=predictions,
        set_up_seconds=ready - started,
        seconds=time.monotonic() - ready,
        folder=train_file.parent,
    )


def _write_files(folder: Path, rows: int, note: Note) -> tuple[Path, Path, list[Row]]:
    """Two CSV files as a user would bring them, and three more sentences."""
    pairs = demo_rows(note=note)
    short = [Row(fields={"text": text}, target=label) for text, label in pairs if len(text) <= LONGEST]
    every = head(short, 2 * rows + NEW, seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "train.csv", folder / "test.csv"
    for path, part in zip(files, (every[:rows], every[rows : 2 * rows]), strict=True):
        with path.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(["text", "label"])
            writer.writerows([row.fields["text"], row.target] for row in part)
    return *files, every[2 * rows :]


def _few_shot(engine: Engine, tuned: TuneResult, task: Task, note: Note) -> tuple[Scores | None, str]:
    note("scoring few-shot hard prompts")
    output_tokens = tuned.model.method.output_tokens
    rows = task.train.rows
    chosen = best_few_shot(engine, task, rows[32:], rows[:32], output_tokens)
    if chosen is None or task.test is None:
        return None, ""
    return evaluate(chosen.method, task.test.rows, split="test"), chosen.name


def _predict_elsewhere(reference: str, texts: list[str], library: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "epigraph", "predict", reference, *texts, "--library", str(library), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)  # noqa: S603 (our own command)
    return [json.loads(line) for line in done.stdout.splitlines()]
