"""Why this answer: what each token of the text and each vector of the prompt adds, by two methods that can disagree.

    F = log p(answer) − log p(next best)
    integrated gradients   c_i = (x_i − x̄) · mean over t of ∂F(x̄ + t (x − x̄)) / ∂x_i          Σ c_i = F(x) − F(x̄)
    leave-one-out          c_i = F − F without i       (left out of every softmax, positions kept)

Sources: Sundararajan et al. 2017, section 3 (https://arxiv.org/abs/1703.01365); leave-one-out: Li et al. 2016
(https://arxiv.org/abs/1612.08220). x̄ is the mean of the embedding table for tokens and vectors, zero for keys and values. The gap of
the sum is reported: it says how far the integral is from exact. Where answers are written, F is the log-probability of the first token.

The nearest training examples are those whose frozen state (the last layer's at the last token, the mean taken off) has the largest
cosine: what the base itself finds alike, whatever the prompt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from epigraph.engine.frozen import Text
from epigraph.engine.inspection import Look, Seen, inspect, label_tail, tree_scores
from epigraph.engine.stream import SLOT, Tail
from epigraph.errors import Unsupported
from epigraph.explaining.case import Case
from epigraph.explaining.sensitivity import shown
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.prompts.shown import show
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row

STEPS, TOGETHER = 16, 8
NEAREST = 5


@dataclass(frozen=True, kw_only=True)
class Part:
    """A token of the text or a vector of the prompt, and what it adds to F by either method, in nats."""

    what: str
    prompt: bool
    integrated: float
    left_out: float


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A training example that the base finds alike: its text, its label, the cosine, and the prompt's answer to it."""

    text: str
    label: str
    similarity: float
    answer: str


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
    how: str


def explain_answer(case: Case, row: Row, among: Sequence[Row] = ()) -> Why:
    """Explain the answer to one row; ``among`` are rows to look for neighbours in."""
    if case.engine.plain:
        raise Unsupported(
            "contributions need a look into the attention, which a base that is run by plain concatenation does not give."
        )
    (encoded,) = case.method.encode([row])
    margin = _Margin(case, encoded)
    integrated, total = _integrate(margin)
    left_out = _leave_out(margin)
    names = margin.names()
    parts = tuple(
        Part(what=name, prompt=prompt, integrated=float(a), left_out=float(b))
        for (name, prompt), a, b in zip(names, integrated, left_out, strict=True)
    )
    gap = abs(float(sum(integrated)) - total) / max(1e-9, abs(total))
    return Why(
        text=shown(row, 400),
        answer=margin.answer,
        instead=margin.instead,
        margin=margin.whole,
        probabilities=margin.probabilities,
        parts=parts,
        agreement=rank_correlation(integrated, left_out),
        gap=gap,
        neighbours=tuple(_neighbours(case, encoded, among)),
        how=f"Integrated gradients from the mean embedding in {STEPS} steps (the sum misses {gap:.0%}); leave-one-out with all positions "
        f"kept. What both say may be believed; where they differ, neither alone.",
    )


class _Margin:
    """F of one row, for any vectors of its tokens and any forms."""

    def __init__(self, case: Case, encoded: Encoded) -> None:
        self.case, self.encoded = case, encoded
        with torch.no_grad():
            self.seen = self._pass(1, case.forms, Look())
            scores = self._scores(self.seen)[0]
        order = scores.argsort(descending=True)
        self.best, self.second = int(order[0]), int(order[1])
        names = case.labels if case.has_labels else None
        decode = case.engine.base.tokenizer.decode
        self.answer, self.instead = (names[i] if names else decode([i]) for i in (self.best, self.second))
        self.probabilities = {name: float(scores[i].exp()) for i, name in enumerate(names)} if names else {}
        self.whole = float(self.of(self.seen)[0])
        self.end = int(self.seen.stream.ends[0])

    def _pass(self, copies: int, forms: Sequence[Form], look: Look) -> Seen:
        case = self.case
        tail = label_tail(case.method.tree, copies) if case.has_labels else Tail([()] * copies)
        return inspect(case.engine, [self.encoded] * copies, forms, tail, look)

    def _scores(self, seen: Seen) -> Tensor:
        engine = self.case.engine
        if self.case.has_labels:
            return tree_scores(engine, seen.hidden, seen.stream.ends, self.case.method.tree)
        at = torch.arange(len(seen.hidden), device=seen.hidden.device)
        return torch.log_softmax(engine.trunk.logits(seen.hidden[at, (seen.stream.ends - 1).to(at.device)]), -1)

    def of(self, seen: Seen) -> Tensor:
        """F of every row of a pass."""
        scores = self._scores(seen)
        return scores[:, self.best] - scores[:, self.second]

    def at(self, forms: Sequence[Form], look: Look, copies: int = 1) -> Tensor:
        """F under these forms and this look."""
        return self.of(self._pass(copies, forms, look))

    @property
    def columns(self) -> list[int]:
        """The own columns of tokens and prompt vectors, in order."""
        return list(range(self.end))

    def names(self) -> list[tuple[str, bool]]:
        """What stands in every column, then every vector of keys and values."""
        decode, number = self.case.engine.base.tokenizer.decode, 0
        found = []
        for token in self.seen.stream.ids[0, : self.end].tolist():
            number += token == SLOT
            found.append((f"vector {number}", True) if token == SLOT else (decode([token]), False))
        keyed = sum(f.length for f in self.case.forms if isinstance(f, KeyValue))
        return found + [(f"vector {i + 1}", True) for i in range(keyed)]


def _integrate(margin: _Margin) -> tuple[list[float], float]:
    """Integrated gradients of every part, and F(x) − F(x̄)."""
    forms, base = margin.case.forms, margin.case.engine.base
    some = torch.arange(0, base.embedding.weight.shape[0], max(1, base.embedding.weight.shape[0] // 4096))
    x = margin.seen.embedded.detach()
    start = x.clone()
    start[:, : margin.end] = base.embed(some).mean(0)
    own = torch.zeros_like(x[0])
    keyed = [torch.zeros(2, *f.keys.shape) for f in forms if isinstance(f, KeyValue)]
    for t in (torch.arange(STEPS) + 0.5) / STEPS:
        embedded = (start + t * (x - start)).requires_grad_()
        along, leaves = _scaled(forms, float(t))
        value = margin.at(along, Look(embedded=embedded))[0]
        gradients = torch.autograd.grad(value, [embedded, *leaves])
        own += gradients[0][0] / STEPS
        for total, pair in zip(keyed, zip(gradients[1::2], gradients[2::2], strict=True), strict=True):
            total += torch.stack([g.cpu() for g in pair]) / STEPS
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
def _leave_out(margin: _Margin) -> list[float]:
    """F − F without each part."""
    forms, columns = margin.case.forms, margin.columns
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
    answers: Callable[..., Any] = case.method.probabilities if case.has_labels else case.method.outputs
    said = answers([rows[i] for i in best])
    names = [case.labels[int(p.argmax())] for p in said] if case.has_labels else list(said)
    return [
        Neighbour(text=shown(rows[i]), label=rows[i].target or "", similarity=float(near[i]), answer=name)
        for i, name in zip(best, names, strict=True)
    ]


def _frozen(row: Encoded) -> Encoded:
    """The row's beginning; where the prompt comes first, all its tokens without the prompt."""
    if row.segments[0]:
        return Encoded((row.segments[0], ()), lead=row.lead)
    return Encoded((tuple(token for segment in row.segments for token in segment), ()))
