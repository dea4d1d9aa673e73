"""A server's steps took 1.6 times as long as the same steps in the thread that had loaded the base."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from epigraph.engine.workers import release_workers

TASKS = Path("/proc/self/task")
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or (os.cpu_count() or 1) < 2,
    reason="threads are counted in Linux's /proc, on 2 cores",
)


@pytest.fixture(autouse=True)
def two_threads() -> object:
    """Workers there are only where a product is shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    release_workers()
    torch.set_num_threads(before)


def compute() -> None:
    torch.randn(512, 512) @ torch.randn(512, 512)
    torch.randn(1 << 20).exp()


def elsewhere(work: Callable[[], int]) -> int:
    """What ``work`` answers in a thread of its own."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def threads() -> int:
    return sum(1 for _ in TASKS.iterdir())


def test_a_thread_that_computed_has_no_workers_left_once_they_are_released() -> None:
    compute()
    having = threads()
    release_workers()
    assert threads() == having - 1
    release_workers()  # there is nothing left to end
    assert threads() == having - 1
    compute()
    assert threads() == having


def test_the_workers_of_other_threads_stay() -> None:
    compute()
    having = threads()

    def work() -> int:
        compute()
        release_workers()
        return threads()

    assert elsewhere(work) == having + 1  # the thread itself
