"""Successive halving: all trials train a little, the better ones go on, the best is trained to the end.

    rung r of R: the trials that are left train to the 2^(r − R)-th part of their epochs; the best n_(r+1) = ⌈n_r / η⌉ go on

η is 2 up to four trials, else 3. Sources: Jamieson & Talwalkar 2016, https://arxiv.org/abs/1502.07943; Li et al. 2018
(Hyperband), https://arxiv.org/abs/1603.06560. Differs: a trial that goes on is continued, not begun anew, and its schedule is
laid out for all its epochs from the start, so that the one that is left ends with its decay; the steps double where the
trials become a third, since early scores of few steps are noise. Trials are ranked by ``noise``: a difference within one
standard error of the score is decided by the loss, one within two for the usual settings. Optuna would add a dependency for a
ranking of at most 32 numbers, and its storage could not be part of our state file: it does not earn its place.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epigraph.tuning.loop import advance
from epigraph.tuning.noise import rank
from epigraph.tuning.search.contender import Contender

MANY = 4
Save = Callable[[], None]


@dataclass(frozen=True)
class Rung:
    """A pause at this ``share`` of the epochs, from which ``kept`` trials go on."""

    share: float
    kept: int


def plan_rungs(trials: int, *, members: int = 1) -> list[Rung]:
    """The rungs before the last stretch, which ``members`` trials go; none where all go to the end."""
    kept, counts = trials, []
    factor = 2 if trials <= MANY else 3
    while kept > members:
        kept = max(members, math.ceil(kept / factor))
        counts.append(kept)
    return [Rung(2.0 ** (number - len(counts)), count) for number, count in enumerate(counts)]


def epochs_of_all(costs: Sequence[float], *, members: int = 1) -> float:
    """What a search costs, where a trial trained to the end costs ``costs``; the dearest are taken to go on."""
    left, done, total = sorted(costs, reverse=True), 0.0, 0.0
    for rung in [*plan_rungs(len(left), members=members), Rung(1.0, 0)]:
        total += (rung.share - done) * sum(left)
        left, done = left[: rung.kept], rung.share
    return total


class Halving:
    """A search over these contenders: ``dropped`` has the numbers of those that left at each rung.

    ``usual`` is the number of the one that is preferred where others are not surely better, None for no such one.
    ``seconds_left`` tells a rung how long the search may still take, None for no limit; ``cost`` how many seconds a contender
    takes from its beginning to its end.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        *,
        members: int,
        usual: int | None = None,
        seconds_left: Callable[[], float] | None = None,
        cost: Callable[[Contender], float] = lambda _contender: 0.0,
        note: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.contenders, self.members, self.usual, self.note = list(contenders), members, usual, note
        self.seconds_left, self.cost = seconds_left, cost
        self.rungs = plan_rungs(len(contenders), members=members)
        self.dropped: list[list[int]] = []
        self.reasons: list[str] = []

    @property
    def notes(self) -> dict[str, Any]:
        """What has been decided, as plain values."""
        return {"dropped": self.dropped, "reasons": self.reasons}

    def restore(self, notes: Mapping[str, Any]) -> None:
        """Go on from what was decided."""
        self.dropped, self.reasons = list(notes.get("dropped", [])), list(notes.get("reasons", []))

    @property
    def alive(self) -> list[Contender]:
        """Those that have not been dropped."""
        gone = {number for rung in self.dropped for number in rung}
        return [contender for contender in self.contenders if contender.number not in gone]

    @property
    def ranked(self) -> list[Contender]:
        """Those that are left, the best first."""
        left = self.alive
        usual = next((place for place, contender in enumerate(left) if contender.number == self.usual), None)
        return [left[i] for i in rank([contender.watched for contender in left], usual=usual)]

    def run(self, save: Save) -> list[Contender]:
        """Train and drop, rung by rung; those that reach the end, the best first. A rung that was decided stays decided."""
        for rung in self.rungs[len(self.dropped) :]:
            self._train(rung.share, save)
            self._decide(rung, save)
        self._train(1.0, save)
        return self.ranked

    def _train(self, share: float, save: Save) -> None:
        for contender in self.alive:
            contender.pause_at(share)
        for lane in sorted({contender.lane for contender in self.alive}):
            advance([loop for contender in self.alive if contender.lane == lane for loop in contender.loops], save)

    def _decide(self, rung: Rung, save: Save) -> None:
        ranked = self.ranked
        kept = ranked[: self._affordable(ranked, rung)]
        gone = [contender for contender in ranked if contender not in kept]
        reason = f"after {rung.share:.0%} of the epochs {len(kept)} of {len(ranked)} went on"
        if kept[0].number == self.usual and any(one.watched > kept[0].watched for one in ranked):
            reason += ", the usual settings first, since none is surely better"
        if len(kept) < rung.kept:
            reason += ", fewer than planned, since time is short"
        self.reasons = [*self.reasons, reason]
        self.dropped = [*self.dropped, [contender.number for contender in gone]]
        for contender in gone:
            contender.drop()
        save()
        self.note(f"search: {reason}; first is trial {kept[0].number}, {kept[0].trial}")

    def _affordable(self, ranked: Sequence[Contender], rung: Rung) -> int:
        """As many as the rung keeps, fewer where the time left does not do for all of them."""
        if self.seconds_left is None:
            return rung.kept
        left, count = self.seconds_left(), 0
        for contender in ranked[: rung.kept]:
            left -= self.cost(contender) * (1 - rung.share)
            count += left >= 0
        return max(self.members, count)
