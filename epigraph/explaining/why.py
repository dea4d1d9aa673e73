"""Why this answer: what each token of the text and each vector of the prompt adds, by two methods that can disagree.

    F = log p(answer) − log p(next best)      (``margin.py``; calibrated, and the answer is that of ``predict``)
    integrated gradients   c_i = (x_i − x̄) · mean over t of ∂F(x̄ + t (x − x̄)) / ∂x_i          Σ c_i = F(x) − F(x̄)
    leave-one-out          c_i = F − F without i       (left out of every softmax, positions kept)

Sources: Sundararajan et al. 2017, section 3 (https://arxiv.org/abs/1703.01365); leave-one-out: Li et al. 2016
(https://arxiv.org/abs/1612.08220). x̄ is the mean of the embedding table for tokens and vectors, zero for keys and values. The gap of
the sum is reported: it says how far the integral is from exact. Where answers are written, F is the log-probability of the first token.

The nearest examples (training rows where they are known, at most 2,000 of them, drawn at random) are those whose frozen state (the last
layer's at the last token, the mean taken off) has the largest cosine: what the base itself finds alike, whatever the prompt.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from epigraph.engine.frozen import Text
from epigraph.engine.inspection import Look
from epigraph.errors import Unsupported
from epigraph.explaining.case import Case, share
from epigraph.explaining.judged import said
from epigraph.explaining.margin import Margin
from epigraph.explaining.sensitivity import shown
from epigraph.methods import judge
from epigraph.metrics import Interval
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.prompts.shown import show
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row

STEPS, FINER, MISSED = 16, 64, 0.1  # steps, and how many where the sum misses more than that
TOGETHER = 8
NEAREST, LOOKED_AT = 5, 2000  # rows; of more the states take minutes to read


@dataclass(frozen=True, kw_only=True)
class Part:
    """A token of the text or a vector of the prompt, and what it adds to F by either method, in nats."""

    what: str
    prompt: bool
    integrated: float
    left_out: float


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A known row that the base finds alike: its text, its label, the cosine, and the prompt's answer to it."""

    text: str
    label: str
    similarity: float
    answer: str


@dataclass(frozen=True, kw_only=True)
class Reliable:
    """Of ``rows`` rows that were answered with a probability from ``low`` to ``high``, the share that was right."""

    low: float
    high: float
    rows: int
    right: Interval

    @property
    def words(self) -> str:
        """The same as a sentence."""
        span = f"with a probability of {self.low:.1f} to {self.high:.1f}"
        if not self.rows:
            return f"None of the rows was answered {span}: how often such an answer is right is not known."
        bounds = f"{self.right.value:.0%} [{self.right.low:.0%}–{self.right.high:.0%}]"
        return f"Of {self.rows} rows answered {span}, {bounds} were right."


@dataclass(frozen=True, kw_only=True)
class Why:
    """One answer explained. ``agreement`` is Spearman's rank correlation of the two methods over the parts; ``gap`` what the sum
    of integrated gradients misses, as a share of F(x) − F(x̄)."""

    text: str
    answer: str
    instead: str
    margin: float
    probabilities: dict[str, float]
    parts: tuple[Part, ...]
    agreement: float
    gap: float
    neighbours: tuple[Neighbour, ...]
    neighbours_of: str
    reliable: Reliable | None
    how: str

    @property
    def sums(self) -> bool:
        """Whether the integrated gradients add up to what they explain, but for a tenth."""
        return self.gap <= MISSED

    def worth(self, part: Part) -> float:
        """What a part adds: by integrated gradients where they add up, else by leaving it out."""
        return part.integrated if self.sums else part.left_out


def explain_answer(case: Case, row: Row, among: Sequence[Row] = (), source: str = "the training rows") -> Why:
    """Explain the answer to one row; ``among`` are rows to look for neighbours in, and ``source`` says which these are."""
    if case.engine.plain:
        raise Unsupported(
            "contributions need a look into the attention, which a base that is run by plain concatenation does not give."
        )
    among, source = _some(among, source, case.config.seed)
    margin = Margin(case, row)
    steps, (integrated, total) = STEPS, _integrate(margin, STEPS)
    if _gap(integrated, total) > MISSED:
        steps, (integrated, total) = FINER, _integrate(margin, FINER)
    left_out = _leave_out(margin)
    parts = tuple(
        Part(what=name, prompt=prompt, integrated=float(a), left_out=float(b))
        for (name, prompt), a, b in zip(margin.parts(), integrated, left_out, strict=True)
    )
    gap = _gap(integrated, total)
    return Why(
        text=shown(row, 400),
        answer=margin.answer,
        instead=margin.instead,
        margin=margin.whole,
        probabilities=margin.probabilities,
        parts=parts,
        agreement=rank_correlation(integrated, left_out),
        gap=gap,
        neighbours=tuple(_neighbours(case, margin.encoded, among)),
        neighbours_of=source,
        reliable=_reliable(case, margin),
        how=f"Integrated gradients from the mean embedding, of keys and values from zero, in {steps} steps (the sum misses {gap:.0%}); "
        f"leave-one-out with all positions kept. What both say may be believed; where they differ, neither alone.",
    )


