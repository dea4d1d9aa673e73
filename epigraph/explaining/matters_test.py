"""A vector that does something is found, those that do nothing are dropped."""

from dataclasses import replace

import pytest
import torch

from epigraph.explaining.case import Case
from epigraph.explaining.matters import Shorter, _fewest, measure_parts, prune, vector_groups
from epigraph.explaining.toys_test import toy_case, toy_forms
from epigraph.library import Library
from epigraph.metrics import Interval
from epigraph.prompts import KeyValue
from epigraph.tasks.row import Row


def with_truth_as_answered(case: Case) -> Case:
    """The same case, in which the prompt is always right."""
    rows = [Row(fields=row.fields, target=answer) for row, answer in zip(case.rows, case.answers, strict=True)]
    return replace(case, rows=rows)


def planted() -> list[KeyValue]:
    """Four vectors of which only the second is ever attended to: the others' keys point away from every query."""
    (form,) = toy_forms("kv", seed=3)
    assert isinstance(form, KeyValue)
    keys, values = form.keys.clone() * 3, form.values.clone() * 3
    for idle in (0, 2, 3):
        keys[:, :, idle], values[:, :, idle] = keys[:, :, 1], values[:, :, 1]  # copies: all say the same
    return [KeyValue(keys, values)]


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_every_part_is_left_out_and_scored(kind: str) -> None:
    found = measure_parts(with_truth_as_answered(toy_case(kind)))
    assert found.score.value == 1.0
    assert [v.what for v in found.vectors] == ["1", "2", "3", "4"]
    assert len(found.layers) == (2 if kind == "kv" else 0)
    for part in (*found.vectors, *found.layers):
        assert part.change.value == pytest.approx(part.score.value - 1.0)
        assert part.change.low <= part.change.value <= part.change.high <= 0.5
        assert part.changed.value == pytest.approx(1 - part.score.value)
    assert [len(s.kept) for s in found.shorter] == [4, 3, 2, 1, 0]
    assert found.fewest.chosen_by >= 0.99 * found.shorter[0].chosen_by


def test_vectors_that_all_say_the_same_are_dropped_but_for_a_few() -> None:
    case = with_truth_as_answered(toy_case(forms=planted()))
    found = measure_parts(case)
    assert len(found.fewest.kept) < 4
    assert max(v.changed.value for v in found.vectors) <= 0.5


def test_the_pruned_prompt_is_stored_with_its_lineage_and_scores_as_measured(tmp_path: object) -> None:
    case = with_truth_as_answered(toy_case(forms=planted()))
    found = measure_parts(case)
    forms, card = prune(case, found, "short")
    library = Library(tmp_path)  # type: ignore[arg-type]
    kept = library.add("short", forms, card)
    assert kept.lengths == (max(1, len(found.fewest.kept)),)
    assert kept.lineage.parents == ("moods",)
    assert "pruned from 4 to" in kept.lineage.how
    assert not library.verify("short")
    assert kept.cost["kept_parameters"] == sum(f.keys.numel() + f.values.numel() for f in library.get("short").forms)
    apart = [i for i in range(len(case.rows)) if i not in found.chosen_on]
    answers = case.answers_of(library.get("short").forms, apart)  # type: ignore[arg-type]
    right = sum(a == case.truth[i] for a, i in zip(answers, apart, strict=True)) / len(apart)
    assert kept.scores["accuracy"]["value"] == pytest.approx(right), (
        "half of the rows chose the vectors: they do not score them"
    )
    assert kept.scores["rows"] == len(apart) == 12
    assert "scores are of 12 rows that it was not chosen on" in kept.lineage.how
    torch.testing.assert_close(library.get("short").forms[0].keys, forms[0].keys)  # type: ignore[union-attr]


def test_a_length_is_chosen_on_other_rows_than_it_is_reported_on() -> None:
    whole, lucky = (Interval(score, score - 0.1, score + 0.1) for score in (0.7, 0.9))
    change = Interval(0.2, 0.1, 0.3)
    path = [
        Shorter(kept=((0, 0), (0, 1)), chosen_by=0.8, score=whole, change=Interval(0.0, -0.1, 0.1), agreement=whole),
        Shorter(kept=((0, 0),), chosen_by=0.5, score=lucky, change=change, agreement=whole),
    ]
    assert len(_fewest(path).kept) == 2, "a score on the rows that are reported chooses nothing"
    found = measure_parts(with_truth_as_answered(toy_case()))
    assert "chosen on 12 of these rows, scores and changes measured on the other 12" in found.how
    assert found.fewest.change.low <= found.fewest.change.value <= found.fewest.change.high


def test_groups_of_vectors_are_left_out_too_and_a_ranking_is_called_one() -> None:
    found = measure_parts(with_truth_as_answered(toy_case("kv")))
    assert [g.what for g in found.groups] == ["half 1 of the vectors", "half 2 of the vectors"]
    names = [name for name, _ in vector_groups([(0, i) for i in range(8)])]
    assert names[-1] == "quarter 4 of the vectors"
    long = measure_parts(with_truth_as_answered(toy_case(forms=toy_forms("kv", length=13))))
    assert "ranked once" in long.how
    assert "ranked once" not in found.how
