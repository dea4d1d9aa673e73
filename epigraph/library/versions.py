"""The versions and aliases of one name: the folder ``root/NAME``.

    NAME/1/ …  NAME/2/ …       whole folders, never changed
    NAME/3/removed             a removed version: its number stays taken, so "routing@3" never comes to mean another prompt
    NAME/aliases.toml          prod = 2

The mark in the removed folder is the counter: it needs no lock, since a rename onto a folder that is not empty fails.
"""

import errno
import re
import shutil
import tomllib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import tomli_w

from epigraph.errors import Corrupt
from epigraph.library.card import Card
from epigraph.library.cardfile import write_card
from epigraph.library.disk import entries, read_file, replace_file, sync_folder, write_file

ALIASES = "aliases.toml"
REMOVED = "removed"


def is_number(name: str) -> bool:
    """Whether a folder's name is a version number."""
    return re.fullmatch(r"[1-9][0-9]{0,8}", name) is not None


def taken(home: Path) -> list[int]:
    """Every number ever given out, removed ones included, in order."""
    return sorted(int(path.name) for path in entries(home) if is_number(path.name))


def versions(home: Path) -> list[int]:
    """The versions that are there, in order."""
    return [number for number in taken(home) if not (home / str(number) / REMOVED).exists()]


def claim(stage: Path, home: Path, card: Card) -> Card:
    """Rename a finished stage to the next free number; where another writer was faster, to the one after."""
    try:
        while True:
            home.mkdir(exist_ok=True)
            numbered = write_card(stage, replace(card, version=max(taken(home), default=0) + 1))
            sync_folder(stage)
            try:
                stage.rename(home / str(numbered.version))
            except OSError as fault:
                home_gone = fault.errno == errno.ENOENT and stage.exists()  # a writer that failed took it away
                if fault.errno not in (errno.EEXIST, errno.ENOTEMPTY) and not home_gone:
                    raise
            else:
                sync_folder(home)
                sync_folder(home.parent)
                return numbered
    finally:
        with suppress(OSError):
            home.rmdir()  # a name without a version is left behind by nobody: this fails where there is one


def bury(folder: Path) -> None:
    """Remove a version's content, mark first: a reader never meets half a prompt, and a killed removal can be finished."""
    write_file(folder / REMOVED, b"")
    for path in entries(folder):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != REMOVED:
            path.unlink(missing_ok=True)  # another writer may be sweeping up
    sync_folder(folder)


def half_buried(home: Path) -> list[Path]:
    """Removed versions that still hold files, since their removal was interrupted."""
    marked = [home / str(number) for number in taken(home) if (home / str(number) / REMOVED).exists()]
    return [folder for folder in marked if len(entries(folder)) > 1]


def aliases(home: Path) -> dict[str, int]:
    """Alias → version.

    Raises:
        Corrupt: the file is not what was written.
    """
    if not (home / ALIASES).exists():
        return {}
    try:
        table = tomllib.loads(read_file(home, ALIASES).decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise Corrupt(
            f"{home / ALIASES} is not readable as TOML: {fault}.", "Write it anew: one line such as prod = 2."
        ) from fault
    if any(type(version) is not int for version in table.values()):
        raise Corrupt(f"{home / ALIASES} maps an alias to something that is no version.", "Each line is such as prod = 2.")
    return table


def write_aliases(home: Path, table: dict[str, int]) -> None:
    """Replace the aliases; hold ``locked(home)`` around reading and writing."""
    replace_file(home / ALIASES, tomli_w.dumps(dict(sorted(table.items()))).encode())
