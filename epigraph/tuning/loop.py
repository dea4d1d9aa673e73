"""The loop: steps over shuffled batches, validation every epoch, the best prompt kept, early stop, roll-back, resume.

    θ ← θ − AdamW(∇ loss(batch))        keep θ where the watched score is best; stop after ``patience`` epochs without a gain

A loss that is not finite takes the tuning back to its last validation with half the rate. The state before any step can be
saved; continued from it, the tuning ends in the same prompt bit for bit (same machine, versions and threads).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from epigraph.errors import Diverged
from epigraph.prompts import SoftPrompt
from epigraph.tuning.objective import Objective, Watched
from epigraph.tuning.optimiser import Optimiser
from epigraph.tuning.order import epoch_batches
from epigraph.tuning.state import State, load_state, save_state

MOST_ROLLBACKS = 5
SAVE_EVERY_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The loop's numbers, all chosen."""

    epochs: int
    batch: int
    rate: float
    warmup: float
    clip: float
    patience: int
    seed: int


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


Listener = Callable[[Moment], None]


class Loop:
    """One tuning. ``state_file`` is where its state is kept; None keeps it in memory only."""

    def __init__(
        self, prompt: SoftPrompt, objective: Objective, settings: Settings, state_file: Path | None, listener: Listener
    ) -> None:
        self.prompt, self.objective, self.settings = prompt, objective, settings
        self.state_file, self.listener = state_file, listener
        self.steps_an_epoch = math.ceil(len(objective.lengths) / settings.batch)
        self.steps = self.steps_an_epoch * settings.epochs
        self.optimiser = Optimiser(prompt, rate=settings.rate, steps=self.steps, warmup=settings.warmup, clip=settings.clip)
        self.state = State(0, _parameters(prompt))
        self.last_good = self.state.copy()
        self.saved_at = time.monotonic()

    def resume(self) -> None:
        """Take the state on disk."""
        assert self.state_file is not None
        state, self.last_good = load_state(self.state_file)
        self._return_to(state)

    def run(self) -> State:
        """Tune to the end and leave the best parameters in the prompt. On Ctrl-C the state is saved first."""
        run_together([self])
        return self.state

    @property
    def done(self) -> bool:
        """Whether the last step is taken or no gain was seen for long enough."""
        return self.state.step >= self.steps or self.state.stopped

    def rows(self) -> list[int]:
        """The training rows of the next step."""
        epoch, at = divmod(self.state.step, self.steps_an_epoch)
        settings = self.settings
        return epoch_batches(self.objective.lengths, batch=settings.batch, seed=settings.seed, epoch=epoch)[at]

    def finish_step(self, value: float, started: float) -> None:
        """Update the prompt from its gradients, which a loss of ``value`` left; validate at the end of an epoch."""
        state = self.state
        norm = self.optimiser.step(state.step) if math.isfinite(value) else value
        if not math.isfinite(norm):
            self._roll_back(norm)
            return
        after = State(**{**state.__dict__, "step": state.step + 1, "current": _parameters(self.prompt)})
        after.moments = self.optimiser.state()
        watched = self._watch(after) if after.step % self.steps_an_epoch == 0 else None
        after.train_seconds += time.monotonic() - started
        if watched is not None:
            self.last_good = after.copy()
        self.state = after  # from here on a save holds this step
        if watched is not None or time.monotonic() - self.saved_at > SAVE_EVERY_SECONDS:
            self.save()
        self._tell(value, watched)

    def _watch(self, state: State) -> Watched:
        with torch.no_grad():
            watched = self.objective.watch(self.prompt.form())
        if watched > Watched(state.best_score, state.best_minus_loss):
            gained = watched.score > state.best_score
            state.best, state.best_step = _parameters(self.prompt), state.step
            state.best_score, state.best_minus_loss = watched.score, watched.minus_loss
            state.without_gain = 0 if gained else state.without_gain + 1
        else:
            state.without_gain += 1
        state.stopped = state.without_gain >= self.settings.patience
        return watched

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
        self.prompt.load_state_dict(state.current)
        self.optimiser.restore(state.moments)
        self.optimiser.scale = state.scale

    def save(self) -> None:
        """Write the state, where it is kept."""
        if self.state_file is not None:
            save_state(self.state_file, self.state, self.last_good)
        self.saved_at = time.monotonic()

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
                score=None if watched is None else watched.score,
                best=state.best_score if state.best else None,
                note=note,
            )
        )


def run_together(loops: Sequence[Loop]) -> None:
    """Tune several prompts over the same rows side by side: one forward and backward pass a step for all of them.

    Each has its own order, optimiser, state and stop, and comes out as when tuned alone: no gradient crosses from one to
    another. Prompts whose next batches differ in size take separate passes.
    """
    try:
        while running := [loop for loop in loops if not loop.done]:
            for group in _equal_batches(running):
                _step(group)
    except KeyboardInterrupt:
        for loop in loops:
            loop.save()
        raise
    for loop in loops:
        loop.save()
        loop.prompt.load_state_dict(loop.state.best or loop.state.current)


def _step(loops: Sequence[tuple[Loop, list[int]]]) -> None:
    started = time.monotonic()
    objective = loops[0][0].objective
    losses = objective.losses([rows for _, rows in loops], [list(loop.prompt.form()) for loop, _ in loops])
    values = [float(loss.detach()) for loss in losses]
    finite = [loss for loss, value in zip(losses, values, strict=True) if math.isfinite(value)]
    if finite:
        torch.stack(finite).sum().backward()  # type: ignore[no-untyped-call]
    for (loop, _), value in zip(loops, values, strict=True):
        loop.finish_step(value, started)


def _equal_batches(loops: Sequence[Loop]) -> list[list[tuple[Loop, list[int]]]]:
    """The loops with their next rows, those with equally many rows together."""
    groups: dict[int, list[tuple[Loop, list[int]]]] = {}
    for loop in loops:
        rows = loop.rows()
        groups.setdefault(len(rows), []).append((loop, rows))
    return list(groups.values())


def _parameters(prompt: SoftPrompt) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in prompt.state_dict().items()}
