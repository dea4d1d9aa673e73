"""What a step computes, and who gets room: sequences that are generated first, then inputs that are read, in turns.

A step takes one token of every sequence that is being generated and, within ``step_tokens``, parts of inputs: half of it for
rows of classifications where both wait, and more of these (``label_tokens``) where nothing is generated. Each input gets a turn
of at most 64 tokens before any gets a second one, and the first turn goes round. A sequence that outgrows its slot while there is
no room takes that of the youngest, which is read again later; so the oldest always goes on, and what was admitted always ends.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from epigraph.engine.decoding import ConcatenatingDecoder, Part, ShelfDecoder
from epigraph.engine.shelves import Shelves
from epigraph.serve.beginnings import Beginning
from epigraph.serve.cache import Cache
from epigraph.serve.generating import Choice
from epigraph.serve.labelling import Labelling, LabelRow
from epigraph.serve.work import BatcherSettings

TURN = 64  # tokens
AHEAD = 128  # positions beyond its length that a sequence gets room for
Reader = Choice | LabelRow
Planned = tuple[Reader, Part]


class Schedule:
    """Everything that waits, is read or is generated."""

    def __init__(
        self,
        decoder: ShelfDecoder | ConcatenatingDecoder,
        settings: BatcherSettings,
        rooms: tuple[Shelves, Shelves],
        kept: Callable[[Beginning], Cache[Any]],
    ) -> None:
        self.decoder = decoder
        self.settings = settings
        self.generating_room, self.labelling_room = rooms
        self.kept = kept
        self.waiting: deque[Choice] = deque()
        self.running: list[Choice] = []
        self.labellings: deque[Labelling] = deque()
        self.reading: list[LabelRow] = []
        self.preempted = 0
        self.reused = 0
        self._round = 0

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self.waiting or self.running or self.labellings or self.reading)

    # ---- room --------------------------------------------------------------------------------------------------------

    def admit(self, choice: Choice) -> bool:
        """Let a choice run, if there is room."""
        positions = min(choice.most, len(choice.row.ids) + AHEAD)
        if len(self.running) >= self.settings.max_rows or not self.decoder.open(choice.row, self.generating_room, positions):
            return False
        self.running.append(choice)
        choice.request.begun = True
        return True

    def leave(self, reader: Reader) -> None:
        """Free what a sequence or row holds."""
        if isinstance(reader, Choice):
            self.decoder.close(reader.row, self.generating_room)
            if reader in self.running:
                self.running.remove(reader)
        else:
            self.decoder.close(reader.row, self.labelling_room)
            if reader in self.reading:
                self.reading.remove(reader)

    def choices(self) -> list[Choice]:
        """All choices that are not done, those that wait for another's input included."""
        return [each for choice in (*self.waiting, *self.running) for each in (choice, *choice.siblings)]

    def jobs(self) -> list[Labelling]:
        """All classifications that are not done."""
        return list(dict.fromkeys([*self.labellings, *(row.labelling for row in self.reading)]))

    def drop(self) -> None:
        """Free what choices and rows hold that are over."""
        for choice in [c for c in self.running if c.over]:
            self.leave(choice)
        for row in [r for r in self.reading if r.request.over]:
            self.leave(row)
        self.waiting = deque(c for c in self.waiting if not c.over)
        self.labellings = deque(job for job in self.labellings if job.waiting)

    def _grow(self, choice: Choice) -> None:
        """Make sure that the next token has a column; somebody, perhaps the choice itself, may lose its slot for it."""
        row, decoder = choice.row, self.decoder
        if row.place is None or len(row.ids) <= row.place.positions or isinstance(decoder, ConcatenatingDecoder):
            return
        positions = min(choice.most, len(row.ids) + AHEAD)
        while not decoder.move(row, self.generating_room, positions):
            victim = max(self.running, key=lambda c: c.order)
            if victim.order < choice.order or len(self.running) == 1:
                victim = choice
            self._preempt(victim)
            if victim is choice:
                return

    def _preempt(self, choice: Choice) -> None:
        self.leave(choice)
        self.waiting.appendleft(choice)
        self.preempted += 1

    # ---- a step ------------------------------------------------------------------------------------------------------

    def plan(self) -> list[Planned]:
        """What to compute now."""
        self._round += 1
        for choice in [c for c in self.running if c.generating]:
            if choice in self.running:
                self._grow(choice)
        planned: list[Planned] = [(c, Part(c.row, c.row.next(1))) for c in self.running if c.generating]
        tokens = self.settings.step_tokens if self.running or self.waiting else self.settings.label_tokens
        budget = max(tokens - len(planned), min(tokens, TURN))
        claims: set[bytes] = set()
        choices, rows = self._choices(), self._rows()
        both = bool(self.reading or self.labellings) and bool(self.waiting or len(planned) < len(self.running))
        given, left = self._share(rows, budget // 2 if both else budget, claims)
        more, left = self._share(choices, left + (budget - budget // 2 if both else 0), claims)
        again, _ = self._share(rows, left, claims)
        return [*planned, *given, *more, *again]

    def _choices(self) -> Iterator[Reader]:
        """Choices whose input is being read, then those that wait, as long as there is room."""
        yield from self._turned([c for c in self.running if not c.generating])
        while self.waiting and self.admit(self.waiting[0]):
            yield self.waiting.popleft()

    def _rows(self) -> Iterator[Reader]:
        """Rows that are being read, then the next of every classification in turn, as long as there is room."""
        yield from self._turned(list(self.reading))
        while self.decoder.keeps and self.labellings and len(self.reading) < self.settings.label_tokens:
            job = self.labellings[0]
            row = job.waiting[0]
            if not self.decoder.open(row.row, self.labelling_room, row.most):
                return
            job.waiting.popleft()
            job.request.begun = True
            self.labellings.rotate(-1)
            if not job.waiting:
                self.labellings.remove(job)
            self.reading.append(row)
            yield row

    def _turned(self, readers: Sequence[Reader]) -> list[Reader]:
        at = self._round % len(readers) if readers else 0
        return [*readers[at:], *readers[:at]]

    def _share(self, readers: Iterator[Reader], budget: int, claims: set[bytes]) -> tuple[list[Planned], int]:
        """Turns for as many readers as the budget has, then the rest of it for the first; what is left of it."""
        turns: list[tuple[Reader, Sequence[int]]] = []
        while budget > 0 and (reader := next(readers, None)) is not None:
            elements = self._turn(reader, min(TURN, budget), claims)
            if elements:
                turns.append((reader, elements))
                budget -= len(elements)
        planned: list[Planned] = []
        for reader, elements in turns:
            if budget > 0 and self.decoder.keeps:
                longer = reader.beginning.cut(reader.row.next(len(elements) + budget))
                longer = longer if len(longer) > len(elements) else elements
                claims |= {key for _, _, key in reader.beginning.computed(longer)}
                budget -= len(longer) - len(elements)
                elements = longer
            planned.append((reader, Part(reader.row, elements)))
        return planned, budget

    def _turn(self, reader: Reader, most: int, claims: set[bytes]) -> Sequence[int]:
        """The next elements of a reader; none if another row computes the same beginning in this step."""
        row, decoder, beginning = reader.row, self.decoder, reader.beginning
        if isinstance(decoder, ConcatenatingDecoder):
            return row.next(len(row.ids))
        kept = self.kept(beginning)
        reused = beginning.restore(decoder, kept)
        reader.reused += 0 if beginning.is_prompt else reused
        self.reused += reused
        if kept.budget and beginning.is_claimed(claims):
            return ()
        elements = beginning.cut(row.next(most))
        claims |= {key for _, _, key in beginning.computed(elements)}
        return elements
