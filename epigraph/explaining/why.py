"""Why this answer: what adds to it (``contributions.py``), how often such an answer is right, and what the base finds alike.

The nearest examples (training rows where they are known, at most 2,000 of them, drawn at random) are those whose frozen state (the last
layer's at the last token, the mean taken off) has the largest cosine: what the base itself finds alike, whatever the prompt.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from epigraph.engine.frozen import Text
from epigraph.errors import Unsupported
from epigraph.explaining.case import Case, share
from epigraph.explaining.contributions import Integrated, in_fp32, integrated, left_out
from epigraph.explaining.judged import said
from epigraph.explaining.margin import Margin
from epigraph.explaining.sensitivity import shown
from epigraph.methods import judge
from epigraph.metrics import Interval
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row

MISSED = 0.1  # of their sum, from which on integrated gradients are not relied on
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
    """One answer explained. ``agreement`` is Spearman's rank correlation of the two methods over the parts, but for the template's
    own tokens; ``gap`` what the worse sum of integrated gradients misses, as a share of what it explains."""

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


def explain_answer(case: Case, row: Row, among: Sequence[Row] = (), source: str = "the training rows") -> Why:
    """Explain the answer to one row; ``among`` are rows to look for neighbours in, and ``source`` says which these are."""
    if case.engine.plain:
        raise Unsupported(
            "contributions need a look into the attention, which a base that is run by plain concatenation does not give."
        )
    among, source = _some(among, source, case.config.seed)
    margin = Margin(case, row)
    looked = _looked_into(case, margin)
    gradients, without = integrated(looked), left_out(looked)
    parts = tuple(
        Part(what=name, prompt=prompt, integrated=a, left_out=b)
        for (name, prompt), a, b in zip(looked.parts(), gradients.parts, without, strict=True)
    )
    return Why(
        text=shown(row, 400),
        answer=margin.answer,
        instead=looked.instead,
        margin=looked.whole,
        probabilities=margin.probabilities,
        parts=parts,
        agreement=agreement(looked, gradients.parts, without),
        gap=gradients.gap,
        neighbours=tuple(_neighbours(case, margin.encoded, among)),
        neighbours_of=source,
        reliable=_reliable(case, margin),
        how=_how(gradients, looked),
    )


def _looked_into(case: Case, margin: Margin) -> Margin:
    """The answer in fp32; as it was given where it is another one there, as can happen where two are equally likely."""
    finer = in_fp32(case)
    found = margin if finer is case else Margin(finer, margin.row)
    return found if found.answer == margin.answer else margin


def agreement(margin: Margin, gradients: Sequence[float], without: Sequence[float]) -> float:
    """How alike the two methods rank what the row says and the prompt's vectors; the template's words stand still in one of them."""
    said = [*margin.said.tolist(), *[False] * len(gradients)]
    compared = [i for i, (_, prompt) in enumerate(margin.parts()) if prompt or said[i]]
    return rank_correlation([gradients[i] for i in compared], [without[i] for i in compared])


def _how(found: Integrated, margin: Margin) -> str:
    """The methods in words, and what the sums miss."""
    text, prompt = found.text, found.prompt
    return (
        f"Integrated gradients of what the row says, from the mean embedding to its own in a template that stays, which brings "
        f"{text.total:+.1f} nats (the sum misses {text.gap:.0%}), and of the prompt from the mean embedding, keys and values from zero, "
        f"which brings {prompt.total:+.1f} (misses {prompt.gap:.0%}), at {text.places} and {prompt.places} places, in "
        f"{margin.case.engine.base.precision.name}; leave-one-out with all positions kept. What both say may be believed; where they "
        f"differ, neither alone."
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
