"""card.toml: a card as TOML that people can read, sealed with a hash over its content.

    card_sha256 = sha256(JSON of everything else, keys sorted)

The seal covers values, not layout: comments and blank lines may be added by hand; a changed value is noticed.
"""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from enum import Enum
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any, Literal, TypeVar, get_args, get_origin

import tomli_w

from epigraph.errors import Corrupt, DataError
from epigraph.library.card import Card
from epigraph.library.disk import RESTORE, is_plain_name, read_file, require_folder, write_file

CARD = "card.toml"
SEAL = "card_sha256"

T = TypeVar("T")


def write_card(folder: Path, card: Card) -> Card:
    """Write card.toml and return the card as it will be read back."""
    content = _plain(dataclasses.asdict(card), "card")
    text = tomli_w.dumps({**content, SEAL: _seal(content)})
    write_file(folder / CARD, text.encode())
    return _build(Card, content)


def read_card(folder: Path) -> Card:
    """Read card.toml and check its seal; the files it lists are not looked at.

    Raises:
        NotFound: there is no card.
        Corrupt: it is no TOML, lacks something, or was changed.
    """
    require_folder(folder, CARD)
    content = _parse(read_file(folder, CARD), folder / CARD)
    expected = str(content.pop(SEAL, ""))
    found = _seal(content)
    if expected != found:
        raise Corrupt(f"{folder / CARD} was changed: sha256 expected {expected[:12]}…, found {found[:12]}….", RESTORE)
    try:
        card = _build(Card, content)
    except (KeyError, TypeError) as fault:
        raise Corrupt(f"{folder / CARD} is no card of this version of epigraph: {fault.args[0]}.", RESTORE) from fault
    for name in card.files:
        if not is_plain_name(name):
            raise Corrupt(f"{folder / CARD} names a file {name!r}, which would lie outside the folder.", RESTORE)
    return card


def _parse(content: bytes, path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(content.decode())
        _seal(table)  # nested deeper than any card
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as fault:
        raise Corrupt(f"{path} is not readable as TOML: {fault}.", RESTORE) from fault
    return table


def _seal(content: Mapping[str, Any]) -> str:
    # `default` is for dates, which TOML knows and a card never holds
    return sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _plain(value: Any, where: str) -> Any:
    """The value in the types TOML knows; None vanishes from tables and becomes nan in lists."""
    if isinstance(value, Mapping):
        return {_text(str(k), where): _plain(v, f"{where}.{k}") for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [float("nan") if item is None else _plain(item, where) for item in value]
    if isinstance(value, Enum):
        return _plain(value.value, where)
    if isinstance(value, (str, PurePath)):
        return _text(str(value), where)
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)  # numpy's float64 is a float with another repr
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), where)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{where} holds a {type(value).__name__}, which a card cannot hold")


def _text(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise DataError(f"{where} holds a broken character (half of a surrogate pair): {text!a}.", "Remove it.") from fault
    return text


def _build(cls: type[T], table: Mapping[str, Any]) -> T:
    """Make the dataclass ``cls`` from a table; unknown keys are ignored.

    Raises:
        KeyError: a key is missing.
        TypeError: a value has another type.
    """
    values = {}
    for one in dataclasses.fields(cls):  # type: ignore[arg-type]
        if one.name not in table:
            raise KeyError(f"{one.name!r} is missing")
        values[one.name] = _typed(one.name, one.type, table[one.name])
    return cls(**values)


def _typed(name: str, kind: Any, value: Any) -> Any:
    origin = get_origin(kind) or kind
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _build(kind, value)  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(name, get_args(kind)[0], item) for item in value)
    if origin is Literal:
        fits = value in get_args(kind)
    elif origin is Mapping:
        text_only = get_args(kind)[1] is str
        fits = isinstance(value, dict) and not (text_only and any(type(item) is not str for item in value.values()))
    else:
        fits = type(value) is origin
    if not fits:
        raise TypeError(f"{name!r} cannot be {value!r}")
    return value
