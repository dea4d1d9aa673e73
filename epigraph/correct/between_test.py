from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from epigraph.correct.between import back_off, mixed
from epigraph.prompts import Embedded, KeyValue

STEPS = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6)


@given(STEPS, STEPS, st.integers(0, 6), st.integers(0, 3))
def test_what_is_taken_is_within_the_tolerance_and_masters_something(
    masters: list[float], changes: list[float], most: int, before: int
) -> None:
    """Every correction is mastered from a step on, every other answer changes from a step on."""

    def mastered(t: float) -> int:
        return before + sum(t >= at for at in masters)

    def changed(t: float) -> int:
        return sum(t >= at for at in changes)

    taken, tried = back_off(mastered, changed, most=most, before=before)
    for one in tried:
        assert (one.mastered, one.changed) == (mastered(one.step), changed(one.step))
    if taken is not None:
        assert taken.changed <= most
        assert taken.mastered > before
        assert taken == tried[-1]
        assert all(one.changed > most for one in tried[:-1])
    else:
        assert all(one.changed > most or one.mastered <= before for one in tried)
    if not changes or most >= len(changes):
        assert taken is not None
        assert taken.mastered == mastered(1.0)


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
