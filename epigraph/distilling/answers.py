"""A teacher's answers on disk: asked once, kept by teacher, template and text, so that an interrupted distilling goes on.

    $EPIGRAPH_HOME/answers/<sha256 of the teacher's identity>.jsonl        {"key": sha256 of the row's fields, …}

One line an answer, appended as it comes; a line that was cut off by a kill is dropped. Answers that are no numbers are an error, and
not kept: a student learned nothing from them, and its rate was blamed. The files are private: they hold what a
teacher wrote about the user's texts, though not the texts.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epigraph.assets import home
from epigraph.distilling.taught import Taught
from epigraph.distilling.teacher import Teacher
from epigraph.errors import Corrupt, Unsupported
from epigraph.library.disk import storing
from epigraph.tasks.row import Row

PART = "answers"
Stage = Callable[[str, int, int], None]


class Answers:
    """What one teacher said so far."""

    def __init__(self, identity: Mapping[str, Any], folder: Path | None = None) -> None:
        self.file = (folder or home() / PART) / f"{identity_hash(identity)[:32]}.jsonl"
        self.known = self._read()

    def _read(self) -> dict[str, Taught]:
        if not self.file.is_file():
            return {}
        with storing("the teacher's answers", self.file), self.file.open("rb+") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
        try:
            found = [json.loads(line) for line in content[:whole].splitlines() if line.strip()]
            read = {str(one["key"]): Taught.from_dict(one) for one in found}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Corrupt(
                f"the teacher's answers in {self.file} cannot be read: {error}.", "Clear them: epigraph cache clear answers"
            ) from None

        return {key: one for key, one in read.items() if one.finite}

    def add(self, rows: Sequence[Row], taught: Sequence[Taught]) -> None:
        """Keep these answers; StorageFailed if they cannot be written."""
        lines = [json.dumps({"key": row_key(row)} | one.to_dict()) + "\n" for row, one in zip(rows, taught, strict=True)]
        with storing("the teacher's answers", self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(handle, "ab") as out:
                out.write("".join(lines).encode())
        self.known |= {row_key(row): one for row, one in zip(rows, taught, strict=True)}


def identity_hash(identity: Mapping[str, Any]) -> str:
    """sha256 of all that a teacher's answers depend on."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def row_key(row: Row) -> str:
    """What an answer to a row is kept under."""
    return hashlib.sha256(json.dumps(dict(row.fields), sort_keys=True).encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A teacher's answer to every row, and how many different rows it was asked now; the others' answers were kept from before."""

    answers: list[Taught]
    now: int


def ask_all(teacher: Teacher, rows: Sequence[Row], *, stage: Stage, folder: Path | None = None) -> Asked:
    """The teacher's answer to every row; only what is not kept is asked, and kept as it comes.

    Unsupported where an answer holds what is no number.
    """
    kept = Answers(teacher.identity, folder)
    left = list({row_key(row): row for row in rows if row_key(row) not in kept.known}.values())
    said = f"asking {teacher.name}"
    for start in range(0, len(left), teacher.together):
        stage(said, start, len(left))
        some = left[start : start + teacher.together]
        found = teacher.teach(some)
        if not all(one.finite for one in found):
            raise Unsupported(
                f"{teacher.name} gives probabilities that are no numbers (NaN or infinite), from which nothing can be learned.",
                "Try --dtype float32; if that does not help, its weights are damaged.",
            )
        kept.add(some, found)
    if left:
        stage(said, len(left), len(left))
    return Asked(answers=[kept.known[row_key(row)] for row in rows], now=len(left))
