"""The store of frozen states: keys and values of texts that no prompt can change, computed once a base and text.

A record holds, for n tokens, keys and values of every layer [L, 2, A, n, D] and the last layer's state at the last token
and its mean [2, H]. A text that goes on from a *lead* (what the template says before every row) holds only the tokens
behind it; the lead is a record of its own, stored once.

Records go to disk as shards, mapped, for every later run and process; what the disk does not take stays in memory up to a
byte budget. Texts that do not come back (a stream to predict) go the other way: memory first. Nothing of it is ever written
beside a prompt.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from epigraph.engine.shards import KEY_BYTES, Key, Shard, ShardFolder, keys_tensor
from epigraph.errors import StorageFailed

CPU = torch.device("cpu")


@dataclass(frozen=True, order=True)
class Text:
    """Token ids, of which the first ``lead`` say the same in every row of the template and are stored once."""

    ids: tuple[int, ...]
    lead: int = 0

    @property
    def rest(self) -> tuple[int, ...]:
        """The tokens behind the lead."""
        return self.ids[self.lead :]

    @property
    def key(self) -> Key:
        """The name of a text in the store: a hash of its token ids and of where its lead ends."""
        return hashlib.blake2b(array("q", (self.lead, *self.ids)).tobytes(), digest_size=KEY_BYTES).digest()

    @property
    def before(self) -> "Text":
        """The lead as a text of its own."""
        return Text(self.ids[: self.lead])


def free_bytes(device: torch.device) -> int:
    """The memory that is free now where a device's tensors lie: a CUDA device's own, else the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def default_budget(device: torch.device = CPU) -> int:
    """Half of the memory that is free now on the device, in bytes."""
    return free_bytes(device) // 2


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
    """The frozen states of one text, those of its lead left out."""

    states: Float[Tensor, "L 2 A n D"]
    summary: Float[Tensor, "2 H"]

    @property
    def tokens(self) -> int:
        """How many tokens the states are of."""
        return self.states.shape[3]


@dataclass(frozen=True)
class _Place:
    flat: Tensor
    start: int
    tokens: int
    summary: Tensor
    shard: str


