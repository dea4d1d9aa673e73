"""Several tasks tuned together: every step draws some of them, and one pass serves all that were drawn.

    K' ~ U{2 … K} tasks, b rows of each        P* ← rate r        u_k, v_k ← rate 4/3 · r        keep what is best in the mean

Source: Wang et al. 2023, section 3.2 and appendix, https://arxiv.org/abs/2303.02861: stochastic task sampling, rates of 0.3 and 0.4.
Differs: AdamW in units of the start's rms. What a step draws depends on the seed and the step alone, so that a tuning goes on
from its last validation bit for bit (same machine, versions and threads).
"""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from epigraph.errors import Corrupt, Diverged
from epigraph.library.disk import replace_file
from epigraph.library.tensors import decode, encode
from epigraph.methods.watched import Watched
from epigraph.multitask.lesson import Lesson, losses_together
from epigraph.prompts import SoftPrompt
from epigraph.tuning.loop import Listener, Moment, Settings
from epigraph.tuning.order import epoch_batches

MOST_ROWS = 96  # of a pass


@dataclass(frozen=True)
class Group:
    """Parameters that are trained at ``factor`` times the rate."""

    parameters: Sequence[nn.Parameter]
    factor: float = 1.0


class Together:
    """The tuning of several tasks at once; ``prompts`` has one for each lesson, which may share parameters."""

    def __init__(
        self,
        lessons: Sequence[Lesson],
        prompts: Sequence[SoftPrompt],
        groups: Sequence[Group],
        settings: Settings,
        *,
        distil: float,
        listener: Listener = lambda _moment: None,
    ) -> None:
        self.lessons, self.prompts, self.settings = lessons, prompts, settings
        self.distil, self.listener = distil, listener
        self.parameters = [p for group in groups for p in group.parameters]
        self.factors = [group.factor for group in groups]
        adam = [{"params": list(group.parameters)} for group in groups]
        self.adam = torch.optim.AdamW(adam, lr=settings.rate, weight_decay=0.0)
        self.batch = min(settings.batch, max(1, MOST_ROWS // len(lessons)), min(len(one.rows) for one in lessons))
        drawn = (2 + len(lessons)) / 2 if len(lessons) > 1 else 1
        self.steps_an_epoch = math.ceil(sum(len(one.rows) for one in lessons) / (self.batch * drawn))
        self.steps = self.steps_an_epoch * settings.epochs
        self.step_number, self.without_gain = 0, 0
        self.best, self.best_watched = self._copy(), Watched(float("-inf"), float("-inf"))

    def run(self, state_file: Path | None = None) -> Watched:
        """Tune to the end, or to where no gain was seen for long enough, and leave the best parameters; the mean score."""
        if state_file is not None and state_file.is_file():
            self._load(state_file)
        while self.step_number < self.steps and self.without_gain < self.settings.patience:
            loss = self.step(self.step_number)
            self.step_number += 1
            watched = self._validate() if self.step_number % self.steps_an_epoch == 0 else None
            if watched is not None and state_file is not None:
                self._save(state_file)
            self._tell(loss, watched)
        self._put(self.best)
        return self.best_watched

    def draw(self, step: int) -> list[tuple[int, list[int]]]:
        """The tasks of a step with their rows."""
        K = len(self.lessons)
        rng = random.Random(f"{self.settings.seed}/{step}/tasks")
        some = sorted(rng.sample(range(K), rng.randint(min(2, K), K)))
        return [(k, self._rows(k, step)) for k in some]

    def _rows(self, k: int, step: int) -> list[int]:
        """Batch ``step`` of a task's own endless order, always full."""
        lengths = self.lessons[k].objective.lengths
        a_round = len(lengths) // self.batch
        epoch, at = divmod(step, a_round)
        batches = epoch_batches(lengths, batch=self.batch, seed=self.settings.seed + k, epoch=epoch)
        return [rows for rows in batches if len(rows) == self.batch][at]

    def step(self, step: int) -> float:
        """One step; the mean loss of the tasks drawn. Diverged if it is not finite."""
        drawn = self.draw(step)
        lessons = [self.lessons[k] for k, _ in drawn]
        prompts = [self.prompts[k].offer() for k, _ in drawn]
        losses = losses_together(lessons, [rows for _, rows in drawn], prompts, self.distil)
        loss = torch.stack(losses).mean()
        if not bool(torch.isfinite(loss)):
            raise Diverged(
                f"the loss of {', '.join(one.name for one in lessons)} is {float(loss)} at step {step}.", "Lower --rate."
            )
        self.adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for p in self.parameters if p.grad is not None], self.settings.clip)
        for group, factor in zip(self.adam.param_groups, self.factors, strict=True):
            group["lr"] = self._rate(step) * factor
        self.adam.step()
        return float(loss.detach())

    def _rate(self, step: int) -> float:
        warm = max(1.0, self.settings.warmup * self.steps)
        return self.settings.rate * min(1.0, (step + 1) / warm) * (1 - step / self.steps)

    @torch.no_grad()
    def _validate(self) -> Watched:
        seen = [one.objective.watch(prompt.offer()) for one, prompt in zip(self.lessons, self.prompts, strict=True)]
        mean = Watched(sum(w.score for w in seen) / len(seen), sum(w.minus_loss for w in seen) / len(seen))
        gained = mean.score > self.best_watched.score
        if mean > self.best_watched:
            self.best, self.best_watched = self._copy(), mean
        self.without_gain = 0 if gained else self.without_gain + 1
        return mean

    def _copy(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def _put(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def _tell(self, loss: float, watched: Watched | None) -> None:
        self.listener(
            Moment(
                step=self.step_number,
                steps=self.steps,
                epoch=(self.step_number - 1) // self.steps_an_epoch + 1,
                loss=loss,
                rate=self._rate(self.step_number - 1),
                metric="mean score",
                score=None if watched is None else watched.score,
                best=self.best_watched.score if math.isfinite(self.best_watched.score) else None,
            )
        )

    # ---- the state, after every validation ---------------------------------------------------------------------------

    def _save(self, file: Path) -> None:
        tensors = {f"now.{i}": p for i, p in enumerate(self._copy())} | {f"best.{i}": p for i, p in enumerate(self.best)}
        for i, parameter in enumerate(self.parameters):
            tensors |= {f"adam.{i}.{name}": value for name, value in self.adam.state.get(parameter, {}).items()}
        numbers = {
            "step": self.step_number,
            "without_gain": self.without_gain,
            "best": list(self.best_watched.__dict__.values()),
        }
        replace_file(file, encode(tensors, {"format": "pt", "numbers": json.dumps(numbers)}))

    def _load(self, file: Path) -> None:
        tensors, said = decode(file.read_bytes(), str(file))
        try:
            numbers = json.loads(said["numbers"])
            self._put([tensors[f"now.{i}"] for i in range(len(self.parameters))])
            self.best = [tensors[f"best.{i}"] for i in range(len(self.parameters))]
            for i, parameter in enumerate(self.parameters):
                moments = {
                    n: tensors[f"adam.{i}.{n}"] for n in ("exp_avg", "exp_avg_sq", "step") if f"adam.{i}.{n}" in tensors
                }
                if moments:
                    self.adam.state[parameter] = moments
            self.step_number, self.without_gain = int(numbers["step"]), int(numbers["without_gain"])
            self.best_watched = Watched(*numbers["best"])
        except (KeyError, ValueError, TypeError, RuntimeError) as fault:
            raise Corrupt(
                f"the state {file} cannot be read: {fault}.", "Delete it: the tasks are tuned together anew."
            ) from fault
