"""Going back to an earlier version, and what two versions' cards say differently.

    routing@3 = routing@1        a name goes back by a new version that equals an earlier one: versions never change or vanish
    routing@prod → routing@1     an alias goes back by meaning the earlier version

Earlier is where a version came from: its parent of the same name, else the number before. A version that went back itself came from
where the one came from that it equals, so that going back twice goes back twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from epigraph.errors import InputError, NotFound
from epigraph.library.card import Card, Lineage
from epigraph.library.names import NEWEST, split_reference
from epigraph.library.store import Library
from epigraph.library.versions import aliases, versions

ROLLED_BACK = "rolled back from"


@dataclass(frozen=True, kw_only=True)
class RolledBack:
    """``prompt`` is what the name or alias means now, equal to ``to``; ``before`` what it meant. ``aliases`` still mean that."""

    prompt: str
    to: str
    before: str
    alias: str = ""
    aliases: Sequence[str] = ()

    @property
    def json(self) -> dict[str, Any]:
        """As a command prints it."""
        found = {"prompt": self.prompt, "to": self.to, "before": self.before, "aliases": list(self.aliases)}
        return found | ({"alias": self.alias} if self.alias else {})


def roll_back(library: Library, reference: str, to: int | None = None) -> RolledBack:
    """Let a name or an alias mean an earlier version, or version ``to``.

    Raises:
        NotFound: there is no such prompt, or nothing before it.
        InputError: a version was given, which never means another.
    """
    name, wanted = split_reference(reference)
    if isinstance(wanted, int):
        raise InputError(
            f"{reference!r} is one version, which never changes.",
            f"Give the name ({name}) or an alias, and with --to the version to go back to.",
        )
    _, now = library.resolve(reference)
    target = library.resolve(f"{name}@{to}")[1] if to is not None else _earlier(library, name, now)
    if target == now:
        raise InputError(f"{reference!r} means version {now} already.", "Give another version with --to.")
    before, there = f"{name}@{now}", f"{name}@{target}"
    if wanted != NEWEST:
        library.promote(name, target, wanted)
        return RolledBack(prompt=there, to=there, before=before, alias=f"{name}@{wanted}")
    stored = library.get(there)
    lineage = Lineage(parents=(there, *stored.card.lineage.parents), how=f"{ROLLED_BACK} {before} to {there}")
    metrics = library.folder(there) / "metrics.jsonl"
    card = library.add(
        name, stored.forms, replace(stored.card, lineage=lineage), metrics if metrics.name in stored.card.files else None
    )
    held = tuple(f"{name}@{alias}" for alias, version in aliases(library.root / name).items() if version == now)
    return RolledBack(prompt=card.reference, to=there, before=before, aliases=held)


def _earlier(library: Library, name: str, version: int) -> int:
    there = versions(library.root / name)
    at, card = version, library.card(f"{name}@{version}")
    while card.lineage.how.startswith(ROLLED_BACK) and (came := _own_parents(card, name, there)):
        at = came[0]
        card = library.card(f"{name}@{at}")
    parents = _own_parents(card, name, there)
    older = parents[:1] or [number for number in there if number < at][-1:]
    if not older:
        raise NotFound(
            f"there is nothing before {name}@{at} to go back to: {name!r} has versions {', '.join(map(str, there))}.",
            "Name a version with --to.",
        )
    return older[0]


def _own_parents(card: Card, name: str, there: Sequence[int]) -> list[int]:
    """The versions of this name that a card says it came from, those that are still there."""
    own = [parent.rpartition("@") for parent in card.lineage.parents]
    return [int(number) for parent, _, number in own if parent == name and number.isdigit() and int(number) in there]


def card_differences(first: Card, second: Card) -> list[tuple[str, Any, Any]]:
    """What two cards say differently, by path ("settings.rate"); None where one does not say it. Hashes are left out."""
    left, right = (asdict(replace(card, files={})) for card in (first, second))
    return list(_differences(left, right, ""))


def _differences(first: Any, second: Any, path: str) -> list[tuple[str, Any, Any]]:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        names = dict.fromkeys([*first, *second])
        return [
            one for name in names for one in _differences(first.get(name), second.get(name), f"{path}.{name}".lstrip("."))
        ]
    if (isinstance(first, tuple) and isinstance(second, list)) or (isinstance(first, list) and isinstance(second, tuple)):
        first, second = list(first), list(second)
    return [] if first == second else [(path, first, second)]
