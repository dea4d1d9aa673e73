"""What the journeys share: a toy base in a folder, the command line in-process, and small data that a toy can learn."""

import csv
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from epigraph.base import Base, load_base
from epigraph.base.toy import toy_base

MARKS = "aZ7kQ"  # what each label's texts are made of: a toy base knows no words, but it can tell letters apart
TOY_SEED = 1  # this random base learns the marks in 6 epochs at rate 0.3; that of seed 0 does not
LEARNS = ["--rate", "0.3", "--epochs", "6", "--batch", "8", "--budget", "1", "--validation", "0.15", "--keep", "soft"]


@dataclass(frozen=True)
class Answer:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object that --json prints."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Answer]
MakeCsv = Callable[..., Path]


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy base (llama, H=32) as save_pretrained writes it, for ``--base``."""
    return save_toy(tmp_path_factory.mktemp("bases") / "toy", seed=TOY_SEED)


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights."""
    return save_toy(tmp_path_factory.mktemp("bases") / "other", seed=TOY_SEED + 1)


@pytest.fixture(scope="session")
def toy(toy_folder: Path) -> Base:
    """The same toy base, loaded."""
    return load_base(toy_folder, dtype="float32")


def save_toy(folder: Path, *, seed: int) -> Path:
    from transformers.utils import logging

    base = toy_base(hidden=32, seed=seed)
    logging.disable_progress_bar()
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run a command in this process, in an empty working folder; ``cli("library", "list", "--json").json``."""
    from epigraph.cli.main import run

    (tmp_path / "work").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("EPIGRAPH_LIBRARY", raising=False)

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return call


@pytest.fixture
def toy_flags(toy_folder: Path) -> list[str]:
    """Flags that choose the toy base, in a precision that does not depend on the machine."""
    return ["--base", str(toy_folder), "--dtype", "float32"]


@pytest.fixture
def learns() -> list[str]:
    """Flags of ``tune`` with which the toy base learns the toy task in 40 steps."""
    return list(LEARNS)


@pytest.fixture
def make_csv(tmp_path: Path) -> MakeCsv:
    """Write a csv file of a seeded, easily separable task: ``make_csv("train.csv", rows=60)``."""

    def make(name: str = "train.csv", *, rows: int = 60, seed: int = 0, labels: Sequence[str] = ("animal", "metal")) -> Path:
        return write_rows(tmp_path / name, draw_rows(rows, seed=seed, labels=labels))

    return make


@pytest.fixture(scope="session")
def toy_rows() -> Callable[..., list[tuple[str, str]]]:
    """The same task as texts and labels: ``toy_rows(60, labels=[…])``."""
    return draw_rows


@pytest.fixture(scope="session")
def write_csv() -> Callable[..., Path]:
    """Write texts and labels: ``write_csv(path, rows)``."""
    return write_rows


def draw_rows(rows: int, *, seed: int = 0, labels: Sequence[str] = ("animal", "metal")) -> list[tuple[str, str]]:
    """Texts of three words, all of their label's mark: "aa a aaaa" is an animal. Labels come in turn."""
    draw = random.Random(seed)
    return [
        (" ".join(MARKS[i % len(labels)] * draw.randint(1, 5) for _ in range(3)), labels[i % len(labels)])
        for i in range(rows)
    ]


def write_rows(path: Path, rows: Sequence[tuple[str, str]], header: tuple[str, str] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(header)
        writer.writerows(rows)
    return path