class FrozenStore:
    """Records by text, kept on disk for later runs and processes; without ``keep``, in memory as long as they fit.

    ``budget`` bounds what is held in memory, ``disk_budget`` what all bases' shards take on disk, in bytes.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        dtype: torch.dtype,
        folder: Path,
        budget: int | None = None,
        disk_budget: int | None = None,
        keep: bool = True,
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.disk = ShardFolder(folder, disk_budget)
        self.budget = default_budget() if budget is None else budget
        self.keep = keep
        self._refused = ""
        self.bytes_in_memory = 0
        self.bytes_on_disk = 0
        self._places: dict[Key, _Place] = {}
        self._in_memory: list[Key] = []
        nothing = torch.zeros(shape.layers, 2, shape.heads, 0, shape.head_size, dtype=dtype)
        self._empty = Record(nothing, torch.zeros(2, shape.hidden))

    def __contains__(self, text: Text) -> bool:
        return not text.ids or text.key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, text: Text) -> Record:
        if not text.ids:
            return self._empty
        place = self._places[text.key]
        s = self.shape
        stretch = place.flat[place.start : place.start + s.numbers(place.tokens)]
        return Record(stretch.view(s.layers, 2, s.heads, place.tokens, s.head_size), place.summary)

    def refresh(self) -> None:
        """Take what other processes, or earlier ones, have written."""
        for shard in self.disk.new():
            if self._fits(shard):
                self._take(shard)
                self.bytes_on_disk += shard.bytes

    def add(self, texts: Sequence[Text], flat: Tensor, summaries: Float[Tensor, "N 2 H"]) -> None:
        """Take the records of ``texts``, one after another in ``flat``."""
        shard = Shard(
            keys=keys_tensor([text.key for text in texts]),
            tokens=torch.tensor([len(text.rest) for text in texts]),
            summaries=summaries,
            states=flat,
        )
        ways = (self._write, self._hold) if self.keep else (self._hold, self._write)
        if not any(way(shard) for way in ways):
            raise StorageFailed(
                f"frozen states exceed the memory budget of {self.budget / 1e9:.1f} GB and could not be written to "
                f"{self.disk.folder}: {self._refused}.",
                "Free disk space, set $EPIGRAPH_HOME to a larger disk, or tune on fewer or shorter rows.",
            )

    def _write(self, shard: Shard) -> bool:
        try:
            written = self.disk.write(shard)
        except (OSError, SafetensorError) as error:  # full, read-only or over its budget
            self._refused = str(error)
            return False
        self._take(written)
        self.bytes_on_disk += shard.bytes
        return True

    def _hold(self, shard: Shard) -> bool:
        if self.bytes_in_memory + shard.bytes > self.budget:
            return False
        self._in_memory += self._take(shard)
        self.bytes_in_memory += shard.bytes
        return True

    def _fits(self, shard: Shard) -> bool:
        counted = sum(self.shape.numbers(n) for n in shard.tokens.tolist())
        return shard.states.dtype == self.dtype and counted == shard.states.numel()

    def _take(self, shard: Shard) -> list[Key]:
        start, taken, name = 0, [], shard.name
        for row, tokens, summary in zip(shard.keys.numpy(), shard.tokens.tolist(), shard.summaries, strict=True):
            key = row.tobytes()
            if key not in self._places:
                self._places[key] = _Place(shard.states, start, tokens, summary, name)
                taken.append(key)
            start += self.shape.numbers(tokens)
        return taken

    def touch(self, texts: Sequence[Text]) -> None:
        """Note that these texts are in use: their shards are the last to make room for others."""
        self.disk.touch({self._places[text.key].shard for text in texts if text.key in self._places})

    def forget(self) -> None:
        """Drop what is held in memory: for streams of rows that do not come back."""
        self._forget(0, 0)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Texts read inside the block do not come back: they are held in memory, and dropped at its end."""
        kept, held, size = self.keep, len(self._in_memory), self.bytes_in_memory
        self.keep = False
        try:
            yield
        finally:
            self.keep = kept
            self._forget(held, size)

    def _forget(self, held: int, size: int) -> None:
        for key in self._in_memory[held:]:
            self._places.pop(key, None)
        del self._in_memory[held:]
        self.bytes_in_memory = size

    def gather(self, texts: Sequence[Text], device: torch.device, *, whole: bool = False) -> Float[Tensor, "L 2 B A T D"]:
        """The states of several texts padded on the right to the longest; ``whole``: those of their leads too."""
        s = self.shape
        rows = [self._pieces(text, whole=whole) for text in texts]
        longest = max(sum(piece.shape[3] for piece in row) for row in rows)
        padded = torch.empty(s.layers, 2, len(rows), s.heads, longest, s.head_size, dtype=self.dtype)
        for b, row in enumerate(rows):
            start = 0
            for piece in row:
                padded[:, :, b, :, start : start + piece.shape[3]] = piece
                start += piece.shape[3]
            padded[:, :, b, :, start:] = 0.0
        return padded.to(device)

    def whole(self, text: Text) -> Float[Tensor, "L 2 A n D"]:
        """The states of a text, those of its lead included."""
        return torch.cat(self._pieces(text, whole=True), 3)

    def _pieces(self, text: Text, *, whole: bool) -> list[Float[Tensor, "L 2 A n D"]]:
        lead = [self[text.before].states] if whole and text.lead else []
        return [*lead, self[text].states]

    def summaries(self, texts: Sequence[Text], device: torch.device) -> Float[Tensor, "B 2 H"]:
        """The last layer's state at each text's last token, and its mean."""
        return torch.stack([self[text].summary for text in texts]).to(device)
