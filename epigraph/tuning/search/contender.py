"""A trial in a search: the loops that tune it, one a fold, and what validation shows of all of them together.

    score = Σ_f n_f · score_f / N        loss likewise        error² = Σ_f (n_f · error_f)² / N²        f: folds of n_f rows

Of one split there is one loop, which keeps the prompt of its best validation. Folds are judged by their last prompts: a fold
has too few rows to choose by, and the prompt that learns from all rows afterwards has none at all. How long to train is
there one of the settings that trials differ in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from epigraph.methods.watched import Watched
from epigraph.tuning.loop import Loop
from epigraph.tuning.noise import SURELY, is_near
from epigraph.tuning.search.trial import Trial


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """One trial. ``sizes`` are the rows that each loop is watched on; ``lane`` says which solver it belongs to."""

    number: int
    trial: Trial
    lane: int
    loops: Sequence[Loop]
    sizes: Sequence[int]

    @property
    def watched(self) -> Watched:
        """What validation shows of it so far."""
        state = self.loops[0].state
        if len(self.loops) == 1:
            return Watched(state.best_score, state.best_minus_loss, state.best_error)
        last = [loop.state.history[-1] for loop in self.loops if loop.state.history]
        return self._pooled(last) if len(last) == len(self.loops) else Watched(-math.inf, -math.inf)

    def _pooled(self, each: Sequence[Sequence[float]]) -> Watched:
        shares = [size / sum(self.sizes) for size in self.sizes]
        score = sum(share * found[1] for share, found in zip(shares, each, strict=True))
        minus_loss = sum(share * found[2] for share, found in zip(shares, each, strict=True))
        error = math.sqrt(sum((share * found[3]) ** 2 for share, found in zip(shares, each, strict=True)))
        return Watched(score, minus_loss, error)

    @property
    def best_epoch(self) -> int:
        """For how many epochs a prompt that learns from all rows should train: to the end of its schedule, since late prompts
        have a rate that is spent, unless validation says that the last one is surely worse."""
        first = self.loops[0]
        _, score, minus_loss, error, _ = first.state.history[-1]
        top = Watched(first.state.top_score, 0.0, first.state.top_error)
        ends_well = len(self.loops) > 1 or is_near(Watched(score, minus_loss, error), top, SURELY)
        return self.schedule if ends_well else max(1, round(first.state.best_step / first.steps_an_epoch))

    @property
    def schedule(self) -> int:
        """Over how many epochs the rate of a prompt that learns from all rows is spent: those that this one took, where no gain
        in them stopped it before its time."""
        taken = max(math.ceil(loop.state.step / loop.steps_an_epoch) for loop in self.loops)
        return taken if all(loop.state.stopped for loop in self.loops) else self.trial.loop.epochs

    @property
    def steps(self) -> int:
        """Steps taken."""
        return max(loop.state.step for loop in self.loops)

    def pause_at(self, share: float) -> None:
        """Pause where this share of its epochs is done, at a validation."""
        settings = self.trial.loop
        epochs = settings.every * max(1, math.ceil(share * settings.epochs / settings.every))
        for loop in self.loops:
            loop.pause_after(epochs)

    def drop(self) -> None:
        """Give up."""
        for loop in self.loops:
            loop.drop()
