"""Folders that are whole or not there.

    write into a temporary sibling → fsync every file → rename into place → fsync the parent

A rename inside one file system is atomic, so a reader, a second writer or a power cut never meets half a folder. Only a
temporary folder (its name starts with ``.tmp-``) can be left over by a killed writer; it is ignored, and swept up later.
"""

import errno
import os
import secrets
import shutil
import sys
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from epigraph.errors import Corrupt, EpigraphError, NotFound, StorageFailed

if sys.platform != "win32":
    import fcntl

TEMPORARY = ".tmp-"
STALE_SECONDS = 3600.0

_WAY_OUT = {
    errno.ENOSPC: "Free some space on that disk, or choose another folder.",
    errno.EDQUOT: "Free some of your quota, or choose another folder.",
    errno.EROFS: "That disk is read-only: choose another folder.",
    errno.EACCES: "Choose a folder you may write to, or change its permissions.",
    errno.EPERM: "Choose a folder you may write to, or change its permissions.",
}


@contextmanager
def storing(what: str, where: Path) -> Iterator[None]:
    """Turn the operating system's refusals inside the block into StorageFailed, saying what was to be stored where."""
    try:
        yield
    except EpigraphError:
        raise
    except OSError as fault:
        way_out = _WAY_OUT.get(fault.errno or 0, "Check that folder, or choose another one.")
        raise StorageFailed(f"could not store {what} in {where}: {fault.strerror or fault}.", way_out) from fault


@contextmanager
def staged(parent: Path, what: str) -> Iterator[Path]:
    """Give a new temporary folder in ``parent``; it is deleted at the end unless it was renamed away.

    Raises:
        StorageFailed: the disk is full, read-only or not ours.
    """
    with storing(what, parent):
        parent.mkdir(parents=True, exist_ok=True)
        stage = temporary_in(parent)
        stage.mkdir()
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def temporary_in(parent: Path) -> Path:
    """A path in ``parent`` that nobody else has."""
    return parent / f"{TEMPORARY}{secrets.token_hex(8)}"


def is_stale(path: Path) -> bool:
    """Whether ``path`` is temporary and so old that no writer can still be at work on it."""
    with suppress(FileNotFoundError):
        return path.name.startswith(TEMPORARY) and time.time() - path.stat().st_mtime > STALE_SECONDS
    return False


def write_file(path: Path, content: bytes) -> None:
    """Write and fsync one file."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Write one file so that a reader sees the old or the new content, never a part."""
    temporary = temporary_in(path.parent)
    try:
        write_file(temporary, content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, in order of name; nothing where it is not there.

    Raises:
        StorageFailed: it may not be read.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as fault:
        raise StorageFailed(f"could not read {folder}: {fault.strerror}.", "Change its permissions.") from fault


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` outlive a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def publish(stage: Path, folder: Path, ours: Container[str]) -> None:
    """Rename a finished ``stage`` to ``folder``, replacing a folder that holds nothing but files named in ``ours``.

    Raises:
        StorageFailed: something else is there already; it is left alone.
    """
    sync_folder(stage)
    if not os.path.lexists(folder):
        stage.rename(folder)
    else:
        _refuse_foreign(folder, ours)
        old = temporary_in(folder.parent)
        folder.rename(old)
        try:
            stage.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    sync_folder(folder.parent)


def _refuse_foreign(folder: Path, ours: Container[str]) -> None:
    foreign = [path.name for path in folder.iterdir() if path.name not in ours] if folder.is_dir() else [folder.name]
    if foreign:
        raise StorageFailed(
            f"{folder} exists and is no prompt's folder: it holds {foreign[0]!r}.",
            "Choose another folder, or delete it first.",
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one thread or process at a time change the small files in ``folder`` (no lock file; released by the system)."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read_file(folder: Path, name: str) -> bytes:
    """The content of a plain file that lies in ``folder`` itself.

    Raises:
        Corrupt: it is missing, no plain file, or its name or a link leads out of the folder.
        StorageFailed: it may not be read.
    """
    if not is_plain_name(name):
        raise Corrupt(f"{folder} names a file {name!r}, which would lie outside the folder.", _DO_NOT_TRUST)
    path = folder / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise Corrupt(f"{path} is a link that leads out of its folder.", _DO_NOT_TRUST)
    if not os.path.isfile(path):  # noqa: PTH113 - unlike Path's, it answers for any name, as `isdir` below
        raise Corrupt(f"{path} is missing or no plain file.", RESTORE)
    try:
        return path.read_bytes()
    except OSError as fault:
        raise StorageFailed(f"could not read {path}: {fault.strerror}.", "Change its permissions.") from fault


def check_hash(content: bytes, path: Path, expected: str) -> None:
    """Raise Corrupt unless the sha256 of ``content``, read from ``path``, is ``expected``."""
    found = sha256(content).hexdigest()
    if found != expected:
        raise Corrupt(f"{path} was changed: sha256 expected {expected[:12]}…, found {found[:12]}….", RESTORE)


def require_folder(folder: Path, marker: str) -> None:
    """Raise NotFound unless ``folder`` is there and holds the file ``marker``."""
    if not os.path.isdir(folder):  # noqa: PTH112
        raise NotFound(f"there is no folder {folder}.", "Check the path.")
    if not os.path.lexists(folder / marker):
        raise NotFound(f"{folder} holds no {marker}.", "Give the folder of a stored prompt.")


def is_plain_name(name: str) -> bool:
    """Whether ``name`` names a file in a folder and cannot lead out of it, on any system."""
    return bool(name) and name not in {".", ".."} and not any(sign in name for sign in "/\\:\0")


RESTORE = "Copy the folder again from where it came, roll back to another version, or tune it again."
_DO_NOT_TRUST = "Do not use this folder unless you know who made it; get a copy with plain files (cp -rL)."
