"""The step: as small as can be that turns the corrections, where smallness counts what other answers notice of it.

    m(θ)    margins of the corrections c and of the held texts k             J_c, J_k   their gradients by row
    δ       the move from the old vectors: the smallest ½ (‖δ‖² + Σ_k (m_k(δ) − m_k(0))² / Λ_k)  by which  m_c(δ) ≥ reach for every c
    Λ_k     mean diagonal of J_k J_kᵀ · (1 + (m_k(0)/3)²) / hold             an answer that is far from turning may move more

At a place δ₀ margins are linear, m(δ) ≈ m(δ₀) + J (δ − δ₀), and what is left has a row for each correction:

    G       = (J_k J_kᵀ + Λ)⁻¹       S = J_c J_cᵀ − J_c J_kᵀ G J_k J_cᵀ        the metric of what the held answers notice
    β_c     the smallest ½ βᵀ S β − βᵀ (r_c − J_c J_kᵀ G r_k), β ≥ 0         r = what the margins shall be − m(δ₀) + J δ₀
    β_k     = G (r_k − J_k J_cᵀ β_c)                                         δ = Jᵀ β
    away_k  = −β_k / (inverse of the whole system)_kk                        how far text k moves where it is not among the held

a Gauss-Newton step, solved again where it has led (sequential quadratic programming, Nocedal & Wright 2006, chapter 18). The pull
towards the teacher's margins is that of distillation in its limit (Hinton et al. 2015, section 2.1,
https://arxiv.org/abs/1503.02531), on new texts as in Li & Hoiem 2016, section 3 (https://arxiv.org/abs/1606.09282). ``away`` is the
leave-one-out formula of regularised least squares (Rasmussen & Williams 2006, section 5.4.2); from it comes how firmly to hold: the
loosest of ``HOLDS`` by which nearly the fewest answers to further texts are expected to change, mean over k of Φ(−m_k / rms of away).

Corrections are conditions and not a further sum of squares: weighed against many texts that are held firmly, none was mastered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import solve_triangular
from scipy.optimize import nnls
from torch import Tensor

from epigraph.correct.vectors import Jacobian, Values, Vector

SURE = 3.0  # nats from which on an answer is held less firmly: it is far from turning
MISS = 1e-5  # of the mean diagonal: by how little conditions may be missed where they contradict each other
HOLDS = (10.0, 30.0, 100.0, 300.0, 1000.0)
NEARLY = 1.1  # times the fewest expected changes
COLUMNS = 1 << 14

Square = Float[Tensor, "N N"]


class Held:
    """The texts whose answers are held: their gradients, the teacher's margins, and how firmly."""

    def __init__(self, gradients: Jacobian, teacher: Values, hold: float, products: Square | None = None) -> None:
        self.gradients, self.teacher, self.hold = gradients, teacher, hold
        self.products = products_of(gradients, gradients) if products is None else products
        self.scale = float(self.products.diagonal().mean())
        self.loose = self.scale * (1 + (teacher / SURE) ** 2) / hold

    def by(self, hold: float) -> "Held":
        """The same texts held as firmly."""
        return Held(self.gradients, self.teacher, hold, self.products)

    @cached_property
    def inverse(self) -> Square:
        """G."""
        return torch.linalg.inv(self.products + torch.diag(self.loose))


@dataclass(frozen=True)
class Place:
    """The corrections at one place: their gradients, and what is asked of all margins there, r; the teacher's are those of ``held``."""

    held: Held
    own: Jacobian
    asked: Values
    asked_of_held: Values

    @cached_property
    def crossed(self) -> Float[Tensor, "N K"]:
        """J_c J_kᵀ."""
        return products_of(self.own, self.held.gradients)

    @cached_property
    def metric(self) -> Square:
        """S."""
        whole = products_of(self.own, self.own)
        slack = MISS * whole.diagonal().mean() * torch.eye(len(whole)).to(whole)
        return whole - self.crossed @ self.held.inverse @ self.crossed.T + slack

    @cached_property
    def wanted(self) -> Values:
        """What is asked of the corrections beyond what the held texts' own pull gives."""
        return self.asked - self.crossed @ self.held.inverse @ self.asked_of_held

    def solved(self, chosen: Sequence[int]) -> tuple[Values, Values]:
        """β of these corrections and of the held texts."""
        rows = torch.tensor(list(chosen), dtype=torch.long, device=self.own.device)
        own = non_negative(self.metric[rows][:, rows], self.wanted[rows])
        return own, self.held.inverse @ (self.asked_of_held - self.crossed[rows].T @ own)

    def move(self, chosen: Sequence[int]) -> Vector:
        """δ for these corrections."""
        own, held = self.solved(chosen)
        return self.own[list(chosen)].T @ own.to(self.own) + self.held.gradients.T @ held.to(self.own)

    def away(self, chosen: Sequence[int]) -> Values:
        """By how much each held text would move with this step were it not held."""
        own, held = self.solved(chosen)
        active = [c for c, force in zip(chosen, own.tolist(), strict=True) if force > 0]
        seen = self.crossed[active] @ self.held.inverse
        diagonal = self.held.inverse.diagonal() + (seen * torch.linalg.solve(self.metric[active][:, active], seen)).sum(0)
        return -held / diagonal

    def expected(self, chosen: Sequence[int]) -> float:
        """The share of answers to texts like the held ones that would change."""
        rms = float(self.away(chosen).pow(2).mean().sqrt())
        return float(torch.special.ndtr(-self.held.teacher / rms).mean()) if rms > 0 else 0.0

    def dearest(self, chosen: Sequence[int]) -> int:
        """The one of these without which the step is the smallest: the largest β_c² / (S⁻¹)_cc."""
        own, _ = self.solved(chosen)
        gain = own.pow(2) / torch.linalg.inv(self.metric[list(chosen)][:, list(chosen)]).diagonal()
        return chosen[int(gain.argmax())]

    def by(self, hold: float) -> "Place":
        """The same place with the texts held as firmly."""
        return Place(self.held.by(hold), self.own, self.asked, self.asked_of_held)

    def best_hold(self) -> float:
        """The loosest of ``HOLDS`` by which nearly the fewest answers are expected to change with all corrections met."""
        shares = {hold: self.by(hold).expected(range(len(self.own))) for hold in HOLDS}
        return next(hold for hold in HOLDS if shares[hold] <= NEARLY * min(shares.values()))


def products_of(left: Jacobian, right: Jacobian) -> Float[Tensor, "N M"]:
    """Left · rightᵀ in fp64, a part of the columns at a time."""
    found = torch.zeros(len(left), len(right), dtype=torch.double, device=left.device)
    for one, other in zip(torch.split(left, COLUMNS, 1), torch.split(right, COLUMNS, 1), strict=True):
        found += one.double() @ other.double().T
    return found


def non_negative(metric: Square, wanted: Values) -> Values:
    """The smallest ½ βᵀ S β − βᵀ b with β ≥ 0: with S = L Lᵀ the non-negative least squares of Lᵀ β against L⁻¹ b."""
    lower = np.linalg.cholesky(metric.cpu().numpy())
    found, _ = nnls(lower.T, solve_triangular(lower, wanted.cpu().numpy(), lower=True))
    return torch.from_numpy(found).to(metric)
