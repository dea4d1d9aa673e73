from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigraph.errors import ConfigError
from epigraph.tasks.row import Row
from epigraph.tasks.split import head, split_validation


def rows_of(pairs):
    return [Row(fields={"text": text}, target=label, line=i) for i, (text, label) in enumerate(pairs, start=1)]


pairs = st.lists(st.tuples(st.text("abc", max_size=2), st.sampled_from("wxyz")), max_size=60)


@given(pairs, st.floats(0, 0.9), st.integers(0, 5), st.booleans())
def test_properties(found, share, seed, labels):
    rows = rows_of(found)
    train, validation, alone = split_validation(rows, share=share, seed=seed, labels=labels)
    assert sorted(train + validation, key=lambda row: row.line) == rows
    assert not {row.fields["text"] for row in train} & {row.fields["text"] for row in validation}
    assert (train, validation, alone) == split_validation(rows, share=share, seed=seed, labels=labels)
    assert len(validation) <= max(1, round(share * len(rows)))
    if labels:
        assert {row.target for row in rows} == {row.target for row in train}


def test_every_label_gives_its_share():
    rows = rows_of([(f"{label} {i}", label) for label, n in (("a", 60), ("b", 30), ("c", 10)) for i in range(n)])
    _, validation, alone = split_validation(rows, share=0.2, seed=1)
    assert Counter(row.target for row in validation) == {"a": 12, "b": 6, "c": 2}
    assert alone == ()


def test_a_label_with_one_text_trains_and_is_named():
    rows = rows_of([*((f"t{i}", "a") for i in range(20)), ("only", "nhãn"), ("same", "标签"), ("same", "标签")])
    train, validation, alone = split_validation(rows, share=0.5, seed=0)
    assert {row.target for row in validation} == {"a"}
    assert {"nhãn", "标签"} <= {row.target for row in train}
    assert alone == ("nhãn", "标签")


def test_many_small_labels_still_reach_the_share():
    rows = rows_of([(f"{label} {i}", f"label {label}") for label in range(150) for i in range(3)])
    train, validation, _ = split_validation(rows, share=0.1, seed=0)
    assert len(validation) == 45
    assert len({row.target for row in train}) == 150


def test_seeds_differ_and_generation_is_plain():
    rows = [Row(fields={"input": f"{i}"}, target=f"out {i}") for i in range(100)]
    one = split_validation(rows, share=0.1, seed=0, labels=False)
    assert len(one[1]) == 10
    assert one[2] == ()
    assert one[1] != split_validation(rows, share=0.1, seed=1, labels=False)[1]


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0])
def test_share_has_bounds(share):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_validation([], share=share, seed=0)


def test_head_is_a_prefix_of_a_larger_head():
    rows = rows_of([(str(i), "a") for i in range(30)])
    assert head(rows, 5, 3) == head(rows, 20, 3)[:5]
    assert head(rows, 5, 3) != head(rows, 5, 4)
    assert sorted(row.line for row in head(rows, 99, 0)) == list(range(1, 31))
