"""What a correction lowers, in the words of the tuning loop.

    L(θ) = loss of the corrections not mastered yet  +  λ · KL(p_old ‖ p_θ) on other texts  +  μ · mean ((θ − θ_old) / unit)²

Source: learning without forgetting, Li & Hoiem 2016, section 3, https://arxiv.org/abs/1606.09282. Differs: the other texts are not
those of the new rows but ones that the user gives or the base writes; a correction that is mastered is left out until it is lost
again, so that no step goes further than it must; of equally good prompts the first is kept, which is the nearest to the old one.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.correct.answers import right_answers
from epigraph.correct.settings import FixConfig
from epigraph.correct.teacher import Teacher
from epigraph.engine.assembly import Asked
from epigraph.methods.solver import PromptedBase
from epigraph.methods.watched import Watched
from epigraph.prompts import AnyForm, Dependent, Form, KeyValue
from epigraph.prompts.packed import pack, unit_of
from epigraph.tasks.row import Row
from epigraph.tuning.objective import make_objective
from epigraph.tuning.order import epoch_batches

KEPT_A_STEP = 48  # texts whose old answers are looked at in a step


class FixObjective:
    """The loss of some corrections beside what must stay; ``mastered`` once all are answered right.

    ``needed`` is how many of them must be right for that.
    """

    metric = "corrections mastered"

    def __init__(
        self, solver: PromptedBase, old: Sequence[Form], corrections: Sequence[Row], teacher: Teacher, config: FixConfig
    ) -> None:
        self.solver, self.corrections, self.teacher, self.config = solver, list(corrections), teacher, config
        self.inner = make_objective(solver, corrections, ())
        self.old = [pack(form).to(solver.engine.base.device) for form in old]
        self.lengths = self.inner.lengths
        self.open = set(range(len(self.corrections)))
        self.mastered, self.seen, self.watched = False, 0, 0
        self.batch = max(1, min(KEPT_A_STEP, teacher.at_once, len(teacher.lengths)))

    def weight(self, rows: Sequence[int]) -> float:
        """What the mean over rows divides by."""
        return self.inner.weight(rows)

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:
        """How many corrections one pass may take."""
        return self.inner.rows_at_once(rows, prompts)

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Asked) -> list[Tensor]:
        """For each prompt the loss of its rows and of what must stay, in nats."""
        found = []
        for rows, forms in zip(chosen, prompts, strict=True):
            still = [i for i in rows if i in self.open] or list(rows)
            (loss,) = self.inner.losses([still], [forms])
            loss = loss + self.config.pull * self._moved(forms)
            if self.teacher.lengths and self.config.weight:
                loss = loss + self.config.weight * self.teacher.divergence(self._kept(), forms)
            found.append(loss)
        return found

    def watch(self, forms: Sequence[AnyForm]) -> Watched:
        """The share of mastered corrections; of equal ones the earlier is better."""
        right = right_answers(self.solver.with_forms(forms), self.corrections)
        self.open = {i for i, mastered in enumerate(right) if not mastered}
        self.mastered, self.watched = not self.open, self.watched + 1
        return Watched(float(right.mean()), -float(self.watched))

    def _kept(self) -> list[int]:
        """The next batch of kept texts, in an order that starts anew when all were seen."""
        lengths = self.teacher.lengths
        epoch, at = divmod(self.seen, -(-len(lengths) // self.batch))
        self.seen += 1
        return epoch_batches(lengths, batch=self.batch, seed=self.config.seed, epoch=epoch)[at]

    def _moved(self, forms: Sequence[AnyForm]) -> Float[Tensor, ""]:
        """The mean square of how far the vectors are from the old ones, in units of their rms."""
        apart = [((_packed(form) - old) / unit_of(old)).pow(2).flatten() for form, old in zip(forms, self.old, strict=True)]
        return torch.cat(apart).mean()


def _packed(form: AnyForm) -> Tensor:
    """``pack`` with its gradient."""
    assert not isinstance(form, Dependent)
    return torch.stack([form.keys, form.values]) if isinstance(form, KeyValue) else form.vectors
