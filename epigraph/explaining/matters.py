"""What matters: each vector (and, for keys and values, each layer) left out, and the fewest vectors that do.

    change(v) = score(prompt without v) − score(prompt)        paired bootstrap over the rows

Left out means hidden from every softmax while all positions stay (``prompts.shown``): the one clean intervention. Bases that are
run by plain concatenation hide nothing; there the prompt closes up. The fewest vectors are found by backward elimination
(Guyon & Elisseeff 2003, section 4, https://www.jmlr.org/papers/v3/guyon03a.html): of the vectors that are left, the one is dropped
without which the prompt's own answers stay likeliest, on one half of the rows; the scores are of the other half. What is dropped for
good closes up, since that is how the shorter prompt will be stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from epigraph import metrics
from epigraph.evaluation import evaluate
from epigraph.explaining.case import Case, halves, pick, share
from epigraph.library import Card, Lineage
from epigraph.methods.solver import PromptedBase
from epigraph.metrics import Interval
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.prompts.shown import show, without
from epigraph.tasks.encode import Encoded

KEPT = 0.99
MOST_GREEDY = 12
Vector = tuple[int, int]  # block, number in it


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What leaving something out does. ``change`` is of the score, ``changed`` the share of answers that become others."""

    what: str
    score: Interval
    change: Interval
    changed: Interval


@dataclass(frozen=True, kw_only=True)
class Shorter:
    """A prompt of fewer vectors, closed up. ``kept`` are (block, number in it)."""

    kept: tuple[Vector, ...]
    score: Interval
    agreement: Interval


@dataclass(frozen=True, kw_only=True)
class Matters:
    """What each part of the prompt is worth."""

    metric: str
    rows: int
    score: Interval
    without_prompt: Interval
    vectors: tuple[Removal, ...]
    layers: tuple[Removal, ...]
    shorter: tuple[Shorter, ...]
    fewest: Shorter
    how: str


def measure_parts(case: Case, most_rows: int = 100) -> Matters:
    """Leave out every vector, every layer, and ever more vectors."""
    among = pick(case, most_rows)
    rows = [case.encoded[i] for i in among]
    whole = [case.answers[i] for i in among]
    vectors = all_vectors(case.forms)
    singles = tuple(_removal(case, among, rows, whole, _named(v, case), _hidden(case, [v])) for v in vectors)
    layers = _layers(case, among, rows, whole)
    choosing, judged = halves(among, case.config.seed)
    path = _shorten(case, vectors, [case.encoded[i] for i in choosing])
    held = [case.encoded[i] for i in judged]
    shorter = tuple(_shorter(case, kept, judged, held) for kept in path)
    enough = KEPT * shorter[0].score.value
    fewest = min((s for s in shorter if s.score.value >= enough), key=lambda s: len(s.kept))
    hidden = "positions close up, since this base hides nothing" if case.engine.plain else "all positions stay"
    return Matters(
        metric=case.metric_name,
        rows=len(among),
        score=case.score(whole, among),
        without_prompt=case.score(case.answers_of(_kept(case.forms, []), rows), among),
        vectors=singles,
        layers=layers,
        shorter=shorter,
        fewest=fewest,
        how=f"Each part left out of the attention in turn ({hidden}), {len(among)} rows of {case.source}; 95% intervals by "
        f"paired bootstrap over the rows. Shorter prompts: chosen on {len(choosing)} of these rows, scored closed up on the other "
        f"{len(judged)}.",
    )


def all_vectors(forms: Sequence[Form]) -> list[Vector]:
    """Every vector of every block."""
    return [(b, i) for b, form in enumerate(forms) for i in range(form.length)]


def _named(vector: Vector, case: Case) -> str:
    block, number = vector
    return f"{number + 1}" if len(case.forms) == 1 else f"{block + 1}.{number + 1}"


def _hidden(case: Case, vectors: Sequence[Vector]) -> list[Form]:
    """The forms with these vectors hidden, or taken out where nothing can be hidden."""
    forms = case.forms
    if case.engine.plain:
        return _kept(forms, [v for v in all_vectors(forms) if v not in set(vectors)])
    return [
        show(form, torch.tensor([(b, i) not in set(vectors) for i in range(form.length)], dtype=torch.bool))
        for b, form in enumerate(forms)
    ]


def _kept(forms: Sequence[Form], vectors: Sequence[Vector]) -> list[Form]:
    """The forms of these vectors only, closed up."""
    return [without(form, [i for b, i in vectors if b == block]) for block, form in enumerate(forms)]


