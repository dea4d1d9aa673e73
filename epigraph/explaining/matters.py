"""What matters: each vector, groups of them (and, for keys and values, each layer) left out, and the fewest vectors that do.

    change(v) = score(prompt without v) − score(prompt)        paired bootstrap over the rows

Left out means hidden from every softmax while all positions stay (``prompts.shown``): the one clean intervention. Bases that are
run by plain concatenation hide nothing; there the prompt closes up. The fewest vectors are found by backward elimination
(Guyon & Elisseeff 2003, section 4, https://www.jmlr.org/papers/v3/guyon03a.html): of the vectors that are left, the one is dropped
without which the prompt's own answers stay likeliest. Vectors and length are chosen on one half of the rows; scores, and the paired
change from the whole prompt, are of the other half. Where there are many vectors they are ranked once instead. What is dropped for good
closes up, since that is how the shorter prompt will be stored. Vectors that stand for each other matter little one by one: so halves and
quarters of them are left out too, and thirds of the layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch

from epigraph.evaluation import evaluate
from epigraph.explaining.case import Case, halves, pick, share
from epigraph.explaining.judged import likelihood
from epigraph.library import Card, Lineage
from epigraph.methods.solver import PromptedBase
from epigraph.metrics import Interval
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.prompts.shown import show, without

KEPT = 0.99
MOST_GREEDY = 12
Vector = tuple[int, int]  # block, number in it
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What leaving something out does. ``change`` is of the score, ``changed`` the share of answers that become others."""

    what: str
    score: Interval
    change: Interval
    changed: Interval


@dataclass(frozen=True, kw_only=True)
class Shorter:
    """A prompt of fewer vectors, closed up. ``kept`` are (block, number in it); ``chosen_by`` is its score on the rows that lengths
    are chosen on, all else is of the other rows: its score, the change from the whole prompt, the agreement with it."""

    kept: tuple[Vector, ...]
    chosen_by: float
    score: Interval
    change: Interval
    agreement: Interval


@dataclass(frozen=True, kw_only=True)
class Matters:
    """What each part of the prompt is worth. ``groups`` are halves and quarters of the vectors, and thirds of the layers; ``chosen_on``
    are the numbers of the rows that the shorter prompts were chosen on."""

    metric: str
    rows: int
    score: Interval
    without_prompt: Interval
    vectors: tuple[Removal, ...]
    groups: tuple[Removal, ...]
    layers: tuple[Removal, ...]
    shorter: tuple[Shorter, ...]
    fewest: Shorter
    chosen_on: tuple[int, ...]
    how: str


def measure_parts(case: Case, most_rows: int = 100) -> Matters:
    """Leave out every vector, groups of them, every layer, and ever more vectors."""
    among = pick(case, most_rows, scored=True)
    whole = [case.answers[i] for i in among]
    vectors = all_vectors(case.forms)
    singles = tuple(_removal(case, among, _named(v, case), _hidden(case, [v])) for v in vectors)
    groups = tuple(_removal(case, among, name, _hidden(case, some)) for name, some in vector_groups(vectors))
    layers = [[layer] for layer in range(case.engine.base.layers)] if _keyed(case) else []
    choosing, judged = halves(among, case.config.seed)
    shorter = tuple(_shorter(case, kept, choosing, judged) for kept in _shorten(case, vectors, choosing))
    return Matters(
        metric=case.metric_name,
        rows=len(among),
        score=case.score(whole, among),
        without_prompt=case.score(case.answers_of(_kept(case.forms, []), among), among),
        vectors=singles,
        groups=groups + tuple(_removal(case, among, name, _at_layers(case, some)) for name, some in _thirds(layers)),
        layers=tuple(_removal(case, among, str(one[0] + 1), _at_layers(case, one)) for one in layers),
        shorter=shorter,
        fewest=_fewest(shorter),
        chosen_on=tuple(choosing),
        how=f"{_how_left_out(case, among)} {_how_shortened(case, vectors, choosing, judged)}",
    )


