import pytest

from epigraph.config import TuneConfig
from epigraph.errors import DataError
from epigraph.tasks.task import Task
from epigraph.tuning.data import divide


def a_task(rows: int = 40, labels: int = 2) -> Task:
    return Task.from_rows([f"text {i}" for i in range(rows)], [f"label {i % labels}" for i in range(rows)])


def test_no_row_is_in_two_parts() -> None:
    parts = divide(a_task(), TuneConfig())
    sizes = [len(part) for part in (parts.train, parts.validation, parts.final)]
    texts = [row.fields["text"] for part in (parts.train, parts.validation, parts.final) for row in part]
    assert len(set(texts)) == len(texts) == 40
    assert sizes == [29, 5, 6]
    assert parts.split == "holdout"
    assert divide(a_task(), TuneConfig()) == parts
    assert divide(a_task(), TuneConfig(seed=1)) != parts


def test_a_test_set_leaves_all_rows_to_training() -> None:
    from dataclasses import replace

    task = a_task()
    parts = divide(replace(task, test=a_task(10, labels=3).train), TuneConfig())
    assert (parts.split, len(parts.final), len(parts.train) + len(parts.validation)) == ("test", 10, 40)
    assert parts.warnings == ["test labels that were never trained count as wrong: label 2 (3 rows)"]


def test_few_rows() -> None:
    with pytest.raises(DataError, match="the rows given has 3 usable rows; tuning needs 4 or more"):
        divide(a_task(3), TuneConfig())
    parts = divide(a_task(4, labels=4), TuneConfig())
    assert parts.validation is parts.train
    assert parts.split == "train"  # it was called validation
    assert any("labels with a single row train and are not validated: label 0, label 1" in w for w in parts.warnings)
    assert any("no rows are kept for validation" in w for w in parts.warnings)


def test_few_rows_are_used_twice() -> None:
    folds = divide(a_task(30), TuneConfig(), thrifty=True)
    assert (folds.split, len(folds.folds), folds.refit, folds.again) == ("crossval", 4, True, 1 / 3)
    assert sorted(place for fold in folds.folds for place in fold) == list(range(30))
    for fold in folds.folds:
        labels = [folds.train[place].target for place in fold]
        assert abs(labels.count("label 0") - labels.count("label 1")) <= 1
    more = divide(a_task(100), TuneConfig(), thrifty=True)
    assert (len(more.train) + len(more.validation), len(more.final), more.refit) == (85, 15, True)
    assert 24 <= len(more.validation) <= 27
    assert len(more.all) == 85
    assert not divide(a_task(30), TuneConfig(validation=0.2), thrifty=True).folds


def test_up_to_two_thousand_rows_are_learned_from_once_all_is_chosen() -> None:
    parts = divide(a_task(1000), TuneConfig(), thrifty=True)
    assert (parts.refit, len(parts.all), parts.again) == (True, 850, 850 / len(parts.train))
    assert len(parts.validation) == pytest.approx(0.15 * 850, abs=2)
    assert len(parts.learned) == 850
    asked = divide(a_task(1000), TuneConfig(validation=0.15), thrifty=True)
    assert (asked.refit, list(asked.learned)) == (False, list(asked.train))
    assert (divide(a_task(1000), TuneConfig()).refit, divide(a_task(1000), TuneConfig()).again) == (False, 0)
    assert not divide(a_task(3000), TuneConfig(), thrifty=True).refit


def test_a_label_with_one_text_is_held_out_by_no_fold() -> None:
    task = Task.from_rows([f"text {i}" for i in range(9)], ["a", "b"] * 4 + ["rare"])
    parts = divide(task, TuneConfig(), thrifty=True)
    assert 8 not in {place for fold in parts.folds for place in fold}
    assert any("labels with a single row train and are not validated: rare" in w for w in parts.warnings)
