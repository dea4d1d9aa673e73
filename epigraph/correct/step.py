"""The step: as small as can be that turns the corrections, with the old prompt as the teacher on other texts.

    m(θ)   margins of the corrections c and of the kept texts k; the teacher says m_k(θ_old)           J   their gradients by row
    r      max(0, reach − m_c), m_k(θ_old) − m_k
    δ      = Jᵀ (J Jᵀ + Λ)⁻¹ r             Λ = mean diagonal of J Jᵀ · (10^(−3−step) for c, (1 + (m_k/3)²) / hold for k)
    away   −α_k / ((J Jᵀ + Λ)⁻¹)_kk,  α = (J Jᵀ + Λ)⁻¹ r           how far text k would move were it not among the kept
    share  mean over k of Φ(−m_k(θ_old) / rms of away)             of answers to other such texts that is expected to change

δ minimises ‖δ‖² + Σ (J δ − r)² / Λ: matching the teacher's logits, which Hinton et al. 2015, section 2.1
(https://arxiv.org/abs/1503.02531), show distillation to be in its limit, on new texts as Li & Hoiem 2016, section 3
(https://arxiv.org/abs/1606.09282), with the pull to the old vectors; linearised (Gauss-Newton) and solved in as many unknowns as
there are rows. ``away`` is the leave-one-out formula of regularised least squares (Rasmussen & Williams 2006, section 5.4.2): what
changes beyond the texts at hand, told without a further text. While ``share`` is more than ``afford``, the correction that costs most
(largest α_c · r_c) is given up.

Differs from descent on the divergence, as ``tuning`` would do it: 2 or 3 linearisations instead of some 20 passes, and a third of the
answers changed (benchmarks/README.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from epigraph.correct.margins import Margins, margins_of_all, parts
from epigraph.correct.settings import FixConfig
from epigraph.errors import Diverged
from epigraph.prompts import Form
from epigraph.prompts.packed import pack, unit_of, unpack

# of the mean diagonal: how loosely a correction is asked for, less from step to step
MASTER, FIRMER, FIRMEST = 1e-3, 0.1, 1e-7
SURE = 3.0  # nats from which on an answer is held less firmly: it is far from turning
MOST_MOVE = 0.1  # rms of a step, in units of the vectors' rms
COLUMNS = 1 << 14

Vector = Float[Tensor, "X"]
Values = Float[Tensor, "N"]
Jacobian = Float[Tensor, "N X"]


class Vectors:
    """Stored forms as one vector of numbers in units of each table's, or layer's, rms; ``shared`` blocks are one."""

    def __init__(self, forms: Sequence[Form], device: torch.device, *, shared: bool = False) -> None:
        self.copies = len(forms) if shared else 1
        own = forms[:1] if shared else forms
        self.old = [pack(form).to(device) for form in own]
        self.units = [unit_of(packed) for packed in self.old]

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return sum(packed.numel() for packed in self.old)

    def at(self, moved: Vector) -> list[Tensor]:
        """The packed blocks after this move."""
        parts = torch.split(moved, [packed.numel() for packed in self.old])
        return [old + part.view_as(old) * unit for old, part, unit in zip(self.old, parts, self.units, strict=True)]

    def forms(self, moved: Vector) -> list[Form]:
        """The forms after this move, one a block."""
        return [unpack(packed) for packed in self.at(moved)] * self.copies

    def gradient(self, margins: Margins, moved: Vector) -> tuple[Jacobian, Values]:
        """Every row's margin after this move, and its gradient: each row reads a copy of the prompt of its own."""
        rows, values = [], []
        for chosen in parts(margins):
            leaves = [packed.repeat(len(chosen), *[1] * packed.ndim).requires_grad_() for packed in self.at(moved)]
            prompts = [[unpack(leaf[i]) for leaf in leaves] * self.copies for i in range(len(chosen))]
            found = margins.of(chosen, prompts)
            grads = torch.autograd.grad(found.sum(), leaves)
            rows.append(torch.cat([(g * u).flatten(1) for g, u in zip(grads, self.units, strict=True)], 1))
            values.append(found.detach().double())
        return torch.cat(rows), torch.cat(values)

    @torch.no_grad()
    def margins(self, margins: Margins, moved: Vector) -> Values:
        """Every row's margin after this move."""
        return margins_of_all(margins, self.forms(moved)).double()


@dataclass(frozen=True)
class Learned:
    """Where the step ends: ``moved`` in units; the places of corrections that were given up, and the share of answers that would
    change among texts like the kept ones, before and after giving up."""

    moved: Vector
    given_up: tuple[int, ...]
    asked_share: float
    expected_share: float
    steps: int


