"""The library: a folder of named, versioned, finished prompts that never change.

    root/NAME/VERSION/…    see ``folder``; root/NAME/aliases.toml; see ``versions``

Any number of threads and processes may read and write at once, without a server or a lock: a prompt is written into
``root/.tmp-…`` and renamed to the next free number. A library that is not there yet is an empty one.
"""

import difflib
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from epigraph.errors import Corrupt, EpigraphError, InputError, NotFound
from epigraph.library.card import Card, Lineage
from epigraph.library.cardfile import read_card
from epigraph.library.disk import entries, is_stale, locked, publish, staged, storing, write_file
from epigraph.library.names import NEWEST, check_alias, check_name, is_name, split_reference
from epigraph.library.versions import aliases, bury, claim, half_buried, versions, write_aliases

if TYPE_CHECKING:  # these bring torch, which `epigraph library list` does without
    from epigraph.library.audit import Problem
    from epigraph.library.folder import StoredPrompt
    from epigraph.prompts.form import AnyForm


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One version in a listing; ``card`` is None and ``problem`` says why where the card cannot be read."""

    name: str
    version: int
    card: Card | None
    aliases: tuple[str, ...] = ()
    problem: str = ""


class Library:
    """The prompts under ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser().absolute()

    def add(self, name: str, forms: "Sequence[AnyForm]", card: Card, metrics_file: Path | None = None) -> Card:
        """Store a prompt as the next version of ``name`` and return its card.

        Raises:
            NameRefused: the name cannot be a folder's.
            StorageFailed: the disk is full, read-only or not ours. Nothing is left behind.
        """
        from epigraph.library.folder import fill

        check_name(name)
        card = replace(card, name=name, version=0)
        with staged(self.root, f"prompt {name!r}") as stage, storing(f"prompt {name!r}", self.root):
            filled = fill(stage, forms, card, metrics_file)
            self._sweep(name)
            return claim(stage, self.root / name, filled)

    def get(self, reference: str) -> "StoredPrompt":
        """Read a prompt by "routing" (the newest), "routing@3" or "routing@prod", checking every byte.

        Raises:
            NotFound: there is no such prompt.
            Corrupt: it is damaged.
        """
        from epigraph.library.folder import read_prompt

        return read_prompt(self.folder(reference))

    def card(self, reference: str) -> Card:
        """Read a prompt's card alone: fast, and without torch."""
        return read_card(self.folder(reference))

    def folder(self, reference: str) -> Path:
        """Where a prompt lies."""
        name, version = self.resolve(reference)
        return self.root / name / str(version)

    def resolve(self, reference: str) -> tuple[str, int]:
        """The name and version number that a reference means now.

        Raises:
            NotFound: the message says what there is.
        """
        name, wanted = split_reference(reference)
        home = self.root / name
        named = {} if isinstance(wanted, int) or wanted == NEWEST else aliases(home)
        numbers = versions(home)  # after its aliases, which may mean a version that has only just come
        if not numbers:
            raise self._no_such_name(name)
        if wanted == NEWEST:
            return name, numbers[-1]
        number = wanted if isinstance(wanted, int) else named.get(wanted)
        if number is None or number not in numbers:
            raise _no_such_version(reference, numbers, home)
        return name, number

    def promote(self, name: str, version: int, alias: str) -> None:
        """Let ``alias`` mean ``version`` from now on; a rollback is a promotion of an older version.

        Raises:
            NotFound: there is no such version.
            NameRefused: the alias cannot be one.
        """
        check_alias(alias)
        self.resolve(f"{check_name(name)}@{version}")
        home = self.root / name
        with storing(f"alias {alias!r}", home), locked(home):
            self.resolve(f"{name}@{version}")
            write_aliases(home, {**aliases(home), alias: version})

    def remove(self, reference: str, force: bool = False) -> None:
        """Remove one version ("routing@3"), or all versions of a name ("routing"). Numbers are never given out again.

        Raises:
            NotFound: there is no such prompt.
            InputError: an alias means it, and ``force`` is not set.
        """
        name, version = self.resolve(reference)
        home = self.root / name
        with storing(f"the removal of {reference!r}", home), locked(home):
            doomed = [version] if "@" in reference else versions(home)
            table = aliases(home)
            held = [alias for alias, number in table.items() if number in doomed]
            if held and not force:
                raise InputError(
                    f"{reference!r} is in use as alias {held[0]!r}.", "Promote another version first, or use --force."
                )
            if held:
                write_aliases(home, {alias: number for alias, number in table.items() if alias not in held})
            for number in doomed:
                bury(home / str(number))

    def export(self, reference: str, destination: Path) -> Path:
        """Copy a prompt's folder, after checking every byte, and return where to."""
        from epigraph.library.folder import OURS, read_prompt

        source, destination = self.folder(reference), Path(destination).resolve()
        read_prompt(source)
        with staged(destination.parent, f"prompt {reference!r}") as stage, storing(f"prompt {reference!r}", destination):
            for path in source.iterdir():
                if path.name in OURS and not path.is_symlink():
                    write_file(stage / path.name, path.read_bytes())
            publish(stage, destination, OURS)
        return destination

    def import_folder(self, folder: Path, name: str = "") -> Card:
        """Add a prompt's folder from elsewhere as the next version of ``name`` (as its card says, where not given).

        Raises:
            NotFound: there is no prompt in the folder.
            Corrupt: it is damaged.
        """
        from epigraph.library.folder import METRICS, read_prompt

        folder = Path(folder)
        stored = read_prompt(folder)
        old = stored.card
        how = f"imported from folder {folder.resolve().name!r}" + (
            f"; before that {old.lineage.how}" if old.lineage.how else ""
        )
        card = replace(old, lineage=Lineage(parents=(old.reference, *old.lineage.parents), how=how))
        return self.add(name or old.name, stored.forms, card, folder / METRICS if METRICS in old.files else None)

    def verify(self, reference: str | None = None) -> "Sequence[Problem]":
        """Check one prompt, or everything: hashes, cards, shapes, values, aliases, stray and left-over files."""
        from epigraph.library.audit import check_everything, check_version

        if reference is None:
            return check_everything(self.root)
        name, version = self.resolve(reference)
        return check_version(self.root / name / str(version), name, version)

    def list(self) -> Sequence[Entry]:
        """All versions of all names, oldest first; a broken one is listed with its problem."""
        return [entry for name in self.names() for entry in _entries(self.root / name)]

    def names(self) -> Sequence[str]:
        """The names that have a version, sorted."""
        return [home.name for home in entries(self.root) if is_name(home.name) and versions(home)]

    def _sweep(self, name: str) -> None:
        """Delete what killed writers and removals left behind."""
        home = self.root / name
        with suppress(OSError):  # it is not what the user asked for
            for path in filter(is_stale, entries(self.root)):
                shutil.rmtree(path, ignore_errors=True)
            for path in filter(is_stale, entries(home)):
                path.unlink(missing_ok=True)
            for folder in half_buried(home):
                bury(folder)

    def _no_such_name(self, name: str) -> NotFound:
        names = self.names()
        near = difflib.get_close_matches(name, names, n=1)
        there = f"it holds {', '.join(names)}" if names else "it is empty"
        hint = f"Did you mean {near[0]!r}?" if near else "`epigraph library list` shows what there is."
        return NotFound(f"there is no prompt {name!r} in library {self.root}: {there}.", hint)