def _reliable(case: Case, margin: Margin) -> Reliable | None:
    """How often answers given as surely as this one are right; None where there are no truths, or an answer is not one label."""
    if not case.labelled or not case.has_labels or case.clock.over:
        return None
    sure = margin.probabilities[margin.answer]
    low = min(int(sure * 10), 9) / 10
    given = np.array([case.probabilities[i, case.chosen[i]] for i in case.known])
    alike = [i for i, p in zip(case.known, given, strict=True) if low <= p < low + 0.1 or (low == 0.9 and p >= 1)]
    return Reliable(low=low, high=low + 0.1, rows=len(alike), right=share(case.right(alike)))


def _gap(contributions: Sequence[float], total: float) -> float:
    """What their sum misses, as a share of it."""
    return abs(sum(contributions) - total) / max(1e-9, abs(total))


def _integrate(margin: Margin, steps: int) -> tuple[list[float], float]:
    """Integrated gradients of every part, and F(x) − F(x̄)."""
    forms, base = margin.case.forms, margin.case.engine.base
    some = torch.arange(0, base.embedding.weight.shape[0], max(1, base.embedding.weight.shape[0] // 4096))
    x = margin.seen.embedded.detach()
    start = x.clone()
    start[:, : margin.end] = base.embed(some).mean(0)
    own = torch.zeros_like(x[0])
    keyed = [torch.zeros(2, *f.keys.shape) for f in forms if isinstance(f, KeyValue)]
    for t in (torch.arange(steps) + 0.5) / steps:
        embedded = (start + t * (x - start)).requires_grad_()
        along, leaves = _scaled(forms, float(t))
        value = margin.at(along, Look(embedded=embedded))[0]
        gradients = torch.autograd.grad(value, [embedded, *leaves])
        own += gradients[0][0] / steps
        for total, pair in zip(keyed, zip(gradients[1::2], gradients[2::2], strict=True), strict=True):
            total += torch.stack([g.cpu() for g in pair]) / steps
    found = ((x - start)[0] * own).sum(-1)[: margin.end].tolist()
    for total, form in zip(keyed, [f for f in forms if isinstance(f, KeyValue)], strict=True):
        found += (total * torch.stack([form.keys, form.values]).cpu()).sum(dim=(0, 1, 2, 4)).tolist()
    with torch.no_grad():
        nothing = float(margin.at(_scaled(forms, 0.0)[0], Look(embedded=start))[0])
    return found, margin.whole - nothing


def _scaled(forms: Sequence[Form], t: float) -> tuple[list[Form], list[Tensor]]:
    """The forms with keys and values scaled by t, and these as leaves; vectors stand in ``embedded`` and stay."""
    along: list[Form] = []
    leaves: list[Tensor] = []
    for form in forms:
        if isinstance(form, KeyValue):
            keys, values = ((t * x).detach().requires_grad_() for x in (form.keys, form.values))
            leaves += [keys, values]
            along.append(KeyValue(keys, values))
        else:
            along.append(Embedded(form.vectors.detach()))
    return along, leaves


@torch.no_grad()
def _leave_out(margin: Margin) -> list[float]:
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


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's ρ; 0 where one of the two is constant."""
    from scipy.stats import rankdata

    a, b = (np.asarray(rankdata(x)) for x in (first, second))
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _some(rows: Sequence[Row], source: str, seed: int) -> tuple[Sequence[Row], str]:
    """At most ``LOOKED_AT`` of the rows, and what they are in words."""
    if len(rows) <= LOOKED_AT:
        return rows, source
    return random.Random(seed).sample(list(rows), LOOKED_AT), f"{LOOKED_AT:,} rows drawn from {source} ({len(rows):,})"


def _neighbours(case: Case, encoded: Encoded, rows: Sequence[Row]) -> list[Neighbour]:
    """The rows whose frozen state is nearest."""
    if len(rows) < 2:
        return []
    lines = [_frozen(row) for row in (encoded, *case.method.encode(rows))]
    case.engine.freeze(lines)
    states = case.engine.store.summaries([Text(line.segments[0], line.lead) for line in lines], torch.device("cpu"))[:, 0]
    states = states - states[1:].mean(0)
    near = torch.nn.functional.cosine_similarity(states[:1], states[1:])
    best = [int(i) for i in near.argsort(descending=True) if dict(rows[int(i)].fields) != {}][:NEAREST]
    given = judge.answer(case.method, [rows[i] for i in best]).given
    return [
        Neighbour(text=shown(rows[i]), label=rows[i].target or "", similarity=float(near[i]), answer=said(answer))
        for i, answer in zip(best, given, strict=True)
    ]


def _frozen(row: Encoded) -> Encoded:
    """The row's beginning; where the prompt comes first, all its tokens without the prompt."""
    if row.segments[0]:
        return Encoded((row.segments[0], ()), lead=row.lead)
    return Encoded((tuple(token for segment in row.segments for token in segment), ()))