def learn(
    vectors: Vectors,
    wanted: Margins,
    kept: Margins,
    config: FixConfig,
    afford: float,
    told: Callable[[int, int], None] = lambda _done, _of: None,
) -> Learned:
    """The smallest move by which the wanted answers are given and the kept ones stay. Diverged if it is not finite.

    ``afford`` is the share of answers elsewhere that may be expected to change.
    """
    moved = torch.zeros(vectors.size, device=vectors.old[0].device)
    held, teacher = vectors.gradient(kept, moved)
    now, chosen = teacher, list(range(len(wanted.rows)))
    given_up: tuple[int, ...] = ()
    shares = (0.0, 0.0)
    best, most, steps = moved, -1, 0
    for step in range(config.steps + 1):
        told(step, config.steps)
        own, values = vectors.gradient(wanted, moved)
        if not bool(torch.isfinite(values).all() & torch.isfinite(now).all()):
            raise Diverged("the correction led to values that are not finite.", "Try --dtype float32, or fewer corrections.")
        mastered = int((values > 0).sum())
        if mastered > most:
            best, most, steps = moved, mastered, step
        if step == config.steps or (step and bool((values[chosen] > 0).all())):
            break
        system = System(torch.cat([own, held]), teacher, hold=config.hold, miss=max(FIRMEST, MASTER * FIRMER**step))
        residual = torch.cat([(config.reach - values).clamp(min=0), teacher - now])
        if not step:
            chosen, shares = system.affordable(residual, afford)
            given_up = tuple(sorted(set(range(len(own))) - set(chosen)))
        moved = moved + _short(system.move(residual, chosen))
        now = vectors.margins(kept, moved)
    return Learned(best, given_up, *shares, steps)


class System:
    """The linear problem at one place: the rows of corrections first, those of the teacher behind them."""

    def __init__(self, gradients: Jacobian, teacher: Float[Tensor, "K"], *, hold: float, miss: float = MASTER) -> None:
        self.gradients, self.teacher = gradients, teacher
        self.corrections = len(gradients) - len(teacher)
        self.products = _products(gradients)
        scale = self.products.diagonal().mean()
        loose = (1 + (teacher / SURE) ** 2) / hold
        self.noise = scale * torch.cat([loose.new_full((self.corrections,), miss), loose])

    def affordable(self, residual: Values, afford: float) -> tuple[list[int], tuple[float, float]]:
        """The corrections that can be learned, one at the least, and the expected shares of all and of these."""
        chosen = list(range(self.corrections))
        first = share = self._expected(residual, chosen)
        while share > afford and len(chosen) > 1:
            rows, solved, _ = self._solved(residual, chosen)
            cost = (solved * residual[rows])[: len(chosen)]
            if float(cost.max()) <= 0:
                break
            del chosen[int(cost.argmax())]
            share = self._expected(residual, chosen)
        return chosen, (first, share)

    def move(self, residual: Values, chosen: Sequence[int]) -> Vector:
        """δ for these corrections."""
        rows, solved, _ = self._solved(residual, chosen)
        return self.gradients[rows].T @ solved.to(self.gradients)

    def _expected(self, residual: Values, chosen: Sequence[int]) -> float:
        """The share of answers to texts like the kept ones that would change."""
        _, solved, inverse = self._solved(residual, chosen)
        away = float((solved / inverse)[len(chosen) :].pow(2).mean().sqrt())
        return float(torch.special.ndtr(-self.teacher / away).mean()) if away > 0 else 0.0

    def _solved(
        self, residual: Values, chosen: Sequence[int]
    ) -> tuple[Int[Tensor, "M"], Float[Tensor, "M"], Float[Tensor, "M"]]:
        """The rows, α of each, and the diagonal of the inverse."""
        behind = torch.arange(self.corrections, len(residual))
        rows = torch.cat([torch.tensor(list(chosen), dtype=torch.long), behind]).to(residual.device)
        inverse = torch.linalg.inv(self.products[rows][:, rows] + torch.diag(self.noise[rows]))
        return rows, inverse @ residual[rows], inverse.diagonal()


def _products(gradients: Jacobian) -> Float[Tensor, "N N"]:
    """J Jᵀ in fp64, a part of the columns at a time."""
    parts = torch.split(gradients, COLUMNS, dim=1)
    found = torch.zeros(len(gradients), len(gradients), dtype=torch.double, device=gradients.device)
    for part in parts:
        wide = part.double()
        found += wide @ wide.T
    return found


def _short(move: Vector) -> Vector:
    """A move that is no longer than the linear picture reaches."""
    size = float(move.pow(2).mean().sqrt())
    return move * min(1.0, MOST_MOVE / size) if size > 0 else move
