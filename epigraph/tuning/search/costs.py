"""What a trial costs, from the tokens it computes and the measured speed of one step.

    tokens of an epoch = Σ over rows of (own tokens + vectors of the prompt)       own: what stands behind the first block
    seconds            = epochs · tokens · seconds a token · (1 + validation)

A prompt that stands first leaves nothing frozen: every token of every row is its own.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

from epigraph.engine.engine import own_tokens
from epigraph.prompts import KINDS, Embedded, SoftPrompt
from epigraph.tasks.encode import Encoded
from epigraph.tuning.loop import Loop, Settings, gradients
from epigraph.tuning.objective import Objective
from epigraph.tuning.search.trial import Trial

FORWARD = 1 / 3  # of a step's cost, which goes forward and back
FROZEN_PLACES = ("last", "template")


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of a trial: ``rows`` are all that train, ``held`` how many a validation watches, ``folds`` how often it is tuned.

    ``again`` is what learning from all rows costs afterwards, in units of a trial.
    """

    rows: Sequence[Encoded]
    held: int
    folds: int
    seconds_a_token: float
    frozen: bool
    again: float = 0.0

    def seconds(self, trial: Trial) -> float:
        """From its beginning to its end, by itself."""
        seen = len(self.rows) * max(1, self.folds - 1)
        tokens = sum(self._tokens(trial, row) for row in self.rows) / max(1, len(self.rows))
        settings = trial.loop
        watched = FORWARD * self.held / settings.every
        return settings.epochs * (seen + watched) * tokens * self.seconds_a_token

    def _tokens(self, trial: Trial, row: Encoded) -> int:
        vectors = trial.length if KINDS[trial.kind].start_form is Embedded else 0
        if self.frozen and trial.place in FROZEN_PLACES:
            return own_tokens(row) + vectors
        return row.length + (vectors if trial.place != "first" else 0)


def seconds_a_token(prompt: SoftPrompt, objective: Objective, settings: Settings, tokens: int) -> float:
    """The measured time of one step of this prompt, the second of two, divided by the ``tokens`` an average row computes."""
    timed_step(prompt, objective, settings)
    taken, rows = timed_step(prompt, objective, settings)
    return taken / (rows * max(1, tokens))


def timed_step(prompt: SoftPrompt, objective: Objective, settings: Settings) -> tuple[float, int]:
    """Seconds and rows of the first step of this prompt, which is left as it is."""
    loop = Loop(copy.deepcopy(prompt), objective, settings, lambda _moment: None)
    rows = loop.rows()
    started = time.monotonic()
    gradients([(loop, rows)])
    return time.monotonic() - started, len(rows)
