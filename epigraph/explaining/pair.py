"""Two prompts compared: alike in their vectors, alike in their answers, and what lies between them.

    matching     the assignment of A's vectors to B's with the largest sum of cosines     (Kuhn 1955: the Hungarian method)
    CKA_l        ‖Y_lᵀ X_l‖² / (‖X_lᵀ X_l‖ ‖Y_lᵀ Y_l‖)   centred, linear, of a layer's matched keys and values [P, 2·A·D]
    between(t)   score of  (1 − t) A + t B   with B's vectors in the matched order

Source of CKA: Kornblith et al. 2019, section 3 (https://arxiv.org/abs/1905.00414). With few vectors CKA is large even between
unrelated prompts, so what random vectors of the same sizes reach stands beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from epigraph import metrics
from epigraph.errors import BaseMismatch, InputError, Unsupported
from epigraph.explaining.case import Case, kappa, pick, share
from epigraph.explaining.judged import is_right, said
from epigraph.explaining.sensitivity import shown
from epigraph.methods import judge
from epigraph.methods.judge import Answer
from epigraph.metrics import Interval
from epigraph.model import PromptModel
from epigraph.prompts import Embedded, Form, KeyValue, plain_forms
from epigraph.tasks.row import Row

POINTS, EXAMPLES = 11, 8


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """How alike the vectors are: ``cosine`` of matched ones, ``cka`` a layer (empty for vectors), and both at random."""

    cosine: float
    cosine_random: float
    cka: tuple[float, ...]
    cka_random: float
    matched: int


@dataclass(frozen=True, kw_only=True)
class Differs:
    """A row that the two answer differently."""

    text: str
    first: str
    second: str
    truth: str


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two prompts compared. ``between`` is the score at t = 0, 0.1 … 1, empty where nothing lies between; ``why_not`` says why."""

    first: str
    second: str
    similarity: Similarity | None
    scores: tuple[Interval, Interval]
    change: Interval
    agreement: Interval
    kappa: Interval | None
    p: float | None
    differs: tuple[Differs, ...]
    between: tuple[Interval, ...]
    why_not: str
    metric: str
    rows: int
    how: str


def compare_pair(case: Case, most_rows: int = 120) -> Pair:
    """Compare the case's prompt with the other one. InputError if they have other labels, BaseMismatch on another base."""
    assert case.other is not None
    check_pair(case.model, case.other)
    among = pick(case, most_rows, scored=True)
    rows = [case.rows[i] for i in among]
    mine = [case.answers[i] for i in among]
    theirs = judge.answer(case.other.method, rows).given
    matched, similarity, why_not = _vectors(case)
    between, why_not = ((), why_not) if why_not else _between(case, matched, among)
    differs = [i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b]
    return Pair(
        first=case.model.card.reference,
        second=case.other.card.reference,
        similarity=similarity,
        scores=(case.score(mine, among), case.score(theirs, among)),
        change=case.change(mine, theirs, among),
        agreement=share([a == b for a, b in zip(mine, theirs, strict=True)]),
        kappa=None if case.task.writes else kappa(mine, theirs, case.config.seed),
        p=_p_value(case, rows, mine, theirs),
        differs=tuple(
            Differs(text=shown(rows[i]), first=said(mine[i]), second=said(theirs[i]), truth=rows[i].target or "")
            for i in differs[:EXAMPLES]
        ),
        between=between,
        why_not=why_not,
        metric=case.metric_name,
        rows=len(among),
        how=f"Answers of both on {len(among)} rows of {case.source}; vectors matched one to one, and mixed in a straight line.",
    )


def _p_value(case: Case, rows: Sequence[Row], mine: Sequence[Answer], theirs: Sequence[Answer]) -> float | None:
    """McNemar's p-value of "both are exactly right equally often"; None where no truths are known or answers are written."""
    if not case.labelled or case.task.writes:
        return None
    right = [np.array([is_right(row, answer) for row, answer in zip(rows, given, strict=True)]) for given in (mine, theirs)]
    return metrics.mcnemar(*right)


def check_pair(first: PromptModel, second: PromptModel) -> None:
    """InputError if two prompts do not answer the same task, BaseMismatch if they stand on other bases."""
    mine, theirs = first.card, second.card
    if mine.base.fingerprint != theirs.base.fingerprint:
        raise BaseMismatch(
            f"prompt {theirs.reference!r} stands on base {theirs.base.name}, {mine.reference!r} on {mine.base.name}.",
            "Compare prompts of one base.",
        )
    if set(first.task.labels) != set(second.task.labels) or first.task.kind != second.task.kind:
        raise InputError(
            f"prompt {mine.reference!r} answers {_answers_in_words(first)}, {theirs.reference!r} {_answers_in_words(second)}.",
            "Compare prompts of one task.",
        )


def _answers_in_words(model: PromptModel) -> str:
    ways = {"generation": "in text", "choice": "one of a row's choices", "multilabel": "any of "}
    return f"{ways.get(model.task.kind, '')}{', '.join(model.task.labels)}"


