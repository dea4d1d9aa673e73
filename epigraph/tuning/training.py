"""The search, and after it the prompts that learn from all rows, as one thing that can be stopped and resumed.

state file:  the loops of every trial, the loops that learn from all rows, what the search has decided, what was told
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from epigraph.prompts import SoftPrompt
from epigraph.tuning.loop import Loop, advance
from epigraph.tuning.midway import Midway
from epigraph.tuning.reporter import Reporter
from epigraph.tuning.search import Contender, Halving, Lanes
from epigraph.tuning.state import Saved, load_search, load_states, save_states

TOLD = "told"
CALMER = (1.0, 0.4, 0.16)
"""The rates, in units of the trial's, at which a prompt learns from all rows until it holds: no validation sees it fail."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished search: the trials that are ``kept``, the best first, and the loops that made their prompts.

    ``again`` are all loops that learned from all rows. ``folds`` are, of a cross-validation, the prompts of the best trial's
    folds.
    """

    search: Halving
    kept: Sequence[Contender]
    loops: Sequence[Loop]
    again: Sequence[Loop] = ()

    @property
    def folds(self) -> list[SoftPrompt]:
        """The prompts of the best trial, each of which has not learned from its fold."""
        return [loop.prompt for loop in self.kept[0].loops]

    @property
    def seconds(self) -> float:
        """What all trials took."""
        every = [loop for contender in self.search.contenders for loop in contender.loops]
        return sum(loop.state.train_seconds for loop in [*every, *self.again])


def train(
    search: Halving,
    lanes: Lanes,
    reporter: Reporter,
    state_file: Path | None,
    *,
    resume: bool,
    midway: Midway | None = None,
    time_left: Callable[[], float] | None = None,
) -> Trained:
    """Run the search to its end, and tune what it chose on all rows where they are used twice.

    ``time_left`` are the seconds that the budget has left, None for no limit.
    """
    loops = [loop for contender in search.contenders for loop in contender.loops]
    saved = iter(_restore(search, loops, state_file, midway) if resume else [])
    refits: list[Loop] = []
    for loop in loops:
        loop.saved = state_file is not None

    def save() -> None:
        if state_file is not None:
            notes = search.notes | {TOLD: [] if midway is None else midway.told}
            save_states(state_file, [(loop.state, loop.last_good) for loop in [*loops, *refits]], notes)

    def look_and_save() -> None:
        try:
            if midway is not None:
                midway.look(search)
        finally:  # an interrupt while it looks loses nothing
            save()

    kept = search.run(look_and_save)[: search.members]
    for contender in kept:
        for loop in contender.loops:
            loop.settle()
    if not lanes.parts.refit:
        return Trained(search=search, kept=kept, loops=[contender.loops[0] for contender in kept])

    def learn(loop: Loop) -> None:
        refits.append(loop)
        loop.saved = state_file is not None
        advance([loop], save)
        loop.settle()

    made = [_learned_again(contender, lanes, reporter, saved, learn, time_left) for contender in kept]
    return Trained(search=search, kept=kept, loops=made, again=refits)


def _learned_again(
    contender: Contender,
    lanes: Lanes,
    reporter: Reporter,
    saved: Iterator[Saved],
    learn: Callable[[Loop], None],
    time_left: Callable[[], float] | None,
) -> Loop:
    """The loop that learns from all rows and holds; the trial's own where none does, or where time is too short for another."""
    took = 0.0
    for calm in CALMER:
        state = next(saved, None)
        if took and state is None and time_left is not None and time_left() < took:
            break
        reporter.refitting()
        loop = lanes.refit(contender, reporter.listener(contender.number, -1), calm=calm)
        if state:
            loop.resume(*state)
        learn(loop)
        took = loop.state.train_seconds
        if lanes.holds(contender, loop):
            return loop
    return contender.loops[0]


def _restore(search: Halving, loops: Sequence[Loop], state_file: Path | None, midway: Midway | None = None) -> list[Saved]:
    """Bring back what was saved; the states of the loops that learned from all rows, where there were any."""
    if state_file is None or not state_file.exists():
        return []
    saved = load_states(state_file)
    notes = load_search(state_file)
    search.restore(notes)
    if midway is not None:
        midway.told = list(notes.get(TOLD, []))
    for loop, state in zip(loops, saved, strict=False):
        loop.resume(*state)
    return saved[len(loops) :]
