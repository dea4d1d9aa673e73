"""Names of prompts, and references to their versions: "routing", "routing@3", "routing@prod".

A name is a folder on every system, a word of a URL and of a command line, so little is allowed in it.
"""

import re

from epigraph.errors import NameRefused

NEWEST = "latest"

_RESERVED = {"auto", "default", "base"}
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
_RULE = "A name has 1 to 64 letters (a to z), digits, '-', '_' or '.', and begins with a letter, a digit or '_'."


def check_name(name: str, what: str = "name") -> str:
    """Return ``name`` if a prompt may bear it.

    Raises:
        NameRefused: it may not; the message says by which rule.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", name):
        raise NameRefused(f"the {what} {name!r} cannot be used.", _RULE)
    if ".." in name or name.endswith("."):
        raise NameRefused(f"the {what} {name!r} cannot be used: it has '..' in it or ends in '.'.", _RULE)
    if name.lower() in _RESERVED:
        raise NameRefused(f"the {what} {name!r} is reserved.", f"Not allowed are {', '.join(sorted(_RESERVED))}.")
    if name.lower().split(".")[0] in _DEVICES:
        raise NameRefused(f"the {what} {name!r} is a device on Windows.", "Choose another one.")
    return name


def is_name(name: str) -> bool:
    """Whether ``check_name`` accepts it."""
    try:
        return check_name(name) == name
    except NameRefused:
        return False


def check_alias(alias: str) -> str:
    """Return ``alias`` if a version may be promoted to it: a name that is no number, and not "latest"."""
    check_name(alias, "alias")
    if alias.isdigit() or alias == NEWEST:
        raise NameRefused(
            f"the alias {alias!r} cannot be used: it already means a version.", "Choose a word such as 'prod'."
        )
    return alias


def split_reference(reference: str) -> tuple[str, int | str]:
    """Split a reference into its name and a version number or alias ("latest" where nothing follows the name).

    Raises:
        NameRefused: it is no reference.
    """
    name, at, version = reference.partition("@")
    check_name(name)
    if not at or version == NEWEST:
        return name, NEWEST
    return name, int(version) if re.fullmatch(r"[0-9]{1,9}", version) else check_alias(version)
