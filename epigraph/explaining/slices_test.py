"""Planted weak slices and unequal groups are found with their intervals; chance is not called sure."""

from dataclasses import replace

import numpy as np
import pytest

from epigraph.explaining.cautions import find_cautions
from epigraph.explaining.slices import (
    Group,
    Groups,
    difference,
    fisher,
    measure_groups,
    measure_slices,
    permuted,
    withstanding,
)
from epigraph.explaining.toys_test import toy_case, toy_rows
from epigraph.tasks.row import Row


def test_a_word_whose_rows_are_all_wrong_is_the_worst_slice() -> None:
    case = toy_case(rows=toy_rows(80))
    other = {"good": "bad", "bad": "good"}
    rows = [
        Row(fields=r.fields, target=other[a] if "zebra" in r.fields["text"] else a)
        for r, a in zip(case.rows, case.answers, strict=True)
    ]
    found = measure_slices(replace(case, rows=rows))
    (zebra,) = [s for s in found.worst if s.what == "the word 'zebra'"]
    assert zebra.sure
    assert zebra.p == min(s.p for s in found.worst)
    assert zebra.accuracy.value == 0
    assert zebra.gap.value == -1
    (caution,) = find_cautions(slices=found)
    assert "'zebra'" in caution.text


def test_where_all_is_right_no_slice_is_worse() -> None:
    case = toy_case(rows=toy_rows(40))
    rows = [Row(fields=r.fields, target=a) for r, a in zip(case.rows, case.answers, strict=True)]
    assert measure_slices(replace(case, rows=rows)).worst == ()


def test_groups_are_compared_with_all_others_and_with_what_is_due() -> None:
    case = toy_case(rows=toy_rows(60))
    groups = {"sex": list(case.answers)}
    fair = [Row(fields=r.fields, target=a) for r, a in zip(case.rows, case.answers, strict=True)]
    due = measure_groups(replace(case, rows=fair, groups=groups))
    for group in due.groups:
        own = next(r for r in group.rates if r.label == group.value)
        assert own.rate.value == 1
        assert own.difference.value == own.due == 1
    assert not find_cautions(groups=due)
    unknown = [Row(fields=r.fields) for r in case.rows]
    undue = measure_groups(replace(case, rows=unknown, groups=groups))
    assert all(g.accuracy is None for g in undue.groups)
    if undue.groups:
        assert "Where sex is" in find_cautions(groups=undue)[0].text


def test_differences_have_newcombes_interval() -> None:
    """Newcombe 1998, example 3: 56 of 70 against 48 of 80."""
    first, second = np.arange(70) < 56, np.arange(80) < 48
    found, p = difference(first, second)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert p == fisher(56, 14, 48, 32)


def test_what_is_due_is_no_warning_however_far_groups_differ() -> None:
    """A group that gets a label as much more often as it is due; and groups that are too small are named."""
    case = toy_case(rows=toy_rows(60))
    fair = [Row(fields=r.fields, target=str(a)) for r, a in zip(case.rows, case.answers, strict=True)]
    groups = {"sex": [*map(str, case.answers[:-2]), "rare", "rare"]}
    found = measure_groups(replace(case, rows=fair, groups=groups))
    assert all(r.undue.value == 0 and not r.sure for g in found.groups for r in g.rates)
    assert "sex 'rare' (2 rows)" in found.dropped
    assert "Not compared: " in found.how


def test_chance_differences_of_many_groups_withstand_no_correction() -> None:
    draw = np.random.default_rng(0)
    inside = draw.random(200) < 0.3
    p_values = permuted(draw.integers(-1, 2, (200, 30)).astype(float), inside, 0)
    assert not any(withstanding(p_values))
    planted = np.where(inside, 1.0, 0.0)[:, None]
    assert permuted(planted, inside, 0)[0] < 0.001
    assert withstanding([0.001, 0.5, 0.02]) == [True, False, True]


def test_of_many_groups_one_that_is_worse_by_chance_is_no_warning() -> None:
    """Each group's interval was taken by itself: of twelve groups of equal accuracy one was accused in a fourth of all reports."""
    right = np.arange(240) % 10 < 8
    names = [f"g{i % 12}" for i in range(240)]
    groups = []
    for name in sorted(set(names)):
        inside = np.array([n == name for n in names])
        right_here = right.copy()
        if name == "g0":
            right_here[inside] = np.arange(int(inside.sum())) % 20 < 11  # .55 of 20 rows, p = .02
        gap, p = difference(right_here[inside], right_here[~inside])
        groups.append(Group(column="town", value=name, rows=20, accuracy=None, gap=gap, rates=(), p=p))
    sure = withstanding([g.p for g in groups])
    found = Groups(groups=tuple(replace(g, sure=s) for g, s in zip(groups, sure, strict=True)), dropped=(), how="")
    assert found.groups[0].gap is not None
    assert found.groups[0].gap.high < 0
    assert not find_cautions(groups=found)
    worse = replace(found, groups=(replace(found.groups[0], sure=True), *found.groups[1:]))
    assert "Where town is 'g0'" in find_cautions(groups=worse)[0].text
