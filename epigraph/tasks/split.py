"""Rows → training and validation, and a seeded head.

Rows with the same fields stay on one side. Each label gives its share (largest remainders, ties by the seed), and keeps a
row in training; a label with one text trains and stays out of validation.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence

from epigraph.errors import ConfigError
from epigraph.tasks.row import Row

_Group = list[int]  # places of the rows that have the same fields


def split_validation(
    rows: Sequence[Row], *, share: float, seed: int, labels: bool = True
) -> tuple[list[Row], list[Row], tuple[str, ...]]:
    """Training rows, validation rows (both in the given order), and the labels that have a single text.

    ``share`` is validation's part, 0 ≤ share < 1. ``labels=False`` splits without regard to targets (generation).
    """
    if not 0 <= share < 1:
        raise ConfigError(f"share is {share}; the validation share lies between 0 and 1.", "Give 0.1 for a tenth.")
    generator = random.Random(seed)
    names = [(row.target or "") if labels else "" for row in rows]
    strata = _strata(rows, names)
    left, held = Counter(names), set[int]()
    for name, wanted in _quotas(strata, round(share * len(rows)) or int(share > 0 and len(rows) > 1), generator).items():
        groups = sorted(strata[name])
        generator.shuffle(groups)
        held.update(_draw(groups, names, left, wanted))
    alone = tuple(sorted(name for name, groups in strata.items() if len(groups) == 1)) if labels else ()
    return _pick(rows, held, inside=False), _pick(rows, held, inside=True), alone


def split_folds(rows: Sequence[Row], *, folds: int, seed: int, labels: bool = True) -> list[list[int]]:
    """The places of the rows that each fold of a cross-validation holds out, stratified by label.

    A label with a single text is held out by no fold. Folds that would hold nothing are left out.
    """
    generator = random.Random(seed)
    names = [(row.target or "") if labels else "" for row in rows]
    dealt: list[list[int]] = [[] for _ in range(folds)]
    turn = 0
    for groups in _strata(rows, names).values():
        if len(groups) == 1 and labels:
            continue
        for group in generator.sample(groups, len(groups)):
            dealt[turn % folds] += group
            turn += 1
    return [sorted(fold) for fold in dealt if fold]


def head(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    """The first ``n`` rows of a seeded shuffle; all of them, shuffled, where there are fewer."""
    order = list(rows)
    random.Random(seed).shuffle(order)
    return order[:n]


def _strata(rows: Sequence[Row], names: list[str]) -> dict[str, list[_Group]]:
    """The groups of every label; a group whose rows disagree goes with its first row."""
    groups: dict[tuple[tuple[str, str], ...], _Group] = {}
    for place, row in enumerate(rows):
        groups.setdefault(tuple(sorted(row.fields.items())), []).append(place)
    strata: dict[str, list[_Group]] = {}
    for group in groups.values():
        strata.setdefault(names[group[0]], []).append(group)
    return dict(sorted(strata.items()))


def _quotas(strata: dict[str, list[_Group]], total: int, generator: random.Random) -> dict[str, int]:
    """How many validation rows each label gives, so that all give ``total`` together as nearly as can be."""
    sizes = {name: sum(map(len, groups)) for name, groups in strata.items() if len(groups) > 1}
    rows = sum(sizes.values())
    if not rows:
        return {}
    exact = {name: min(size - 1, total * size / rows) for name, size in sizes.items()}
    quotas = {name: int(value) for name, value in exact.items()}
    order = list(sizes)
    generator.shuffle(order)
    order.sort(key=lambda name: quotas[name] - exact[name])
    for name in order[: max(0, total - sum(quotas.values()))]:
        quotas[name] += int(quotas[name] < sizes[name] - 1)
    return quotas


def _draw(groups: list[_Group], names: list[str], left: Counter[str], wanted: int) -> Iterator[int]:
    """Take groups until ``wanted`` rows are out, never the last training row of a label; ``left`` counts what remains."""
    taken = 0
    for group in groups:
        members = Counter(names[place] for place in group)
        if taken + len(group) > wanted or any(left[name] - count < 1 for name, count in members.items()):
            continue
        taken += len(group)
        left.subtract(members)
        yield from group


def _pick(rows: Sequence[Row], places: set[int], *, inside: bool) -> list[Row]:
    return [row for place, row in enumerate(rows) if (place in places) is inside]
