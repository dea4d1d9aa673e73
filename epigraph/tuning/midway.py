"""What is told while prompts are tuned: known failures of the trial that leads, once each, while there is time to stop.

    from 2/5 of its steps on:   the learning rate, after every validation        the answers to validation rows, once

Before that the rate still rises and nothing can be told. Trials that do not lead are dropped by the search anyway. What has been
told is saved with the tuning, so that a resumed one does not say it again.
"""

from collections.abc import Callable, Sequence

import torch

from epigraph.methods import PromptedBase, judge
from epigraph.methods.solver import Scorable
from epigraph.tuning.data import Parts
from epigraph.tuning.diagnosis import Training, collapse, rate_failure
from epigraph.tuning.search import Contender, CrossValidated, Halving

FROM = 0.4  # of the steps
MOST_ROWS = 64
RATE, ANSWERS = "rate", "answers"


class Midway:
    """Looks at a search as it goes. ``solver_of`` gives what a trial's prompts are read by; ``told`` what need not be looked at
    again."""

    def __init__(self, parts: Parts, solver_of: Callable[[Contender], PromptedBase], note: Callable[[str], None]) -> None:
        self.parts, self.solver_of, self.note = parts, solver_of, note
        self.told: list[str] = []

    def look(self, search: Halving) -> None:
        """Tell what is wrong with the trial that leads."""
        leader = search.ranked[0]
        loop = leader.loops[0]
        step, ends = loop.state.step, loop.state.stopped or loop.state.step >= loop.steps
        if ends or step < FROM * loop.steps or not loop.state.history:
            return
        where = f"at step {step} of {loop.steps}" + (f" of trial {leader.number}" if len(search.contenders) > 1 else "")
        if RATE not in self.told and (found := rate_failure(Training.of(loop, norm=loop.norm))):
            self._tell(RATE, where, found)
        if ANSWERS not in self.told:
            self._tell(ANSWERS, where, self._collapse(leader))

    def _tell(self, what: str, where: str, found: str) -> None:
        self.told.append(what)
        if found:
            self.note(f"warning: {where}: {found}")

    def _collapse(self, leader: Contender) -> str:
        """Whether the prompts as they are now give one label to all."""
        solver, parts = self.solver_of(leader), self.parts
        if not solver.task.has_labels:
            return ""
        methods = [solver.with_forms(loop.prompt.offer()) for loop in leader.loops]
        rows = [parts.all[place] for fold in parts.folds for place in fold] or list(parts.validation)[:MOST_ROWS]
        method: Scorable = CrossValidated(methods, parts.all, parts.folds) if parts.folds else methods[0]
        with torch.no_grad():
            given: Sequence[judge.Answer] = judge.answer(method, rows).given
        return collapse([str(one) for one in given], [row.target or "" for row in rows])
