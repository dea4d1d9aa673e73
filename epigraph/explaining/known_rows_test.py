"""The rows of a run: those that no choice has seen to measure on, and all that the prompt learned from."""

from pathlib import Path
from typing import Any

from epigraph.config import TuneConfig, write_toml
from epigraph.explaining.known_rows import KnownRows, find_rows
from epigraph.tasks.task import Task
from epigraph.tuning.run import DESCRIPTION, Run, rows_hash


def known(folder: Path, rows: int, **config: Any) -> KnownRows:
    """What a run over so many rows remembers."""
    file = folder / f"{rows}.csv"
    file.write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(rows)))
    data = {"source": [str(file), "", "", ""], "train": rows_hash(Task.from_file(file).train.rows)[:16]}
    run = folder / "runs" / str(rows)
    run.mkdir(parents=True)
    write_toml(run / DESCRIPTION, {"data": data, "config": TuneConfig(**config).to_dict()})
    Run(run).finish(f"rows@{rows}")
    found = find_rows(folder / "runs", f"rows@{rows}")
    assert found is not None
    return found


def texts(rows: Any) -> set[str]:
    return {row.fields["text"] for row in rows}


def test_a_prompt_of_few_rows_learned_from_those_of_validation_too(tmp_path: Path) -> None:
    """Up to 2,000 rows the kept prompt learns from train and validation; only the former were called training rows, and a file
    that held the latter was measured on as if the prompt had never seen it."""
    found = known(tmp_path, 140)
    assert found.split == "holdout"
    assert texts(found.rows).isdisjoint(texts(found.train))
    assert len(texts(found.rows)) + len(texts(found.train)) == 140


def test_where_a_few_are_not_enough_those_that_are_added_count_as_training_rows(tmp_path: Path) -> None:
    found = known(tmp_path, 100)
    assert found.split == "validation"
    assert 0 < len(texts(found.rows) - texts(found.train)) < 16
    assert texts(found.rows) & texts(found.train)


def test_where_none_were_kept_apart_the_rows_are_called_training_rows(tmp_path: Path) -> None:
    """Folds and validation answered for trials; the kept prompt learned from every row, which was called "crossval"."""
    folds, no_holdout = known(tmp_path, 24), known(tmp_path, 100, holdout=0.0)
    for found in (folds, no_holdout):
        assert found.split == "train"
        assert texts(found.rows) <= texts(found.train)
        assert found.source.startswith("training rows of ")
        assert "none were kept apart" in found.source
