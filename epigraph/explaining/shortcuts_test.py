"""A word counts where its mean effect is beyond that of other words, not where its rows are many; and never for a trifle."""

from dataclasses import replace

import numpy as np

from epigraph.explaining.shortcuts import LEAST_ADDED, Word, _suspicion, beyond_others, measure_shortcuts
from epigraph.explaining.told import Told
from epigraph.explaining.toys_test import toy_case, toy_rows
from epigraph.metrics import Interval

HALF = Interval(0.5, 0.3, 0.7)


def test_an_ordinary_word_is_ordinary_however_many_rows_agree() -> None:
    others = np.random.default_rng(0).normal(0.3, 0.2, 16)
    assert beyond_others(0.5, others) > 0.05
    assert beyond_others(3.0, others) < 1e-4
    assert beyond_others(3.0, others[:3]) == 1


def test_a_trifle_is_no_shortcut_even_of_a_word_that_tells_the_label() -> None:
    told = Told(rows=20, share=0.4, purity=0.95, prior=0.5, where="training rows")
    word = Word(
        word="x", label="good", adds=LEAST_ADDED / 2, p=0.0, flips=HALF, tried=9, removal=HALF, hangs=0.1, rows=9,
        answered=0.9, true=0.5, place=0.0, found_by="it goes with the answers", told=told, spelled="X",
    )  # fmt: skip
    assert _suspicion(word, [told]) == ""
    assert "training rows" in _suspicion(replace(word, adds=2 * LEAST_ADDED), [told])


def test_where_rows_are_the_same_it_is_said() -> None:
    assert "these among them" in measure_shortcuts(toy_case(rows=toy_rows(10))).how
    assert "other rows" in measure_shortcuts(toy_case(rows=toy_rows(24))).how
