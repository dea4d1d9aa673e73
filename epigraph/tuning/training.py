"""The search, and after it the prompts that learn from all rows, as one thing that can be stopped and resumed.

state file:  the loops of every trial, the loops that learn from all rows, what the search has decided
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from epigraph.prompts import SoftPrompt
from epigraph.tuning.loop import Loop, advance
from epigraph.tuning.reporter import Reporter
from epigraph.tuning.search import Contender, Halving, Lanes
from epigraph.tuning.state import Saved, load_search, load_states, save_states


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished search: the trials that are ``kept``, the best first, and the loops that made their prompts.

    ``folds`` are, of a cross-validation, the prompts of the best trial's folds.
    """

    search: Halving
    kept: Sequence[Contender]
    loops: Sequence[Loop]

    @property
    def folds(self) -> list[SoftPrompt]:
        """The prompts of the best trial, each of which has not learned from its fold."""
        return [loop.prompt for loop in self.kept[0].loops]

    @property
    def seconds(self) -> float:
        """What all trials took."""
        every = [loop for contender in self.search.contenders for loop in contender.loops]
        again = [loop for loop in self.loops if loop not in every]
        return sum(loop.state.train_seconds for loop in [*every, *again])


def train(search: Halving, lanes: Lanes, reporter: Reporter, state_file: Path | None, *, resume: bool) -> Trained:
    """Run the search to its end, and tune what it chose on all rows where they are used twice."""
    loops = [loop for contender in search.contenders for loop in contender.loops]
    saved = _restore(search, loops, state_file) if resume else []
    refits: list[Loop] = []
    for loop in loops:
        loop.saved = state_file is not None

    def save() -> None:
        if state_file is not None:
            save_states(state_file, [(loop.state, loop.last_good) for loop in [*loops, *refits]], search.notes)

    kept = search.run(save)[: search.members]
    for contender in kept:
        for loop in contender.loops:
            loop.settle()
    if lanes.parts.refit:
        reporter.refitting()
        refits = [lanes.refit(contender, reporter.listener(contender.number, -1)) for contender in kept]
        for loop, state in zip(refits, saved, strict=False):
            loop.resume(*state)
        for loop in refits:
            loop.saved = state_file is not None
            advance([loop], save)
            loop.settle()
    return Trained(search=search, kept=kept, loops=refits or [contender.loops[0] for contender in kept])


def _restore(search: Halving, loops: Sequence[Loop], state_file: Path | None) -> list[Saved]:
    """Bring back what was saved; the states of the loops that learned from all rows, where there were any."""
    if state_file is None or not state_file.exists():
        return []
    saved = load_states(state_file)
    search.restore(load_search(state_file))
    for loop, state in zip(loops, saved, strict=False):
        loop.resume(*state)
    return saved[len(loops) :]
