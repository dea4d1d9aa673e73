import itertools
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from epigraph.correct.between import MOST_TRIES, Tried, back_off, mixed, shortened
from epigraph.prompts import Embedded, KeyValue

COUNTS = st.lists(st.integers(0, 30), min_size=1, max_size=25)


@given(COUNTS, st.integers(0, 30), st.integers(0, 3), st.integers(0, 2))
def test_what_is_taken_is_within_the_tolerance_and_masters_the_most_that_was_tried(
    costs: list[int], most: int, before: int, missed: int
) -> None:
    """Each correction changes some other answers more; some are asked for in vain."""
    asked, changed = len(costs), [0, *itertools.accumulate(sorted(costs))]

    def look(count: int) -> Tried:
        return Tried(count, 1.0, max(before, count - missed), changed[count])

    taken, tried = back_off(look, lambda count: float(changed[count]), asked=asked, most=most, before=before)
    assert tried[0].asked == asked
    assert len(tried) == len({one.asked for one in tried}) <= MOST_TRIES
    fits = [one for one in tried if one.changed <= most and one.mastered > before]
    assert taken == max(fits, key=lambda one: one.mastered, default=None)
    if asked - missed > before and changed[asked] <= most:
        assert taken == tried[0]
    within = max(count for count in range(asked + 1) if changed[count] <= most)
    if within - missed > before and within and len(tried) < MOST_TRIES:
        assert taken is not None
        assert taken.mastered == within - missed


def test_nine_in_ten_are_tried_before_fewer() -> None:
    """What is expected may be told too large: the second step masters nine in ten where these are tolerated."""
    taken, tried = back_off(
        lambda count: Tried(count, 1.0, count, 9 if count > 18 else 8), float, asked=20, most=8, before=0
    )
    assert [one.asked for one in tried] == [20, 18, 19]
    assert taken == tried[1]


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6))
def test_a_step_is_no_longer_than_what_it_masters_needs(masters: list[float]) -> None:
    def mastered(t: float) -> int:
        return sum(t >= at for at in masters)

    step = shortened(mastered)
    assert mastered(step) == len(masters)
    assert step - max(masters) <= 2.0**-4


def test_between_two_prompts_lies_a_straight_line() -> None:
    draw = torch.Generator().manual_seed(0)

    def drawn(*sizes: int) -> Any:
        return torch.randn(*sizes, generator=draw)

    old, new = KeyValue(drawn(2, 1, 3, 4), drawn(2, 1, 3, 4)), KeyValue(drawn(2, 1, 3, 4), drawn(2, 1, 3, 4))
    words = Embedded(drawn(3, 4)), Embedded(drawn(3, 4))
    first, *_ = mixed([old, words[0]], [new, words[1]], 0.0)
    assert isinstance(first, KeyValue)
    assert torch.equal(first.keys, old.keys)
    half, vectors = mixed([old, words[0]], [new, words[1]], 0.5)
    assert isinstance(half, KeyValue)
    assert isinstance(vectors, Embedded)
    torch.testing.assert_close(half.values, (old.values + new.values) / 2)
    torch.testing.assert_close(vectors.vectors, (words[0].vectors + words[1].vectors) / 2)
