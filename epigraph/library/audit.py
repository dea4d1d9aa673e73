"""What is wrong in a library: everything that ``Library.verify`` looks at, found without stopping at the first fault.

A temporary folder younger than an hour may belong to a writer at work, and is no problem.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from epigraph.errors import EpigraphError
from epigraph.library.cardfile import CARD, read_card
from epigraph.library.disk import TEMPORARY, check_hash, entries, is_stale, read_file
from epigraph.library.folder import PROMPT, read_forms
from epigraph.library.names import check_name
from epigraph.library.readme import README
from epigraph.library.versions import ALIASES, aliases, half_buried, is_number, versions

_SWEEP = "the next prompt that is added sweeps it up"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One fault: in which prompt ("" where it is the library's own), in which file, and what."""

    reference: str
    file: str
    message: str


def check_everything(root: Path) -> list[Problem]:
    """All faults of a library; none where it is not there."""
    problems = []
    for path in entries(root):
        if path.name.startswith(TEMPORARY):
            problems += _stale(path, "")
        elif not path.name.startswith("."):
            problems += _check_name(path)
    return problems


def check_version(folder: Path, name: str, version: int) -> list[Problem]:
    """All faults of one version."""
    reference = f"{name}@{version}"
    problems: list[Problem] = []

    def attempt(file: str, check: Callable[[], object]) -> bool:
        try:
            check()
        except EpigraphError as fault:
            problems.append(Problem(reference=reference, file=file, message=str(fault)))
            return False
        return True

    if not attempt(CARD, lambda: read_card(folder)):
        return problems
    card = read_card(folder)
    if (card.name, card.version) != (name, version):
        problems.append(Problem(reference=reference, file=CARD, message=f"the card says {card.reference!r}"))
    attempt(PROMPT, lambda: read_forms(folder, card))
    for file, expected in card.files.items():
        if file != PROMPT:
            attempt(file, lambda file=file, expected=expected: check_hash(read_file(folder, file), folder / file, expected))  # type: ignore[misc]
    known = {*card.files, CARD, README}
    strays = [
        Problem(reference=reference, file=p.name, message="stray file") for p in entries(folder) if p.name not in known
    ]
    return problems + strays


def _check_name(home: Path) -> list[Problem]:
    try:
        check_name(home.name)
    except EpigraphError as fault:
        return [Problem(reference="", file=home.name, message=f"stray: {fault}")]
    if not home.is_dir():
        return [Problem(reference="", file=home.name, message="stray file")]
    problems = [problem for version in versions(home) for problem in check_version(home / str(version), home.name, version)]
    for path in entries(home):
        if path.name.startswith(TEMPORARY):
            problems += _stale(path, home.name)
        elif path.name != ALIASES and not is_number(path.name):
            problems.append(Problem(reference=home.name, file=path.name, message="stray file"))
    unfinished = [
        Problem(reference=f"{home.name}@{path.name}", file="", message=f"half removed; {_SWEEP}")
        for path in half_buried(home)
    ]
    return problems + unfinished + _check_aliases(home)


def _check_aliases(home: Path) -> list[Problem]:
    try:
        table = aliases(home)
    except EpigraphError as fault:
        return [Problem(reference=home.name, file=ALIASES, message=str(fault))]
    there = versions(home)
    return [
        Problem(reference=f"{home.name}@{alias}", file=ALIASES, message=f"means version {number}, which is not there")
        for alias, number in table.items()
        if number not in there
    ]


def _stale(path: Path, reference: str) -> list[Problem]:
    if not is_stale(path):
        return []
    return [Problem(reference=reference, file=path.name, message=f"left over by a killed writer; {_SWEEP}")]