def _no_such_version(reference: str, numbers: Sequence[int], home: Path) -> NotFound:
    known = [f"{alias} (={number})" for alias, number in aliases(home).items()]
    wanted = reference.partition("@")[2]
    near = difflib.get_close_matches(wanted, aliases(home), n=1)
    there = f"versions {', '.join(map(str, numbers))}" + (f" and aliases {', '.join(known)}" if known else "")
    hint = f"Did you mean '{home.name}@{near[0]}'?" if near else f"'{home.name}' alone means the newest."
    return NotFound(f"there is no {reference!r}: {home.name!r} has {there}.", hint)


def _entries(home: Path) -> list[Entry]:
    try:
        table, fault = aliases(home), ""
    except Corrupt as corrupt:
        table, fault = {}, str(corrupt)
    return [_entry(home, version, table, fault) for version in versions(home)]


def _entry(home: Path, version: int, table: dict[str, int], fault: str) -> Entry:
    own = tuple(sorted(alias for alias, number in table.items() if number == version))
    try:
        card = read_card(home / str(version))
    except EpigraphError as broken:
        return Entry(name=home.name, version=version, card=None, aliases=own, problem=str(broken))
    if (card.name, card.version) != (home.name, version):
        fault = f"its card says {card.reference!r}"
    return Entry(name=home.name, version=version, card=card, aliases=own, problem=fault)
