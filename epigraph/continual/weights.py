"""The baselines that change weights: LoRA and full fine-tuning, one task after another on one copy of the model.

θ_t = tune(θ_{t−1}, task t)        started from what the task before left
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

from epigraph.continual.labels import Posterior, Union
from epigraph.continual.learners import Learner
from epigraph.continual.world import World
from epigraph.cost import Meter
from epigraph.library.disk import replace_file
from epigraph.library.tensors import decode, encode
from epigraph.methods import PromptedBase
from epigraph.methods.rivals import RIVALS, Rival
from epigraph.methods.solver import Probabilities
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.choices import choose
from epigraph.tuning.data import divide
from epigraph.tuning.loop import Loop

WEIGHTS = "weights.safetensors"


class WeightLearner(Learner):
    """One rival's trained weights, carried from task to task. Those of earlier tasks are deleted: they are not needed."""

    rival: ClassVar[str]

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.live: Rival[Any] | None = None

    def learn(self, t: int) -> None:
        """Tune on from the weights that task t − 1 left. An interrupted task is begun anew."""
        world, meter = self.world, Meter()
        task = world.common(world.tasks[t].task)
        before = self.live.module.state_dict() if self.live is not None else None
        live = self._made(task)
        if before is not None:
            live.module.load_state_dict(before)
        settings = replace(choose(_without_rate(world), task, len(task.train.rows)).loop, rate=live.settings.rate)
        Loop(live.module, live.objective, settings, world.listener).run()
        self.live, self.learned = live, t
        stage = world.stage(self.name, t)
        content = encode(dict(live.module.state_dict()), {"format": "pt"})
        replace_file(stage.folder / WEIGHTS, content)
        said = {"seconds": round(meter.seconds, 1), "trained_parameters": live.trained_parameters, "bytes": live.kept_bytes}
        stage.finish_learning(
            {**said, "inference_tokens": 0, "settings": {"rate": settings.rate, "epochs": settings.epochs}}
        )
        if t:
            (world.stage(self.name, t - 1).folder / WEIGHTS).unlink(missing_ok=True)

    def _made(self, task: Task) -> Rival[Any]:
        parts = divide(task, self.world.config.tune)
        self.live = None  # two copies of a model are one too many
        return RIVALS[self.rival](self.world.engine, task, parts.train, parts.validation)

    def restore(self, t: int) -> None:
        """The weights as task t left them."""
        file = self.world.stage(self.name, t).folder / WEIGHTS
        if not file.is_file():
            return  # a later task's are there
        tensors, _ = decode(file.read_bytes(), str(file))
        task = self.world.common(self.world.tasks[t].task)
        bare = replace(task, train=replace(task.train, rows=()))
        self.live = RIVALS[self.rival](self.world.engine, bare, (), ())
        self.live.module.load_state_dict(tensors)
        self.learned = t

    @contextmanager
    def solver(self, task: Task) -> Iterator[PromptedBase]:
        """The live model with this task's labels."""
        assert self.live is not None
        with self.live.scoring() as own:
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


def _without_rate(world: World) -> Any:
    """The prompts' settings without those that are a prompt's own."""
    return replace(world.config.tune, rate=None, kind="", length=None)


class SequentialLora(WeightLearner):
    """PEFT's LoRA."""

    name = rival = "lora"


class SequentialFull(WeightLearner):
    """Every weight."""

    name = rival = "full"
