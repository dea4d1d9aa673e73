"""The numbers of a sequence: as their papers define them, by a slow loop; None where something was not measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigraph.continual.measures import Measures

R = [[0.9, 0.3, 0.2], [0.8, 0.7, 0.4], [0.6, 0.75, 0.8]]
B = [0.5, 0.25, 0.1]


def test_they_are_what_they_are_called() -> None:
    found = Measures(matrix=R, zero_shot=B)
    assert found.average_accuracy == pytest.approx((0.6 + 0.75 + 0.8) / 3)
    assert found.backward_transfer == pytest.approx(((0.6 - 0.9) + (0.75 - 0.7)) / 2)
    assert found.forgetting == pytest.approx(((0.9 - 0.6) + (0.7 - 0.75)) / 2)
    assert found.forward_transfer == pytest.approx(((0.3 - 0.25) + (0.4 - 0.1)) / 2)


@given(
    st.integers(2, 5).flatmap(lambda T: st.lists(st.lists(st.floats(0, 1), min_size=T, max_size=T), min_size=T, max_size=T))
)
def test_the_definitions_by_loops(matrix: list[list[float]]) -> None:
    T = len(matrix)
    found = Measures(matrix=matrix, zero_shot=[0.5] * T)
    backward = forgotten = 0.0
    for i in range(T - 1):
        best = max(matrix[t][i] for t in range(i, T - 1))
        backward += matrix[T - 1][i] - matrix[i][i]
        forgotten += best - matrix[T - 1][i]
    assert found.backward_transfer == pytest.approx(backward / (T - 1))
    assert found.forgetting == pytest.approx(forgotten / (T - 1))
    assert found.forgetting >= -found.backward_transfer - 1e-9


def test_what_was_not_measured_makes_no_number() -> None:
    found = Measures(matrix=[[0.9, None], [None, 0.8]], zero_shot=[0.5, None])
    assert (found.average_accuracy, found.backward_transfer, found.forgetting, found.forward_transfer) == (None,) * 4
    assert found.json["matrix"] == [[0.9, None], [None, 0.8]]
    alone = Measures(matrix=[[0.9]], zero_shot=[0.5])
    assert (alone.average_accuracy, alone.backward_transfer, alone.forgetting, alone.forward_transfer) == (
        0.9,
        None,
        None,
        None,
    )