def _how_left_out(case: Case, among: Sequence[int]) -> str:
    hidden = "positions close up, since this base hides nothing" if case.engine.plain else "all positions stay"
    return (
        f"Each part left out of the attention in turn ({hidden}), {len(among)} rows of {case.source}; 95% intervals by paired "
        "bootstrap over the rows."
    )


def _how_shortened(case: Case, vectors: Sequence[Vector], choosing: Sequence[int], judged: Sequence[int]) -> str:
    loss = "the share of answers that change" if case.task.writes else "how unlikely its own answers become"
    search = (
        f"one vector after another dropped, each time the one that costs least ({loss})"
        if len(vectors) <= MOST_GREEDY
        else f"over {MOST_GREEDY} vectors, so all are ranked once by what is lost without each ({loss}), and the last are dropped"
    )
    rows = (
        f"vectors and length chosen on {len(choosing)} of these rows, scores and changes measured on the other {len(judged)}"
        if set(choosing).isdisjoint(judged)
        else f"chosen and measured on the same {len(judged)} rows, since there are so few: too favourable"
    )
    return f"Shorter prompts, closed up: {search}; {rows}."


def _fewest(shorter: Sequence[Shorter]) -> Shorter:
    """The shortest that keeps 99% of the whole's score on the rows that lengths are chosen on."""
    whole = shorter[0].chosen_by
    return min((s for s in shorter if s.chosen_by >= whole - (1 - KEPT) * abs(whole) - 1e-9), key=lambda s: len(s.kept))


def vector_groups(vectors: Sequence[Vector]) -> list[tuple[str, list[Vector]]]:
    """Halves and quarters of the vectors in their order, where a part has two or more."""
    found = []
    for parts, name in ((2, "half"), (4, "quarter")):
        if len(vectors) >= 2 * parts:
            found += [(f"{name} {number} of the vectors", some) for number, some in enumerate(_parts(vectors, parts), 1)]
    return found


def _thirds(layers: Sequence[list[int]]) -> list[tuple[str, list[int]]]:
    names = ("the early layers", "the middle layers", "the late layers")
    if len(layers) < 2 * len(names):
        return []
    return [(name, [one[0] for one in part]) for name, part in zip(names, _parts(layers, len(names)), strict=True)]


def _parts(items: Sequence[T], parts: int) -> list[list[T]]:
    edges = [round(len(items) * i / parts) for i in range(parts + 1)]
    return [list(items[a:b]) for a, b in pairwise(edges)]


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


def _keyed(case: Case) -> bool:
    return all(isinstance(form, KeyValue) for form in case.forms)


def _at_layers(case: Case, layers: Sequence[int]) -> list[Form]:
    """The forms hidden at these layers."""
    found = []
    for form in case.forms:
        shown = torch.ones(case.engine.base.layers, form.length, dtype=torch.bool)
        shown[list(layers)] = False
        found.append(show(form, shown))
    return found


def _removal(case: Case, among: Sequence[int], what: str, forms: Sequence[Form]) -> Removal:
    whole, answers = [case.answers[i] for i in among], case.answers_of(forms, among)
    changed = share([a != b for a, b in zip(whole, answers, strict=True)])
    return Removal(what=what, score=case.score(answers, among), change=case.change(whole, answers, among), changed=changed)


def _shorten(case: Case, vectors: list[Vector], among: Sequence[int]) -> list[list[Vector]]:
    """Ever shorter lists of vectors, the whole first, none last."""
    if len(vectors) > MOST_GREEDY:
        loss = {v: _loss(case, [w for w in vectors if w != v], among) for v in vectors}
        ranked = sorted(vectors, key=lambda v: -loss[v])
        sizes = sorted({round(len(vectors) * part) for part in (1, 0.75, 0.5, 0.375, 0.25, 0.125)} | {1, 2, 0}, reverse=True)
        return [sorted(ranked[:size]) for size in sizes]
    path, left = [list(vectors)], list(vectors)
    while left:
        drop = min(left, key=lambda v: _loss(case, [w for w in left if w != v], among)) if len(left) > 1 else left[0]
        left = [v for v in left if v != drop]
        path.append(left)
    return path


