"""Cells of a comparison on disk: one JSON file for each method, number of rows and seed, so that nothing is run twice.

    name = METHOD-ROWS-SEED-KEY.json        key = hash of (data, base, method, its settings, rows, seed, budget)

A cell that is begun leaves a mark until it is done, and the mark counts how often it was begun. A mark that is found later
tells that the process ended in the middle of the cell: it is tried once more, since whoever killed the process may have meant
no harm to it. Found a second time, the cell is said to have failed (most likely for lack of memory), and the rest goes on.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from epigraph.errors import Corrupt
from epigraph.library.disk import replace_file, storing

DONE, FAILED, UNSUPPORTED = "done", "failed", "cannot run"
FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one method gave for one seed and number of rows. ``predicted`` are its answers to the test rows, in order.

    ``sets`` are the same as lists, where a row may have several labels.
    """

    method: str
    rows: int
    seed: int
    status: str = DONE
    reason: str = ""
    predicted: list[str] = field(default_factory=list)
    sets: list[list[str]] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    forgetting: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether it has scores."""
        return self.status == DONE


def cell_key(facts: Mapping[str, Any]) -> str:
    """The hash of everything that a cell's result depends on."""
    said = json.dumps({"format": FORMAT, **facts}, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


class CellFolder:
    """The cells of one comparison."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with storing("a comparison", folder):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def begun(self) -> bool:
        """Whether anything of it was kept before."""
        return any(self.folder.glob("*.json"))

    def read(self, name: str, key: str) -> dict[str, Any] | None:
        """What was kept under this key; None where nothing was, Corrupt where it is no JSON."""
        path = self._path(name, key)
        if not path.is_file():
            return None
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["content"]
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"{path} is no cell of a comparison: {error}.", "Delete it: it will be run again.") from None
        return found

    def write(self, name: str, key: str, facts: Mapping[str, Any], content: Mapping[str, Any]) -> None:
        """Keep a content whole or not at all, and take its mark away."""
        said = json.dumps({"key": key, "facts": facts, "content": content}, ensure_ascii=False, indent=1)
        with storing("a finished cell", self.folder):
            replace_file(self._path(name, key), said.encode())
        self.unmark(name, key)

    def read_cell(self, name: str, key: str) -> Cell | None:
        """A finished cell that worked; those that did not are tried again."""
        content = self.read(name, key)
        if content is None:
            return None
        try:
            cell = Cell(**content)
        except TypeError as error:
            where = self._path(name, key)
            raise Corrupt(f"{where} is no cell of a comparison: {error}.", "Delete it: it will be run again.") from None
        return cell if cell.done else None

    def write_cell(self, name: str, key: str, facts: Mapping[str, Any], cell: Cell) -> None:
        """Keep a cell."""
        self.write(name, key, facts, asdict(cell))

    def mark(self, name: str, key: str) -> None:
        """Note that a cell is begun, once more if it was before."""
        begun = self.cut_off(name, key) + 1
        with storing("the mark of a cell", self.folder):
            replace_file(self._mark(name, key), str(begun).encode())

    def unmark(self, name: str, key: str) -> None:
        """Take the mark away."""
        self._mark(name, key).unlink(missing_ok=True)

    def cut_off(self, name: str, key: str) -> int:
        """How often in a row a process ended in the middle of this cell."""
        mark = self._mark(name, key)
        if not mark.exists():
            return 0
        said = mark.read_text(encoding="utf-8", errors="replace").strip()
        return int(said) if said.isdecimal() else 1

    def _path(self, name: str, key: str) -> Path:
        safe = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:80]
        return self.folder / f"{safe}-{key}.json"

    def _mark(self, name: str, key: str) -> Path:
        return self._path(name, key).with_suffix(".begun")
