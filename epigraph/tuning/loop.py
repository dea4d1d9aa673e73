"""The loop: steps over shuffled batches, validation every epoch or few, the best prompt kept, early stop, roll-back, resume.

    θ ← θ − AdamW(∇ loss(batch))        keep θ by ``noise``; stop after ``patience`` validations without a gain in score or loss

A loss that is not finite takes the tuning back to its last validation with half the rate. The state before any step can be
saved; continued from it, the tuning ends in the same prompt bit for bit (same machine, versions and threads).
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from epigraph.errors import Diverged
from epigraph.methods.watched import Watched
from epigraph.metrics import upward
from epigraph.prompts import AnyForm, SoftPrompt
from epigraph.tuning.noise import is_near
from epigraph.tuning.objective import Objective
from epigraph.tuning.optimiser import Optimiser
from epigraph.tuning.order import epoch_batches
from epigraph.tuning.state import State, save_states

MOST_ROLLBACKS = 5
SAVE_EVERY_SECONDS = 5.0
SAVES_SHARE = 0.05  # of the time, where states are many and large


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The loop's numbers, all chosen. ``every`` epochs there is a validation, and after the last."""

    epochs: int
    batch: int
    rate: float
    warmup: float
    clip: float
    patience: int
    seed: int
    every: int = 1


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What a listener is told after every step; ``score`` is there after a validation."""

    step: int
    steps: int
    epoch: int
    loss: float
    rate: float
    metric: str
    score: float | None = None
    best: float | None = None
    note: str = ""
    trial: int = 0
    fold: int = 0


Listener = Callable[[Moment], None]
Watch = Callable[[Sequence[AnyForm]], Watched]


class Loop:
    """One tuning.

    ``rows`` are those of the objective's training rows that it learns from, by default all. ``watch`` is what shows how good
    a prompt is, by default the objective's; a ``blind`` tuning has no validation and keeps its last prompt. ``bound`` is the
    step before which it pauses.
    """

    def __init__(
        self,
        prompt: SoftPrompt,
        objective: Objective,
        settings: Settings,
        listener: Listener,
        *,
        rows: Sequence[int] | None = None,
        watch: Watch | None = None,
        blind: bool = False,
    ) -> None:
        self.prompt, self.objective, self.settings, self.listener = prompt, objective, settings, listener
        self.own = list(range(len(objective.lengths))) if rows is None else list(rows)
        self.watch, self.blind = watch, blind
        self.steps_an_epoch = math.ceil(len(self.own) / settings.batch)
        self.steps = self.bound = self.steps_an_epoch * settings.epochs
        self.optimiser = Optimiser(prompt, rate=settings.rate, steps=self.steps, warmup=settings.warmup, clip=settings.clip)
        self.state = State(0, _parameters(prompt))
        self.start_norm = self.last_norm = self.norm
        self.last_good = self.state.copy()
        self.saved = False  # whether every step is kept for a save, or validations only

    @property
    def norm(self) -> float:
        """The norm of the trained parameters, which are in units of the start's rms."""
        return math.sqrt(sum(float(p.detach().pow(2).sum()) for p in self.optimiser.parameters))

    def resume(self, state: State, last_good: State) -> None:
        """Go on from a saved state."""
        self._return_to(state)
        self.last_good = last_good

    def run(self, state_file: Path | None = None) -> State:
        """Tune to the end and leave the best parameters in the prompt. On Ctrl-C the state is saved first."""
        run_together([self], state_file)
        return self.state

    @property
    def done(self) -> bool:
        """Whether the last step before the bound is taken or no gain was seen for long enough."""
        return self.state.step >= self.bound or self.state.stopped

    def pause_after(self, epochs: int) -> None:
        """Pause after so many epochs; all of them: never."""
        self.bound = min(self.steps, epochs * self.steps_an_epoch)

    def settle(self) -> None:
        """Leave the parameters that are kept in the prompt; the norm of the last ones is noted."""
        self.prompt.load_state_dict(self.state.current)
        self.last_norm = self.norm
        self.prompt.load_state_dict(self.state.best or self.state.current)

    def drop(self) -> None:
        """Give up: what validation showed stays, the parameters go."""
        for state in (self.state, self.last_good):
            state.current, state.moments, state.best = {}, {}, {}

    def rows(self) -> list[int]:
        """The training rows of the next step."""
        epoch, at = divmod(self.state.step, self.steps_an_epoch)
        settings = self.settings
        lengths = [self.objective.lengths[i] for i in self.own]
        batch = epoch_batches(lengths, batch=settings.batch, seed=settings.seed, epoch=epoch)[at]
        return [self.own[i] for i in batch]

    def finish_step(self, value: float, spent: float) -> bool:
        """Update the prompt from its gradients, which a loss of ``value`` left and which took ``spent`` seconds; whether the step
        ended in a validation."""
        started, state = time.monotonic(), self.state
        norm = self.optimiser.step(state.step) if math.isfinite(value) else value
        if not math.isfinite(norm):
            self._roll_back(norm)
            return False
        self.prompt.after_step()
        after = State(**{**state.__dict__, "step": state.step + 1, "loss_sum": state.loss_sum + value})
        validates = after.step % (self.steps_an_epoch * self.settings.every) == 0 or after.step == self.steps
        if validates or self.saved:
            after.current, after.moments = _parameters(self.prompt), self.optimiser.state()
        watched = self._watch(after) if validates and not self.blind else None
        after.train_seconds += spent + time.monotonic() - started
        if watched is not None:
            self.last_good = after.copy()
        self.state = after  # from here on a save holds this step
        self._tell(value, watched)
        return validates

    def _watch(self, state: State) -> Watched:
        with torch.no_grad():
            watched = (self.watch or self.objective.watch)(self.prompt.offer())
        gained = watched.score > state.top_score or watched.minus_loss > state.top_minus_loss
        if watched.score > state.top_score:
            state.top_score, state.top_error = watched.score, watched.error
        state.top_minus_loss = max(state.top_minus_loss, watched.minus_loss)
        if self._is_better(watched, state):
            state.best, state.best_step = _parameters(self.prompt), state.step
            state.best_score, state.best_minus_loss, state.best_error = watched.score, watched.minus_loss, watched.error
        since = state.step - (int(state.history[-1][0]) if state.history else 0)
        mean_loss, state.loss_sum = state.loss_sum / since, 0.0
        state.history = [*state.history, [float(state.step), watched.score, watched.minus_loss, watched.error, mean_loss]]
        state.without_gain = 0 if gained else state.without_gain + 1
        state.stopped = state.without_gain >= self.settings.patience
        return watched

    @staticmethod
    def _is_better(watched: Watched, state: State) -> bool:
        top = Watched(state.top_score, 0.0, state.top_error)
        if not is_near(Watched(state.best_score, 0.0), top):
            return is_near(watched, top)
        return is_near(watched, top) and watched.minus_loss > state.best_minus_loss

    def _roll_back(self, value: float) -> None:
        if self.last_good.rollbacks >= MOST_ROLLBACKS:
            raise Diverged(
                f"the loss was {value} after {MOST_ROLLBACKS} roll-backs, at a rate of {self.optimiser.rate_at(self.state.step):.1e}.",
                "Lower --rate, or try --dtype float32.",
            )
        good = self.last_good.copy()
        good.rollbacks += 1
        good.scale *= 0.5
        self._return_to(good)
        self.last_good = self.state.copy()
        self._tell(value, None, note=f"loss {value}: back to step {good.step} with half the rate")

    def _return_to(self, state: State) -> None:
        self.state = state
        if not state.current:  # dropped
            return
        self.prompt.load_state_dict(state.current)
        self.optimiser.restore(state.moments)
        self.optimiser.scale = state.scale

    def _tell(self, loss: float, watched: Watched | None, note: str = "") -> None:
        state = self.state
        self.listener(
            Moment(
                step=state.step,
                steps=self.steps,
                epoch=(state.step - 1) // self.steps_an_epoch + 1,
                loss=loss,
                rate=self.optimiser.rate_at(max(0, state.step - 1)),
                metric=self.objective.metric,
                score=None if watched is None else upward(self.objective.metric, watched.score),
                best=upward(self.objective.metric, state.best_score) if state.best else None,
                note=note,
            )
        )


