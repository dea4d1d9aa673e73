from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from epigraph.correct.between import back_off, expected_step, mixed
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
        assert taken in tried
    fits = [one for one in tried if one.changed <= most and one.mastered > before]
    assert taken == max(fits, key=lambda one: one.step, default=None)
    if not changes or most >= len(changes):
        assert taken is not None
        assert taken.mastered == mastered(1.0)


def test_a_step_from_which_few_are_expected_to_change_is_preferred_while_it_masters_something() -> None:
    """Of 60 texts one more or less is 1.7%: counted alone, a step was taken that changed more of all others than tolerated."""

    def mastered(t: float) -> int:
        return int(10 * t + 1e-9)

    taken, tried = back_off(mastered, lambda _t: 0, most=1, before=0, expected=lambda _step: 0.5)
    assert taken is not None
    assert (taken.step, taken.mastered) == (0.5, 5)
    assert tried[0].step == 1.0
    taken, _ = back_off(mastered, lambda _t: 0, most=1, before=0, expected=lambda _step: 0.05)
    assert taken is not None
    assert taken.step == 1.0


@given(st.floats(0.001, 0.3), st.floats(0.01, 3.0), st.floats(0.1, 1.0))
def test_the_expected_share_at_the_expected_step_is_tolerated(tolerance: float, rms: float, at: float) -> None:
    draw = torch.Generator().manual_seed(0)
    teacher, moved = torch.rand(50, generator=draw) * 5, torch.randn(50, generator=draw) * rms
    step = expected_step(teacher, moved, at, tolerance=tolerance)
    assert 0 < step <= max(at, 0.05)
    share = float(torch.special.ndtr(-teacher.double() / (step * moved.double().pow(2).mean().sqrt() / at)).mean())
    assert share <= tolerance + 1e-9 or step <= 0.05
    assert expected_step(teacher, 0 * moved, at, tolerance=tolerance) == at


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
