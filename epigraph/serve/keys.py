"""API keys: a file that holds their sha256 alone, with what each may do.

    [keys.alice]
    sha256 = "…"
    rate = 60                       # requests a minute; left out: no bound
    prompts = ["routing", "faq-*"]  # names, versions or patterns, "base" for the bare base; left out: all
    uploads = true                  # may add prompts; left out: may not
    metrics = true                  # may read /metrics, which counts the requests of all keys; left out: may not

The file is looked at again whenever it changes, so a key is revoked by deleting its lines; without the last of them, or without
the file, nobody is let in. While the file is faulty the keys from before hold, and the log says so. All digests are compared,
each in constant time.
"""

import hmac
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any

import tomli_w

from epigraph.config import read_toml
from epigraph.errors import ConfigError, EpigraphError, NotFound
from epigraph.library.disk import locked, replace_file, storing
from epigraph.library.names import check_name
from epigraph.serve.faults import Refused

PREFIX = "ep-"
MINUTE = 60.0
FIELDS: dict[str, tuple[type, ...]] = {
    "sha256": (str,),
    "rate": (int, float),
    "prompts": (list,),
    "uploads": (bool,),
    "metrics": (bool,),
}
"""What an entry may say, and as what."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """Who asks. ``prompts`` empty: all of them; ``rate`` None: as often as they like."""

    name: str
    digest: str = ""
    rate: float | None = None
    prompts: tuple[str, ...] = ()
    uploads: bool = False
    metrics: bool = False

    def may_use(self, reference: str | None) -> bool:
        """Whether the prompt (None: the bare base) is allowed."""
        asked = "base" if reference is None else reference
        names = {asked, asked.partition("@")[0]}
        return not self.prompts or any(fnmatchcase(name, pattern) for name in names for pattern in self.prompts)

    def check(self, reference: str | None) -> None:
        """Refused (403) where it is not; whether there is such a prompt is not said."""
        if not self.may_use(reference):
            raise Refused(
                403, f"this key may not use {reference or 'the bare base'!r}.", code="model_not_allowed", param="model"
            )


ANYBODY = Key(name="", uploads=True, metrics=True)
"""Who asks where there are no keys: the server is reached from this machine alone."""


class Keyring:
    """The keys of a file, and how often each was used in the last minute. ``tell`` hears of a file that became faulty."""

    def __init__(self, path: Path, tell: Callable[[Exception], object] = lambda _: None) -> None:
        self.path = path
        self._tell = tell
        self._lock = threading.Lock()
        self._stamp = _stamp(path)
        self._keys = read_keys(path)
        self._buckets: dict[str, tuple[float, float]] = {}

    def find(self, authorization: str | None) -> Key:
        """The key that a request shows. Refused (401) if none."""
        scheme, _, token = (authorization or "").partition(" ")
        shown = sha256(token.strip().encode()).hexdigest()
        found = None
        for key in self._current():
            if hmac.compare_digest(shown, key.digest):
                found = key
        if found is not None and scheme.lower() == "bearer":
            return found
        raise Refused(
            401,
            "the API key is not known." if authorization else "no API key was given.",
            "Send the header Authorization: Bearer KEY.",
            code="invalid_api_key",
        )

    def spend(self, key: Key) -> None:
        """Count a request. Refused (429) where the key has had its share: a bucket of ``rate``, or of one, refilled evenly."""
        if key.rate is None:
            return
        now = time.monotonic()
        with self._lock:
            most = max(1.0, key.rate)
            left, before = self._buckets.get(key.name, (most, now))
            left = min(most, left + (now - before) * key.rate / MINUTE)
            self._buckets[key.name] = (left - 1 if left >= 1 else left, now)
        if left < 1:
            wait = (1 - left) * MINUTE / key.rate
            raise Refused(
                429, f"this key may ask {key.rate:g} times a minute.", "Wait.", code="rate_limit_exceeded", retry_after=wait
            )

    def _current(self) -> tuple[Key, ...]:
        with self._lock:
            stamp = _stamp(self.path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._read_again()
            return self._keys

    def _read_again(self) -> None:
        try:
            self._keys = read_keys(self.path, least=0)
        except NotFound:
            self._keys = ()
        except (EpigraphError, OSError) as error:  # half edited: what was valid stays valid
            self._tell(error)


def read_keys(path: Path, *, least: int = 1) -> tuple[Key, ...]:
    """The keys of a file. ConfigError where it is none or holds fewer than ``least``, NotFound where it is not there."""
    table = read_toml(path)
    entries = table.get("keys", {})
    if not isinstance(entries, dict) or len(entries) < least:
        raise ConfigError(f"{path} holds no keys.", f"Make one: epigraph serve --keys {path} --new-key NAME")
    return tuple(_read(path, name, entry) for name, entry in entries.items())


def _read(path: Path, name: str, entry: Any) -> Key:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{path}: keys.{name} is no table.")
    for field, value in entry.items():
        if field not in FIELDS or not isinstance(value, FIELDS[field]) or (field == "rate" and isinstance(value, bool)):
            raise ConfigError(
                f"{path}: keys.{name} has {field}, which is unknown or of another kind.", f"Known are {', '.join(FIELDS)}."
            )
    digest = str(entry.get("sha256", "")).lower()
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ConfigError(f"{path}: keys.{name} has no sha256 of a key.", "--new-key writes one.")
    rate = None if entry.get("rate") is None else float(entry["rate"])
    if rate is not None and not 0 < rate < float("inf"):
        raise ConfigError(f"{path}: keys.{name} has rate = {rate}; it must be a positive number.")
    prompts = tuple(str(one) for one in entry.get("prompts", ()))
    if "prompts" in entry and not prompts:
        raise ConfigError(f"{path}: keys.{name} allows no prompt at all.", "Leave prompts out to allow every one.")
    may = {what: bool(entry.get(what, False)) for what in ("uploads", "metrics")}
    return Key(name=name, digest=digest, rate=rate, prompts=prompts, **may)


def new_key(
    path: Path,
    name: str,
    *,
    rate: float | None = None,
    prompts: tuple[str, ...] = (),
    uploads: bool = False,
    metrics: bool = False,
) -> str:
    """Add a key to the file (made if it is not there, readable by its owner alone) and return it: it is not kept."""
    check_name(name, "key's name")
    token = PREFIX + secrets.token_urlsafe(32)
    entry: dict[str, Any] = {"sha256": sha256(token.encode()).hexdigest()}
    entry |= {"rate": rate} if rate is not None else {}
    entry |= {"prompts": list(prompts)} if prompts else {}
    entry |= {"uploads": True} if uploads else {}
    entry |= {"metrics": True} if metrics else {}
    path = path.expanduser().absolute()
    with storing(f"key {name!r}", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent):
            table = read_toml(path) if path.exists() else {}
            keys = table.setdefault("keys", {})
            if name in keys:
                raise ConfigError(f"{path} has a key {name!r} already.", "Choose another name, or delete its lines first.")
            keys[name] = entry
            _read(path, name, entry)
            replace_file(path, tomli_w.dumps(table).encode())
            path.chmod(0o600)
    return token


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