def run_together(loops: Sequence[Loop], state_file: Path | None = None) -> None:
    """Tune several prompts over the same rows side by side: one forward and backward pass a step for all of them.

    Each has its own order, optimiser, state and stop, and comes out as when tuned alone: no gradient crosses from one to
    another. Prompts whose next batches differ in size take separate passes. All states are kept in ``state_file``, saved
    after validations, every few seconds and on Ctrl-C; None keeps them in memory only.
    """
    for loop in loops:
        loop.saved = state_file is not None

    def save() -> None:
        if state_file is not None:
            save_states(state_file, [(loop.state, loop.last_good) for loop in loops])

    advance(loops, save)
    for loop in loops:
        loop.settle()


def advance(loops: Sequence[Loop], save: Callable[[], None]) -> None:
    """Take every loop to its bound, side by side.

    ``save`` is called after validations, every few seconds, on Ctrl-C and at the end, and finds all loops at the end of a
    round of steps: which rows share a pass is so the same after a resume.
    """
    saved_at, cost = time.monotonic(), 0.0
    with _saved_on_interrupt(save):
        while running := [loop for loop in loops if not loop.done]:
            with _whole_round(running):
                validated = [_step(group) for group in _equal_batches(running)]
            waited = time.monotonic() - saved_at
            if waited * SAVES_SHARE > cost and (any(validated) or waited > SAVE_EVERY_SECONDS):
                started = time.monotonic()
                save()
                saved_at = time.monotonic()
                cost = saved_at - started if len(loops) > 1 else 0.0
    save()


