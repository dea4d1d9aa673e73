"""A router: finds the task, knows when it is none, keeps statistics only, and what is stored is what is read."""

from pathlib import Path

import numpy as np
import pytest

from epigraph.errors import Corrupt, InputError, NotFound
from epigraph.routing.router import Router, shrunk_covariance
from epigraph.routing.shelf import NOTE, TENSORS, read_router, router_folder, write_router

H = 24


def draw(rows: int, at: float = 0.0, seed: int = 0, width: float = 1.0) -> np.ndarray:
    """Queries around a centre, some numbers of which are a thousand times larger, as those of a language model are."""
    generator = np.random.default_rng(seed)
    scale = np.where(np.arange(H) < 2, 1000.0, 1.0)
    return (at * np.sin(np.arange(H) * (1 + at)) + width * generator.standard_normal((rows, H))) * scale


def router(centres: tuple[float, ...] = (0.0, 3.0, 6.0), rows: int = 60) -> Router:
    return Router.fit({f"t{i}": draw(rows, at, i) for i, at in enumerate(centres)}, fingerprint="ab" * 32)


def test_texts_go_to_the_task_they_are_like() -> None:
    made = router()
    for i, at in enumerate((0.0, 3.0, 6.0)):
        routes = made.route(draw(40, at, 100 + i))
        assert sum(route.task == f"t{i}" for route in routes) >= 38
        assert np.mean([route.confidence for route in routes]) > 0.8


def test_a_text_like_none_of_them_is_probably_none() -> None:
    found = router().probabilities(draw(20, seed=5, width=8.0))
    assert found[:, -1].min() > 0.99
    np.testing.assert_allclose(found.sum(1), 1.0)


def test_confidence_is_the_share_that_is_right_where_tasks_overlap() -> None:
    made = router((0.0, 0.35), rows=400)
    right, sure = [], []
    for i, at in enumerate((0.0, 0.35)):
        found = made.task_probabilities(draw(300, at, 50 + i), ["t0", "t1"])
        right += list(found.argmax(1) == i)
        sure += list(found.max(1))
    assert np.mean(right) < 0.97
    assert abs(np.mean(right) - np.mean(sure)) < 0.07


def test_a_task_is_added_without_the_data_of_the_others_and_changes_nothing_that_is_kept_of_them() -> None:
    before = router((0.0, 3.0))
    after = before.add("t2", draw(60, 6.0, 2))
    whole = router()
    assert list(after.tasks) == ["t0", "t1", "t2"]
    for name in before.tasks:
        assert np.array_equal(after.tasks[name].mean, before.tasks[name].mean)
    np.testing.assert_allclose(after.distances(draw(5)), whole.distances(draw(5)))
    assert list(after.without("t1").tasks) == ["t0", "t2"]


def test_what_is_kept_does_not_grow_with_the_rows() -> None:
    few, many = router(rows=30), router(rows=300)
    for made in (few, many):
        assert made.scatter is not None
        assert made.scatter.shape == (H, H)
    assert [said.mean.shape for said in few.tasks.values()] == [said.mean.shape for said in many.tasks.values()]


@pytest.mark.parametrize("rows", [3, 12])
def test_few_rows_are_enough_to_be_told_apart(rows: int) -> None:
    made = router(rows=rows)
    assert made.route(draw(1, 6.0, 9))[0].task == "t2"


def test_a_single_row_a_task_says_nothing_of_how_far_texts_lie_but_breaks_nothing() -> None:
    found = router(rows=1).probabilities(draw(4))
    assert np.isfinite(found).all()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="has a task 't1' already"):
        router().add("t1", draw(5))
    with pytest.raises(InputError, match="has no rows to route by"):
        router().add("new", draw(0))
    with pytest.raises(InputError, match="knows no task"):
        Router(fingerprint="").probabilities(draw(1))


def test_the_covariance_is_regular_with_fewer_rows_than_numbers() -> None:
    rows = draw(5)
    apart = rows - rows.mean(0)
    found = shrunk_covariance(apart.T @ apart, 5, 1)
    assert np.linalg.eigvalsh(found).min() > 0
    np.testing.assert_allclose(np.diag(found), np.diag(apart.T @ apart) / 4)


def test_saved_is_read(tmp_path: Path) -> None:
    made = router()
    write_router(tmp_path, made)
    again = read_router(tmp_path)
    assert again.fingerprint == made.fingerprint
    np.testing.assert_allclose(again.probabilities(draw(9)), made.probabilities(draw(9)), atol=1e-3)
    write_router(tmp_path, again.without("t0"))
    assert list(read_router(tmp_path, made.fingerprint).tasks) == ["t1", "t2"]


def test_what_is_damaged_or_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="has no router"):
        read_router(tmp_path)
    folder = write_router(tmp_path, router())
    assert folder == router_folder(tmp_path, "ab" * 32)
    with pytest.raises(NotFound, match="no router for this base"):
        read_router(tmp_path, "cd" * 32)
    write_router(tmp_path, Router.fit({"x": draw(20)}, fingerprint="ef" * 32))
    with pytest.raises(NotFound, match="routers of 2 bases"):
        read_router(tmp_path)
    (folder / TENSORS).write_bytes(b"PK\x03\x04")
    with pytest.raises(Corrupt, match="was changed"):
        read_router(tmp_path, "ab" * 32)
    (folder / NOTE).write_text("tasks = 3")
    with pytest.raises(Corrupt, match="cannot be read"):
        read_router(tmp_path, "ab" * 32)