def _layers(case: Case, among: Sequence[int], rows: Sequence[Encoded], whole: Sequence[str]) -> tuple[Removal, ...]:
    if not all(isinstance(form, KeyValue) for form in case.forms):
        return ()
    found = []
    for layer in range(case.engine.base.layers):
        forms = []
        for form in case.forms:
            shown = torch.ones(case.engine.base.layers, form.length, dtype=torch.bool)
            shown[layer] = False
            forms.append(show(form, shown))
        found.append(_removal(case, among, rows, whole, str(layer + 1), forms))
    return tuple(found)


def _removal(
    case: Case, among: Sequence[int], rows: Sequence[Encoded], whole: Sequence[str], what: str, forms: Sequence[Form]
) -> Removal:
    answers = case.answers_of(forms, rows)
    seed = case.config.seed
    change = metrics.paired_bootstrap(case.metric(whole, among), case.metric(answers, among), len(rows), seed=seed)
    changed = share([a != b for a, b in zip(whole, answers, strict=True)])
    return Removal(what=what, score=case.score(answers, among), change=change, changed=changed)


def _shorten(case: Case, vectors: list[Vector], rows: Sequence[Encoded]) -> list[list[Vector]]:
    """Ever shorter lists of vectors, the whole first, none last."""
    if len(vectors) > MOST_GREEDY:
        loss = {v: _loss(case, [w for w in vectors if w != v], rows) for v in vectors}
        ranked = sorted(vectors, key=lambda v: -loss[v])
        sizes = sorted({round(len(vectors) * part) for part in (1, 0.75, 0.5, 0.375, 0.25, 0.125)} | {1, 2, 0}, reverse=True)
        return [sorted(ranked[:size]) for size in sizes]
    path, left = [list(vectors)], list(vectors)
    while left:
        drop = min(left, key=lambda v: _loss(case, [w for w in left if w != v], rows)) if len(left) > 1 else left[0]
        left = [v for v in left if v != drop]
        path.append(left)
    return path


def _loss(case: Case, kept: Sequence[Vector], rows: Sequence[Encoded]) -> float:
    """How unlikely the whole prompt's answers become, in nats; for written answers, the share that changes."""
    forms = _kept(case.forms, kept)
    if not case.has_labels:
        whole = case.answers_of(case.forms, rows)
        return float(np.mean([a != b for a, b in zip(whole, case.answers_of(forms, rows), strict=True)]))
    method: PromptedBase = case.method
    chosen = method.label_probabilities(rows).argmax(1)
    found = method.with_forms(forms).label_probabilities(rows)
    return float(-np.log(np.maximum(found[np.arange(len(rows)), chosen], 1e-12)).mean())


def _shorter(case: Case, kept: Sequence[Vector], among: Sequence[int], rows: Sequence[Encoded]) -> Shorter:
    answers = case.answers_of(_kept(case.forms, kept), rows)
    agreement = share([a == case.answers[i] for a, i in zip(answers, among, strict=True)])
    return Shorter(kept=tuple(kept), score=case.score(answers, among), agreement=agreement)


def prune(case: Case, found: Matters, name: str) -> tuple[list[Form], Card]:
    """The fewest vectors that keep 99% of the score as a prompt of its own: its forms, and a card with its measured scores."""
    kept = list(found.fewest.kept)
    for block in range(len(case.forms)):  # a block that lost all its vectors keeps its first
        kept += [] if any(b == block for b, _ in kept) else [(block, 0)]
    forms = [_plain(form) for form in _kept(case.forms, sorted(kept))]
    card, length = case.model.card, sum(form.length for form in case.forms)
    scores = evaluate(case.method.with_forms(forms), case.rows, split="test").json if case.labelled else {}
    numbers = sum(f.vectors.numel() if isinstance(f, Embedded) else f.keys.numel() + f.values.numel() for f in forms)
    cost = {**card.cost, "kept_parameters": numbers, "kept_bytes": 4 * numbers, "added_tokens": len(kept)}
    how = (
        f"pruned from {length} to {len(kept)} vectors, those that keep {KEPT:.0%} of the {found.metric} on {found.rows} rows"
    )
    return forms, replace(
        card,
        name=name,
        version=0,
        lengths=(),
        files={},
        scores=scores,
        cost=cost,
        settings={**card.settings, "length": max(form.length for form in forms)},
        lineage=Lineage(parents=(card.reference, *card.lineage.parents), how=how),
    )


def _plain(form: Form) -> Form:
    if isinstance(form, Embedded):
        return Embedded(form.vectors.detach().float().cpu().contiguous())
    return KeyValue(form.keys.detach().float().cpu().contiguous(), form.values.detach().float().cpu().contiguous())