@contextmanager
def _saved_on_interrupt(save: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        save()
        raise


@contextmanager
def _whole_round(loops: Sequence[Loop]) -> Iterator[None]:
    """Interrupted in the middle of a round, the loops that took their step take it back: all did or none."""
    before = [(loop.state, loop.last_good) for loop in loops]
    try:
        yield
    except KeyboardInterrupt:
        if any(loop.state is state for loop, (state, _) in zip(loops, before, strict=True)):
            for loop, (state, good) in zip(loops, before, strict=True):
                loop.state, loop.last_good = state, good
        raise


def _step(loops: Sequence[tuple[Loop, list[int]]]) -> bool:
    """One step of all these loops; whether one of them validated."""
    started = time.monotonic()
    values = gradients(loops)
    spent = (time.monotonic() - started) / len(loops)  # a pass that several share
    validated = [loop.finish_step(value, spent) for (loop, _), value in zip(loops, values, strict=True)]
    return True in validated


def gradients(loops: Sequence[tuple[Loop, list[int]]]) -> list[float]:
    """Every loop's loss over its rows, its gradient left in its parameters.

    Rows that are too many for the memory of one pass take several, whose gradients add up to those of one.
    """
    objective = loops[0][0].objective
    whole = [objective.weight(rows) for _, rows in loops]
    at_once = objective.rows_at_once([row for _, rows in loops for row in rows], len(loops))
    values = [0.0] * len(loops)
    for start in range(0, len(loops[0][1]), at_once):
        parts = [rows[start : start + at_once] for _, rows in loops]
        losses = objective.losses(parts, [loop.prompt.offer() for loop, _ in loops])
        shares = [objective.weight(part) / all_rows for part, all_rows in zip(parts, whole, strict=True)]
        shared = [loss * share for loss, share in zip(losses, shares, strict=True)]
        values = [value + float(loss.detach()) for value, loss in zip(values, shared, strict=True)]
        finite = [loss for loss, value in zip(shared, values, strict=True) if math.isfinite(value)]
        if finite:
            torch.stack(finite).sum().backward()  # type: ignore[no-untyped-call]
    return values


def _equal_batches(loops: Sequence[Loop]) -> list[list[tuple[Loop, list[int]]]]:
    """The loops with their next rows, those with equally many rows together."""
    groups: dict[int, list[tuple[Loop, list[int]]]] = {}
    for loop in loops:
        rows = loop.rows()
        groups.setdefault(len(rows), []).append((loop, rows))
    return list(groups.values())


def _parameters(prompt: SoftPrompt) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in prompt.state_dict().items()}