def _vectors(case: Case) -> tuple[list[Form] | None, Similarity | None, str]:
    """B's forms in the order of A's vectors, how alike they are, and why their vectors can't be compared ("": they can)."""
    assert case.other is not None
    if case.no_forms or case.other.method.members > 1:
        return None, None, "vectors are compared of two single prompts that are the same for every text"
    try:
        return *match(case.forms, plain_forms(case.other.method.forms, "a comparison of vectors")), ""
    except Unsupported as refused:
        return None, None, refused.message


def match(first: Sequence[Form], second: Sequence[Form]) -> tuple[list[Form] | None, Similarity | None]:
    """B's forms in the order of A's vectors (None where nothing can be mixed), and how alike they are; None for other forms."""
    from scipy.optimize import linear_sum_assignment

    if len(first) != len(second) or any(
        type(a) is not type(b) or a.length == 0 or b.length == 0 for a, b in zip(first, second, strict=True)
    ):
        return None, None
    ordered: list[Form] = []
    cosines, ckas, chance = [], [], []
    for a, b in zip(first, second, strict=True):
        x, y = _rows(a), _rows(b)
        cosine = torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(y, dim=1).T
        left, right = linear_sum_assignment(-cosine.numpy())
        cosines += cosine[left, right].tolist()
        ordered.append(_taken(b, right))
        if isinstance(a, KeyValue) and isinstance(b, KeyValue):
            ckas.append([cka(u[left], v[right]) for u, v in zip(_by_layer(a), _by_layer(b), strict=True)])
        chance.append(_at_random(x, y, _width(a)))
    similarity = Similarity(
        cosine=float(np.mean(cosines)),
        cosine_random=float(np.mean([c for c, _ in chance])),
        cka=tuple(float(v) for v in np.mean(ckas, 0)) if ckas else (),
        cka_random=float(np.mean([k for _, k in chance])),
        matched=len(cosines),
    )
    same = all(a.length == b.length for a, b in zip(first, second, strict=True))
    return (ordered if same else None), similarity


def _rows(form: Form) -> Tensor:
    """A form as one row a vector; each layer's keys and values in units of their rms, so that none drowns the others."""
    if isinstance(form, Embedded):
        return form.vectors.detach().float().cpu()
    parts = [part.detach().float().cpu() for part in (form.keys, form.values)]
    scaled = [part / part.pow(2).mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-9) for part in parts]
    return torch.stack(scaled).permute(3, 0, 1, 2, 4).flatten(1)


def _by_layer(form: KeyValue) -> list[Tensor]:
    return [
        torch.cat([k, v], -1).transpose(0, 1).flatten(1).detach().float().cpu()
        for k, v in zip(form.keys, form.values, strict=True)
    ]


def _taken(form: Form, order: np.ndarray) -> Form:
    index = torch.tensor(order)
    if isinstance(form, Embedded):
        return Embedded(form.vectors[index])
    return KeyValue(form.keys[:, :, index], form.values[:, :, index])


def cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA of matched rows; 1 for equal up to rotation and scale."""
    x, y = x - x.mean(0), y - y.mean(0)
    across = (y.T @ x).pow(2).sum()
    return float(across / ((x.T @ x).norm() * (y.T @ y).norm()).clamp(min=1e-12))


def _width(form: Form) -> int:
    """Numbers of a vector, or of a layer's keys and values of a position."""
    return form.vectors.shape[-1] if isinstance(form, Embedded) else 2 * form.keys.shape[1] * form.keys.shape[3]


def _at_random(x: Tensor, y: Tensor, width: int) -> tuple[float, float]:
    """The matched cosine and the CKA of random vectors of these sizes; ``width`` is a layer's."""
    from scipy.optimize import linear_sum_assignment

    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(z.shape, generator=draw) for z in (x, y))
    cosine = torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T
    left, right = linear_sum_assignment(-cosine.numpy())
    return float(cosine[left, right].mean()), cka(a[left, :width], b[right, :width])


def _between(case: Case, matched: list[Form] | None, among: Sequence[int]) -> tuple[tuple[Interval, ...], str]:
    assert case.other is not None
    if matched is None:
        return (), "their forms or lengths differ, so there is no straight line between them"
    if case.other.task.template.text != case.model.task.template.text:
        return (), "they stand in different templates, so what lies between has no place"
    found = []
    for t in np.linspace(0, 1, POINTS):
        forms = [_mixed(a, b, float(t)) for a, b in zip(case.forms, matched, strict=True)]
        found.append(case.score(case.answers_of(forms, among), among))
    return tuple(found), ""


def _mixed(a: Form, b: Form, t: float) -> Form:
    if isinstance(a, Embedded) and isinstance(b, Embedded):
        return Embedded((1 - t) * a.vectors + t * b.vectors)
    assert isinstance(a, KeyValue)
    assert isinstance(b, KeyValue)
    return KeyValue((1 - t) * a.keys + t * b.keys, (1 - t) * a.values + t * b.values)
