"""Trials that can share a pass: those of one template, over the same rows.

A lane is a template with its solver and objective; prompts of any kind, length, start and rate are tuned in it side by side.
Lanes are trained one after another within a rung.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from epigraph.engine import Engine
from epigraph.methods import PromptedBase
from epigraph.prompts import SoftPrompt
from epigraph.tasks.task import Task
from epigraph.tuning.choices import laid_out
from epigraph.tuning.data import Parts
from epigraph.tuning.loop import Listener, Loop
from epigraph.tuning.noise import is_near
from epigraph.tuning.objective import Divisible, make_objective
from epigraph.tuning.search.contender import Contender
from epigraph.tuning.search.trial import Trial

Listen = Callable[[int, int], Listener]
Start = Callable[[Trial], SoftPrompt]
SLACK = 1.5  # how much higher a loss may be: at a calmer rate less is learned, which is no failure


class Lanes:
    """The lanes of some trials. ``start`` makes the prompt of a trial at its first values."""

    def __init__(
        self, engine: Engine, task: Task, trials: Sequence[Trial], parts: Parts, *, start: Start, output_tokens: int
    ) -> None:
        self.engine, self.parts, self.start, self.trials = engine, parts, start, list(trials)
        self.prompts = [start(trial) for trial in trials]
        tasks = [laid_out(task, trial.place, trial.readings) for trial in trials]
        templates = list(dict.fromkeys(one.template.text for one in tasks))
        self.lane_of = [templates.index(one.template.text) for one in tasks]
        self.solvers = [self._solver(lane, tasks, output_tokens) for lane in range(len(templates))]
        self.objectives: list[Divisible] = []

    def _solver(self, lane: int, tasks: Sequence[Task], output_tokens: int) -> PromptedBase:
        """With the longest prompt of the lane, so that all its rows leave room for every one."""
        inside = [number for number, its in enumerate(self.lane_of) if its == lane]
        longest = max(inside, key=lambda number: self.trials[number].length)
        return PromptedBase(self.engine, tasks[longest], self.prompts[longest].fold(), output_tokens=output_tokens)

    def prepare(self) -> None:
        """Encode the rows, and show their frozen queries to prompts that depend on them."""
        parts = self.parts
        for lane, solver in enumerate(self.solvers):
            inside = [p for p, its in zip(self.prompts, self.lane_of, strict=True) if its == lane and p.needs_query]
            if inside:
                queries, neutral = self.engine.query(solver.encode(parts.train)), self.engine.neutral_queries()
                for prompt in inside:
                    prompt.prepare(queries.cpu(), neutral.cpu())
        train, validation = (parts.all, parts.all) if parts.folds else (parts.train, parts.validation)
        self.objectives = [make_objective(solver, train, validation) for solver in self.solvers]

    def contenders(self, listen: Listen) -> list[Contender]:
        """Every trial with its loops, one a fold; ``listen`` gives what listens to a fold of a trial."""
        return [
            Contender(
                number=number,
                trial=trial,
                lane=self.lane_of[number],
                loops=self._loops(number, trial, listen),
                sizes=[len(fold) for fold in self.parts.folds] or [len(self.parts.validation)],
            )
            for number, trial in enumerate(self.trials)
        ]

    def _loops(self, number: int, trial: Trial, listen: Listen) -> list[Loop]:
        objective, prompt = self.objectives[self.lane_of[number]], self.prompts[number].to(self.engine.base.device)
        if not self.parts.folds:
            return [Loop(prompt, objective, trial.loop, listen(number, 0))]
        settings = replace(trial.loop, patience=trial.loop.epochs)  # folds stop together
        every = range(len(self.parts.all))
        return [
            Loop(
                copy.deepcopy(prompt),
                objective,
                settings,
                listen(number, fold),
                rows=[place for place in every if place not in set(held)],
                watch=partial(objective.watch_some, held=held),
            )
            for fold, held in enumerate(self.parts.folds)
        ]

    def refit(self, contender: Contender, listener: Listener, *, calm: float = 1.0) -> Loop:
        """The loop that tunes this trial on all rows, for as many epochs as were best, without a validation, at ``calm`` times
        its rate."""
        solver, trial = self.solvers[contender.lane], contender.trial
        prompt = self.start(trial)
        if prompt.needs_query:
            queries, neutral = self.engine.query(solver.encode(self.parts.all)), self.engine.neutral_queries()
            prompt.prepare(queries.cpu(), neutral.cpu())
        objective = make_objective(solver, self.parts.all, self.parts.all[:1])
        epochs = contender.best_epoch
        schedule = epochs if epochs == contender.schedule else trial.loop.epochs  # cut short: at the rate it had then
        settings = replace(trial.loop, rate=calm * trial.loop.rate, epochs=schedule)
        loop = Loop(prompt.to(self.engine.base.device), objective, settings, listener, blind=True)
        loop.pause_after(epochs)
        return loop

    def holds(self, contender: Contender, loop: Loop) -> bool:
        """Whether a prompt answers rows that it has learned from no worse than the trial answered them unseen: its score is not
        lower beyond noise, and its loss not much higher."""
        with torch.no_grad():
            learned = self.objectives[contender.lane].watch(loop.prompt.offer())
        unseen = contender.watched
        return is_near(learned, unseen) and learned.minus_loss >= SLACK * unseen.minus_loss
