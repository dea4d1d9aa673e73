"""The library, live: what a name means is looked up at every request; what was loaded is kept by what lay on disk.

    reference ─ look-up ─► name, version, stamp of the card ─► Served (kept in an LRU bounded by bytes)

So prompts are added, replaced, promoted and removed while serving, by any process, and nothing has to be told. Every method
may be called from any thread; two requests for the same prompt load it once.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime

from epigraph.engine.workers import release_workers
from epigraph.errors import Corrupt, EpigraphError, NotFound
from epigraph.library import Card, Library, StoredPrompt
from epigraph.library.cardfile import CARD
from epigraph.library.versions import aliases
from epigraph.serve.served import Served

Prepare = Callable[[StoredPrompt], Served]
MOST_MOVES = 3
"""How often a name may come to mean another version while it is loaded."""


@dataclass(frozen=True)
class Spot:
    """One version as it lies on disk: another stamp is another prompt."""

    name: str
    version: int
    stamp: tuple[int, int, int]

    @property
    def reference(self) -> str:
        """The version, such as routing@3."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A name that a request may ask for, the version that it means now, and when that was made (seconds since 1970)."""

    id: str
    root: str
    created: int
    card: Card


class Shelf:
    """The prompts of a library, made ready to serve. ``fingerprint`` is the base's: only its prompts are listed."""

    def __init__(self, library: Library, prepare: Prepare, *, fingerprint: str, budget: int) -> None:
        self.library = library
        self.fingerprint = fingerprint
        self.budget = budget
        self.loads = 0
        self._prepare = prepare
        self._held: OrderedDict[Spot, Served] = OrderedDict()
        self._cards: dict[Spot, Card | None] = {}
        self._loading: dict[Spot, Future[Served]] = {}
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of the prompts that are held."""
        with self._lock:
            return sum(served.size for served in self._held.values())

    def get(self, reference: str) -> Served:
        """The prompt that the reference means now.

        Raises:
            NotFound: there is none.
            Corrupt, BaseMismatch: it cannot be served; nobody else's request is touched.
        """
        spot = self.look_up(reference)
        for _ in range(MOST_MOVES):
            try:
                return self._get(spot)
            except (NotFound, Corrupt):  # or it was replaced and taken away since it was looked up
                before, spot = spot, self.look_up(reference)
                if spot == before:
                    raise
        return self._get(spot)

    def _get(self, spot: Spot) -> Served:
        with self._lock:
            if (found := self._taken(spot)) is not None:
                return found
            waiting = self._loading.get(spot)
            if waiting is None:
                mine = self._loading[spot] = Future()
        return waiting.result() if waiting is not None else self._load(spot, mine)

    def held(self, reference: str) -> "Served | Future[Served] | None":
        """The same where it is there, what will give it where somebody loads it already, else None. NotFound if there is none."""
        spot = self.look_up(reference)
        with self._lock:
            return self._taken(spot) or self._loading.get(spot)

    def _taken(self, spot: Spot) -> Served | None:
        found = self._held.get(spot)
        if found is not None:
            self._held.move_to_end(spot)
        return found

    def look_up(self, reference: str) -> Spot:
        """Where the reference points now. NotFound if nowhere."""
        name, version = self.library.resolve(reference)
        return self._spot(name, version)

    def _spot(self, name: str, version: int) -> Spot:
        try:
            found = (self.library.root / name / str(version) / CARD).stat()
        except OSError as error:
            raise NotFound(f"prompt '{name}@{version}' has just been removed.") from error
        return Spot(name, version, (found.st_ino, found.st_mtime_ns, found.st_size))

    def _load(self, spot: Spot, mine: "Future[Served]") -> Served:
        try:
            served = self._prepare(self.library.get(spot.reference))
        except BaseException as error:
            with self._lock:
                del self._loading[spot]
            mine.set_exception(error)
            raise
        finally:
            release_workers()  # else this thread's would slow down every step of the one that computes
        with self._lock:
            self.loads += 1
            self._held[spot] = served
            del self._loading[spot]
            self._shrink()
        mine.set_result(served)
        return served

    def _shrink(self) -> None:
        held = sum(served.size for served in self._held.values())
        while held > self.budget and len(self._held) > 1:
            _, gone = self._held.popitem(last=False)
            held -= gone.size

    def listed(self) -> Iterator[Listed]:
        """Every name and alias of prompts of this base that can be read, in order."""
        for name in self.library.names():
            try:
                newest = self.library.resolve(name)[1]
                table = {name: newest} | {f"{name}@{a}": n for a, n in aliases(self.library.root / name).items()}
            except EpigraphError:  # removed meanwhile, or its aliases are damaged: only this name is not listed
                continue
            for reference, version in table.items():
                if found := self._listed(reference, name, version):
                    yield found

    def listing(self, reference: str) -> Listed:
        """One of them, versions included. NotFound if there is none."""
        spot = self.look_up(reference)
        found = self._listed(reference, spot.name, spot.version)
        if found is None:
            raise NotFound(f"prompt {reference!r} cannot be served here.", "It is damaged, or stands on another base.")
        return found

    def _listed(self, reference: str, name: str, version: int) -> Listed | None:
        try:
            spot = self._spot(name, version)
        except NotFound:
            return None
        card = self._card(spot)
        if card is None or card.base.fingerprint != self.fingerprint or not card.task:  # a universal prompt answers nothing
            return None
        return Listed(id=reference, root=spot.reference, created=_seconds(card), card=card)

    def _card(self, spot: Spot) -> Card | None:
        with self._lock:
            if spot in self._cards:
                return self._cards[spot]
        try:
            card = self.library.card(spot.reference)
        except EpigraphError:
            card = None
        with self._lock:
            if len(self._cards) > 10_000:
                self._cards.clear()
            self._cards[spot] = card
        return card


def _seconds(card: Card) -> int:
    try:
        return int(datetime.fromisoformat(card.created).timestamp())
    except ValueError:
        return 0
