"""The store of frozen states: keys and values of texts that no prompt can change, computed once a base and text.

A record holds, for n tokens, keys and values of every layer [L, 2, A, n, D] and the last layer's state at the last token
and its mean [2, H]. Records of one built batch lie in one flat shard. Shards stay in memory up to a byte budget; beyond
it they are written as safetensors and mapped, so that the system pages them in and out.

Frozen states are private user data: the folder's mode is 0700, keys are hashes of token ids, and nothing of it is ever
written beside a prompt.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from epigraph.errors import StorageFailed

Key = bytes


def text_key(ids: Sequence[int]) -> Key:
    """The name of a text in the store: a hash of its token ids."""
    return hashlib.blake2b(b",".join(b"%d" % i for i in ids), digest_size=16).digest()


EMPTY = text_key(())


def default_budget() -> int:
    """Half of the memory that is free now, in bytes."""
    return int(psutil.virtual_memory().available // 2)


@dataclass(frozen=True)
class Shape:
    """The sizes of a base that a record depends on."""

    layers: int
    heads: int
    head_size: int
    hidden: int

    def numbers(self, tokens: int) -> int:
        """How many numbers the keys and values of a text of ``tokens`` tokens take."""
        return self.layers * 2 * self.heads * tokens * self.head_size


@dataclass(frozen=True)
class Record:
    """The frozen states of one text."""

    states: Float[Tensor, "L 2 A n D"]
    summary: Float[Tensor, "2 H"]


@dataclass(frozen=True)
class _Place:
    flat: Tensor
    start: int
    tokens: int
    summary: Tensor


class FrozenStore:
    """Records by text key, in memory up to ``budget`` bytes and in mapped files under ``folder`` beyond it."""

    def __init__(self, shape: Shape, *, dtype: torch.dtype, folder: Path, budget: int | None = None) -> None:
        self.shape = shape
        self.folder = folder
        self.budget = default_budget() if budget is None else budget
        self.bytes_in_memory = 0
        self.bytes_on_disk = 0
        self._places: dict[Key, _Place] = {}
        self._files: list[Path] = []
        nothing = torch.zeros(shape.layers, 2, shape.heads, 0, shape.head_size, dtype=dtype)
        self._empty = Record(nothing, torch.zeros(2, shape.hidden))

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: Key) -> Record:
        if key == EMPTY:
            return self._empty
        place = self._places[key]
        s = self.shape
        stretch = place.flat[place.start : place.start + s.numbers(place.tokens)]
        return Record(stretch.view(s.layers, 2, s.heads, place.tokens, s.head_size), place.summary)

    def add(self, keys: Sequence[Key], flat: Tensor, tokens: Sequence[int], summaries: Float[Tensor, "N 2 H"]) -> None:
        """Take a shard: the records of ``keys`` one after another in ``flat``."""
        size = flat.numel() * flat.element_size()
        if self.bytes_in_memory + size > self.budget:
            flat = self._spill(flat)
            self.bytes_on_disk += size
        else:
            self.bytes_in_memory += size
        start = 0
        for key, count, summary in zip(keys, tokens, summaries, strict=True):
            self._places.setdefault(key, _Place(flat, start, count, summary))
            start += self.shape.numbers(count)

    def _spill(self, flat: Tensor) -> Tensor:
        file = self.folder / f"shard-{os.getpid()}-{secrets.token_hex(6)}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.chmod(0o700)
            save_file({"states": flat.cpu().contiguous()}, file)
        except Exception as error:  # safetensors raises its own kind for a full disk
            file.unlink(missing_ok=True)
            raise StorageFailed(
                f"frozen states exceed the memory budget of {self.budget / 1e9:.1f} GB and could not be written to "
                f"{self.folder}: {error}.",
                "Free disk space, set $EPIGRAPH_HOME to a larger disk, or tune on fewer or shorter rows.",
            ) from error
        self._files.append(file)
        with safe_open(file, framework="pt") as opened:
            mapped: Tensor = opened.get_tensor("states")
            return mapped

    def forget(self) -> None:
        """Drop everything held, on disk too: for streams of rows that do not come back."""
        self.close()

    def close(self) -> None:
        """Forget everything and remove the files this store wrote."""
        self._places.clear()
        self.bytes_in_memory = self.bytes_on_disk = 0
        for file in self._files:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        self._files.clear()

    def gather(self, keys: Sequence[Key], device: torch.device) -> tuple[Float[Tensor, "L 2 B A T D"], Tensor]:
        """The states of several texts padded on the right to the longest, and their lengths [B]."""
        s = self.shape
        records = [self[key].states for key in keys]
        lengths = [r.shape[3] for r in records]
        padded = torch.empty(s.layers, 2, len(keys), s.heads, max(lengths), s.head_size, dtype=records[0].dtype)
        for b, (states, n) in enumerate(zip(records, lengths, strict=True)):
            padded[:, :, b, :, :n] = states
            padded[:, :, b, :, n:] = 0.0
        return padded.to(device), torch.tensor(lengths, device=device)

    def summaries(self, keys: Sequence[Key], device: torch.device) -> Float[Tensor, "B 2 H"]:
        """The last layer's state at each text's last token, and its mean."""
        return torch.stack([self[key].summary for key in keys]).to(device)
