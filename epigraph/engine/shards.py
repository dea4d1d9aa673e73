"""Frozen states on disk: one safetensors file for the texts of one built batch, written whole and never changed.

    keys [N, 16]   tokens [N]   summaries [N, 2, H]   states: the records one after another, flat

A file is named by the keys in it, so two processes that build the same texts at once write the same file twice, and either
is good. Files are mapped, not read: the system pages them in and out, and processes share the pages.

Frozen states are private user data: the folder's mode is 0700 and keys are hashes of token ids. Beyond a byte budget the
files that were not used for longest go first; whoever has one mapped keeps it until it ends.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

KEY_BYTES = 16
SUFFIX, PARTIAL = ".safetensors", ".partial-"
STALE_SECONDS = 3600.0
MOST_BYTES = 64 << 30
Key = bytes


@dataclass(frozen=True)
class Shard:
    """The records of one built batch: for each its key, its tokens and summary."""

    keys: UInt8[Tensor, "N 16"]
    tokens: Int[Tensor, "N"]
    summaries: Float[Tensor, "N 2 H"]
    states: Tensor

    @property
    def name(self) -> str:
        """What its file is called."""
        return hashlib.blake2b(self.keys.numpy().tobytes(), digest_size=KEY_BYTES).hexdigest() + SUFFIX

    @property
    def bytes(self) -> int:
        """The size of the states."""
        return self.states.numel() * self.states.element_size()


def keys_tensor(keys: Sequence[Key]) -> UInt8[Tensor, "N 16"]:
    """Keys as the rows of a tensor."""
    return torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(-1, KEY_BYTES)


class ShardFolder:
    """The shards of one base and dtype; ``budget`` bounds the bytes under its parent, where all bases' folders lie."""

    def __init__(self, folder: Path, budget: int | None = None) -> None:
        self.folder = folder
        self._budget = budget
        self._seen: set[str] = set()
        self._used: set[str] = set()

    def new(self) -> Iterator[Shard]:
        """The shards that were not there at the last call, mapped; damaged ones are removed."""
        if not self.folder.is_dir():
            return
        for file in sorted(self.folder.iterdir()):
            if PARTIAL in file.name:
                self._remove_stale(file)
            elif file.suffix == SUFFIX and file.name not in self._seen:
                self._seen.add(file.name)
                try:
                    yield _mapped(file)
                except OSError:  # gone meanwhile, or not to be opened now, which says nothing about what is in it
                    continue
                except (SafetensorError, KeyError):
                    file.unlink(missing_ok=True)

    def write(self, shard: Shard) -> Shard:
        """Put a shard on disk and give it back mapped. OSError or SafetensorError if the disk does not take it."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.parent.chmod(0o700)
        self.folder.chmod(0o700)
        self._make_room(shard.bytes)
        name = shard.name
        partial = self.folder / f"{PARTIAL}{os.getpid()}-{secrets.token_hex(6)}"
        try:
            save_file({part: getattr(shard, part).contiguous() for part in Shard.__dataclass_fields__}, partial)
            partial.replace(self.folder / name)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        self._seen.add(name)
        self._used.add(name)
        return _mapped(self.folder / name)

    @property
    def budget(self) -> int:
        """Bytes that all folders of frozen states may take: half of the free disk, at most 64 GB, unless it was given."""
        if self._budget is None:
            self._budget = min(MOST_BYTES, (shutil.disk_usage(self.folder).free + _bytes(self.folder.parent)) // 2)
        return self._budget

    def touch(self, names: Collection[str]) -> None:
        """Note that these shards are in use now, so that others go first."""
        for name in set(names) - self._used:
            with contextlib.suppress(OSError):
                os.utime(self.folder / name)
        self._used.update(names)

    def _make_room(self, size: int) -> None:
        files = list(_sizes(self.folder.parent))
        taken = sum(each for _, each, _ in files)
        if taken + size <= self.budget:
            return
        for _, each, file in sorted(files, key=lambda f: f[0]):
            if file.name in self._used:
                continue
            file.unlink(missing_ok=True)
            taken -= each
            if taken + size <= self.budget:
                return
        raise OSError(f"the budget of {self.budget / 1e9:.1f} GB for frozen states is used up")

    @staticmethod
    def _remove_stale(file: Path) -> None:
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > STALE_SECONDS:
                file.unlink()


def _sizes(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each shard was last used and how large it is; those that another process removes meanwhile are left out."""
    for file in folder.rglob("*" + SUFFIX):
        with contextlib.suppress(FileNotFoundError):
            found = file.stat()
            yield found.st_mtime, found.st_size, file


def _mapped(file: Path) -> Shard:
    with safe_open(file, framework="pt") as opened:
        return Shard(**{part: opened.get_tensor(part) for part in Shard.__dataclass_fields__})


def _bytes(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*" + SUFFIX))
