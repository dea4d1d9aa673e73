"""The baselines that change weights: LoRA and full fine-tuning, one task after another on one copy of the model.

θ_t = tune(θ_{t−1}, task t)        started from what the task before left, at each of N rates; the best on validation is kept

N is as many as the prompts tried: the trials that were asked for; under a budget in seconds as many as the prompt methods
before it took for this task, or, where there is none, as fit into those seconds. Each goes all its epochs: none is dropped
half-way, as the prompts' trials are.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from epigraph.config import TuneConfig, parse_budget
from epigraph.continual.labels import Posterior, Union
from epigraph.continual.learners import Learner
from epigraph.continual.world import World
from epigraph.cost import Meter
from epigraph.errors import Diverged
from epigraph.library.disk import replace_file
from epigraph.library.tensors import decode, encode
from epigraph.methods import PromptedBase
from epigraph.methods.rivals import RIVALS, Rival
from epigraph.methods.solver import Probabilities
from epigraph.methods.watched import Watched
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.choices import choose
from epigraph.tuning.data import divide
from epigraph.tuning.loop import Loop, Settings
from epigraph.tuning.noise import rank

WEIGHTS = "weights.safetensors"
FACTORS = (1.0, 2.5, 0.4, 5.0, 0.16)  # of a method's own rate, in the order they are tried: those of ``compare``


class WeightLearner(Learner):
    """One rival's trained weights, carried from task to task. Those of earlier tasks are deleted: they are not needed."""

    rival: ClassVar[str]

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.live: Rival[Any] | None = None

    def learn(self, t: int) -> None:
        """Tune on from the weights that task t − 1 left, at every rate. An interrupted task is begun anew."""
        world, meter = self.world, Meter()
        task = world.common(world.tasks[t].task)
        loop = choose(_without_rate(world), task, len(task.train.rows)).loop
        tried: list[dict[str, Any]] = []
        best, kept = Watched(-math.inf, -math.inf), -1
        for rate in rates(RIVALS[self.rival].settings_type().rate):
            if tried and not self._goes_on(t, len(tried), meter.seconds):
                break
            try:
                found = self._train(t, task, replace(loop, rate=rate))
            except Diverged as fault:
                world.note(f"{self.name}: a rate of {rate:.3g} is too high: {fault.message}")
                tried.append({"rate": rate, "failed": fault.message})
                continue
            tried.append({"rate": rate, "score": found.score, "loss": -found.minus_loss})
            if rank([best, found])[0] == 1:
                best, kept = found, len(tried) - 1
                replace_file(self._weights(t), encode(dict(self._live.module.state_dict()), {"format": "pt"}))
        if kept < 0:
            raise Diverged(f"{self.name}: none of {len(tried)} rates kept the loss finite.", "Try --dtype float32.")
        live, stage = self._live, world.stage(self.name, t)
        said = {"seconds": round(meter.seconds, 1), "trained_parameters": live.trained_parameters, "bytes": live.kept_bytes}
        settings = {"rate": tried[kept]["rate"], "epochs": loop.epochs}
        stage.finish_learning({**said, "inference_tokens": 0, "settings": settings, "trials": len(tried), "tried": tried})
        if kept == len(tried) - 1:
            self.learned = t
        else:
            self.restore(t)
        if t:
            self._weights(t - 1).unlink(missing_ok=True)

    def _goes_on(self, t: int, tried: int, seconds: float) -> bool:
        """Whether another rate is tried, after so many in so many seconds."""
        asked = asked_trials(self.world.config.tune.single)
        if isinstance(asked, int):
            return tried < asked
        stages = [self.world.stage(name, t) for name in self.world.config.methods]
        prompts = [int(stage.learned["trials"]) for stage in stages if stage.learned and "tried" not in stage.learned]
        return tried < max(prompts) if prompts else seconds * (tried + 1) / tried <= asked

    def _train(self, t: int, task: Task, settings: Settings) -> Watched:
        """Train at one rate; what validation showed of the parameters that are now live."""
        parts = divide(task, self.world.config.tune)
        self.live = None  # two copies of a model are one too many
        self.live = live = RIVALS[self.rival](self.world.engine, task, parts.train, parts.validation)
        if t:
            self._load(t - 1)
        state = Loop(live.module, live.objective, settings, self.world.listener).run()
        return Watched(state.best_score, state.best_minus_loss, state.best_error)

    def _weights(self, t: int) -> Path:
        return self.world.stage(self.name, t).folder / WEIGHTS

    def _load(self, t: int) -> None:
        file = self._weights(t)
        tensors, _ = decode(file.read_bytes(), str(file))
        self._live.module.load_state_dict(tensors)

    @property
    def _live(self) -> Rival[Any]:
        assert self.live is not None
        return self.live

    def restore(self, t: int) -> None:
        """The weights as task t left them."""
        if not self._weights(t).is_file():
            return  # a later task's are there
        task = self.world.common(self.world.tasks[t].task)
        bare = replace(task, train=replace(task.train, rows=()))
        self.live = None
        self.live = RIVALS[self.rival](self.world.engine, bare, (), ())
        self._load(t)
        self.learned = t

    @contextmanager
    def solver(self, task: Task) -> Iterator[PromptedBase]:
        """The live model with this task's labels."""
        with self._live.scoring() as own:
            template = self.world.common(task).template.placed("first")
            yield PromptedBase(own.engine, task, own.forms, template=template)

    def probabilities(self, k: int, task: Task, rows: Sequence[Row]) -> Probabilities:  # noqa: ARG002
        """By the one model there is, whatever the task."""
        with self.solver(task) as solver:
            return solver.probabilities(rows)

    def union(self, i: int, union: Union, posterior: Posterior) -> Probabilities:
        """The joint trie of all labels; equal words of distinct labels are told apart by the router."""
        with self.solver(union.task(self.world.tasks[0].task)) as solver:
            return union.split(solver.probabilities(list(self.world.tasks[i].tests)), posterior)


def rates(first: float) -> Iterator[float]:
    """The rates to try around a method's own: some multiples, then ever finer between them."""
    tried: list[float] = []
    more: Sequence[float] = FACTORS
    while True:
        yield from (first * factor for factor in more)
        tried = sorted([*tried, *more])
        more = [math.sqrt(low * high) for low, high in pairwise(tried)]


def asked_trials(config: TuneConfig) -> int | float:
    """How many trials a prompt is given (int), or the seconds it is (float)."""
    return config.trials or parse_budget(config.budget) or 1


def _without_rate(world: World) -> Any:
    """The prompts' settings without those that are a prompt's own."""
    return replace(world.config.tune, rate=None, kind="", length=None)


class SequentialLora(WeightLearner):
    """PEFT's LoRA."""

    name = rival = "lora"


class SequentialFull(WeightLearner):
    """Every weight."""

    name = rival = "full"
