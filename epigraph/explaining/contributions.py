"""What each token of the text and each vector of the prompt adds to F, by two methods that can disagree.

    F = log p(answer) − log p(next best)      (``margin.py``; calibrated, and the answer is that of ``predict``)
    integrated gradients   text     c_i = (x_i − x̄) · ∫₀¹ ∂F(x̄ + t (x − x̄), p) / ∂x_i dt      Σ c_i = F(x, p) − F(x̄, p)
                           prompt   c_j = (p_j − p̄) · ∫₀¹ ∂F(x, p̄ + t (p − p̄)) / ∂p_j dt      Σ c_j = F(x, p) − F(x, p̄)
    leave-one-out          c_i = F − F without i       (left out of every softmax, positions kept)

Sources: Sundararajan et al. 2017, section 3 (https://arxiv.org/abs/1703.01365); leave-one-out: Li et al. 2016
(https://arxiv.org/abs/1612.08220). x̄ is the mean of the embedding table; p̄ is that for vectors, zero for keys and values.

Differs: text and prompt each go a path of their own, the other standing as it answers, which is also where a part is left out, and the
template's own tokens stay. On one path for all, from a text that is none under a prompt that is none, F turned hundreds of times. The
integral is taken in fp32 where there is memory for a copy of the base, and finer where F turns (``integral.py``). What the sums miss is
told: it says how far it is from exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from epigraph.engine import Engine
from epigraph.engine.frozen import free_bytes
from epigraph.engine.inspection import Look
from epigraph.engine.stream import SLOT
from epigraph.explaining.case import Case
from epigraph.explaining.integral import Integral, Path, integrate
from epigraph.explaining.margin import Margin
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.prompts.shown import show

TOGETHER = 8
ROOM = 2  # times the bytes of the copy that must be free: what is computed needs some as well


@dataclass(frozen=True)
class Integrated:
    """What the parts add by integrated gradients, those of the text and those of the prompt each along its path."""

    text: Integral
    prompt: Integral

    @property
    def parts(self) -> list[float]:
        """Of every part, in the order of ``Margin.parts``."""
        return [float(c) for c in self.text.parts + self.prompt.parts]

    @property
    def gap(self) -> float:
        """What the worse of the two sums misses, as a share of it."""
        return max(self.text.gap, self.prompt.gap)


def in_fp32(case: Case) -> Case:
    """The case on a copy of its base that computes in fp32; itself where it does already, or where there is no memory for one."""
    base = case.engine.base
    if base.dtype == torch.float32 or ROOM * 4 * base.parameters > free_bytes(base.device):
        return case
    engine = Engine(base.in_fp32(), keep=False)
    return case if engine.plain else replace(case, model=case.model.on(engine))


def integrated(margin: Margin) -> Integrated:
    """Integrated gradients of every part."""
    vectors = margin.seen.stream.ids[0] == SLOT
    return Integrated(integrate(_path(margin, margin.said)), integrate(_path(margin, vectors, keyed=True)))


def _path(margin: Margin, columns: Bool[Tensor, "Q"], *, keyed: bool = False) -> Path:
    """F and its slope where these columns, and with ``keyed`` the keys and values, have come a share t of their way."""
    x = margin.seen.embedded.detach().float()
    way: Tensor = (x - _mean_embedding(margin)) * columns[:, None].to(x.device)
    dtype = margin.seen.embedded.dtype

    def path(at: Sequence[float]) -> tuple[Float[Tensor, "T"], Float[Tensor, "T N"]]:
        if keyed and len(at) > 1:
            each = [path([t]) for t in at]
            return torch.cat([value for value, _ in each]), torch.cat([slope for _, slope in each])
        t = torch.tensor(at, device=x.device)[:, None, None]
        embedded: Tensor = (x - (1 - t) * way).to(dtype).requires_grad_()
        forms, leaves = _scaled(margin.case.forms, at[0] if keyed else 1.0)
        values = margin.at(forms, Look(embedded=embedded), len(at))
        own, *others = torch.autograd.grad(values.sum(), [embedded, *(leaf for pair in leaves for leaf in pair)])
        slopes = (own.float() * way).sum(-1)[:, : margin.end].cpu()
        return values.detach().cpu(), torch.cat([slopes, _along(margin.case.forms, others, keyed).expand(len(at), -1)], 1)

    return path


def _along(forms: Sequence[Form], gradients: Sequence[Tensor], keyed: bool) -> Float[Tensor, "1 N"]:
    """By how much F grows with t through each vector of keys and values; 0 where these do not move."""
    found = [torch.zeros(1, 0)]
    for form, keys, values in zip(
        [f for f in forms if isinstance(f, KeyValue)], gradients[::2], gradients[1::2], strict=True
    ):
        slope = (keys.cpu() * form.keys.detach().cpu() + values.cpu() * form.values.detach().cpu()).sum((0, 1, 3))
        found.append(slope[None] * keyed)
    return torch.cat(found, 1)


def _mean_embedding(margin: Margin) -> Float[Tensor, "H"]:
    base = margin.case.engine.base
    rows = base.embedding.weight.shape[0]
    return base.embed(torch.arange(0, rows, max(1, rows // 4096))).float().mean(0)


def _scaled(forms: Sequence[Form], t: float) -> tuple[list[Form], list[tuple[Tensor, Tensor]]]:
    """The forms with keys and values scaled by t, and these as leaves; vectors stand in ``embedded`` and stay."""
    along: list[Form] = []
    leaves: list[tuple[Tensor, Tensor]] = []
    for form in forms:
        if isinstance(form, KeyValue):
            keys, values = ((t * x).detach().requires_grad_() for x in (form.keys, form.values))
            leaves.append((keys, values))
            along.append(KeyValue(keys, values))
        else:
            along.append(Embedded(form.vectors.detach()))
    return along, leaves


@torch.no_grad()
def left_out(margin: Margin) -> list[float]:
    """F − F without each part."""
    forms, columns = margin.case.forms, list(range(margin.end))
    width = margin.seen.stream.ids.shape[1]
    found: list[float] = []
    for start in range(0, len(columns), TOGETHER):
        some = columns[start : start + TOGETHER]
        hidden = torch.zeros(len(some), width, dtype=torch.bool)
        hidden[torch.arange(len(some)), torch.tensor(some)] = True
        found += (margin.whole - margin.at(forms, Look(hidden=hidden), len(some))).tolist()
    for block, form in enumerate(forms):
        if isinstance(form, KeyValue):
            for i in range(form.length):
                shown_ones = torch.arange(form.length) != i
                without = [show(f, shown_ones) if b == block else f for b, f in enumerate(forms)]
                found.append(margin.whole - float(margin.at(without, Look())[0]))
    return found
