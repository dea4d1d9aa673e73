"""Descriptions: the best is chosen on other rows than those that say how far it can be trusted."""

import pytest

from epigraph.explaining import says
from epigraph.explaining.case import halves
from epigraph.explaining.says import Description, _verdict, elicit_descriptions
from epigraph.explaining.toys_test import toy_case
from epigraph.metrics import Interval


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_what_is_told_of_a_description_is_of_rows_that_did_not_choose_it(kind: str) -> None:
    """The best of eight on forty rows was reported by its figure on the same forty, without an interval."""
    case = toy_case(kind)
    found = elicit_descriptions(case)
    assert found.rows == 12
    order = [d.chosen_by for d in found.descriptions]
    assert order == sorted(order, reverse=True)
    choosing, judged = halves(range(len(case.rows)), case.config.seed)
    for described in found.descriptions:
        given = says._given(case, described.text, judged)
        assert described.agreement.value == sum(a == case.answers[i] for a, i in zip(given, judged, strict=True)) / len(
            judged
        )
        assert described.kappa is not None
        assert described.kappa.low <= described.kappa.value <= described.kappa.high
    assert set(choosing).isdisjoint(judged)
    assert "the best chosen on 12 rows of the rows given, all figures of 12 others" in found.how


def test_requests_take_turns_so_that_the_first_few_are_of_all() -> None:
    sources = [source for _, source in says._elicited(toy_case("kv"))]
    assert [source[-1] for source in sources[:4]] == ["1", "2", "1", "2"]


def test_a_verdict_needs_more_than_a_lucky_figure() -> None:
    def told(value: float, low: float) -> list[Description]:
        kappa = Interval(value, low, 1.0)
        return [Description(text="d", source="s", chosen_by=0.9, agreement=kappa, kappa=kappa)]

    assert "a good part of what it does" in _verdict(told(0.7, 0.5))
    assert "read it as a hint" in _verdict(told(0.7, 0.1))
    assert "do not rely on them" in _verdict(told(0.4, -0.1))
    assert "do not rely on them" in _verdict([])