def _loss(case: Case, kept: Sequence[Vector], among: Sequence[int]) -> float:
    """How unlikely the whole prompt's answers become, in nats; for written answers, the share that changes."""
    method, rows = case.method.with_forms(_kept(case.forms, kept)), [case.rows[i] for i in among]
    whole = [case.answers[i] for i in among]
    if case.task.writes:
        return float(np.mean([a != b for a, b in zip(whole, method.outputs(rows), strict=True)]))
    found = zip(rows, whole, method.probabilities(rows), strict=True)
    likely = np.array([likelihood(case.task, row, answer, p) for row, answer, p in found])
    return float(-np.log(np.maximum(likely, 1e-12)).mean())


def _shorter(case: Case, kept: Sequence[Vector], choosing: Sequence[int], judged: Sequence[int]) -> Shorter:
    forms = _kept(case.forms, kept)
    answers, whole = case.answers_of(forms, judged), [case.answers[i] for i in judged]
    return Shorter(
        kept=tuple(kept),
        chosen_by=case.score(case.answers_of(forms, choosing), choosing).value,
        score=case.score(answers, judged),
        change=case.change(whole, answers, judged),
        agreement=share([a == b for a, b in zip(answers, whole, strict=True)]),
    )


def prune(case: Case, found: Matters, name: str) -> tuple[list[Form], Card]:
    """The fewest vectors that keep 99% of the score as a prompt of its own: its forms, and a card with its measured scores.

    The scores are of the rows that its vectors were not chosen on; where there are too few for that, of all, and the lineage says so.
    """
    kept = list(found.fewest.kept)
    for block in range(len(case.forms)):  # a block that lost all its vectors keeps its first
        kept += [] if any(b == block for b, _ in kept) else [(block, 0)]
    forms = [_plain(form) for form in _kept(case.forms, sorted(kept))]
    card, length = case.model.card, sum(form.length for form in case.forms)
    method = case.method.with_forms(forms)
    scores, on = _scores_apart(case, found, method)
    numbers = sum(f.vectors.numel() if isinstance(f, Embedded) else f.keys.numel() + f.values.numel() for f in forms)
    cost = {**card.cost, "kept_parameters": numbers, "kept_bytes": 4 * numbers, "added_tokens": len(kept)}
    how = (
        f"pruned from {length} to {len(kept)} vectors, those that keep {KEPT:.0%} of the {found.metric} on the rows they were chosen on "
        f"(half of {found.rows}); on the others it changes by {found.fewest.change.value:+.3f} "
        f"[{found.fewest.change.low:+.3f} to {found.fewest.change.high:+.3f}]{on}"
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


def _scores_apart(case: Case, found: Matters, method: PromptedBase) -> tuple[dict[str, object], str]:
    """The scores of a shorter prompt on rows that it was not chosen on, and what rows these are; none where none says what is right."""
    if not case.labelled:
        return {}, ""
    chosen = set(found.chosen_on)
    apart = [i for i in case.known if i not in chosen]
    rows = [case.rows[i] for i in apart or case.known]
    scores = dict(evaluate(method, rows, split=case.split).json)
    if case.trained:
        scores["trained_rows"] = case.trained
    said = (
        f"; scores are of {len(rows)} rows that it was not chosen on"
        if apart
        else "; scores are of the rows it was chosen on"
    )
    return scores, said


def _plain(form: Form) -> Form:
    if isinstance(form, Embedded):
        return Embedded(form.vectors.detach().float().cpu().contiguous())
    return KeyValue(form.keys.detach().float().cpu().contiguous(), form.values.detach().float().cpu().contiguous())
