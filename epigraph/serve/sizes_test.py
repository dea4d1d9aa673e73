"""A request holds no more than is counted for it."""

import tracemalloc
from collections.abc import Callable

import pytest

from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.serve.batcher import Batcher
from epigraph.serve.sizes import bytes_of
from epigraph.serve.toys_test import Ear
from epigraph.serve.work import BatcherSettings, Classification, Generation, Job, Reading, Sampling
from epigraph.tasks.encode import Encoded

TOKENS = 3000


def ids(start: int = 0, count: int = TOKENS) -> tuple[int, ...]:
    return tuple((start + i) % 200 for i in range(count))


def written(**settings: object) -> Generation:
    return Generation(segments=(ids(),), prompt=None, sampling=Sampling(**settings))  # type: ignore[arg-type]


JOBS: dict[str, Callable[[], Job]] = {
    "one": lambda: written(max_tokens=4),
    "many choices": lambda: written(max_tokens=4, n=50, seed=1),
    "echo": lambda: written(max_tokens=4, n=8, echo=True, logprobs=2),
    "rows": lambda: Classification(rows=(Encoded((ids(),), choices=((1, 2), (1, 3))),) * 3, prompt=None, tree=None),
    "choices": lambda: Classification(
        rows=(Encoded((ids(),), choices=tuple(ids(i, 10) for i in range(50))),), prompt=None, tree=None
    ),
    "reading": lambda: Reading(texts=(ids(), ids(3))),
}


@pytest.mark.parametrize("name", JOBS)
def test_what_is_held_while_it_waits_is_within_the_estimate(name: str) -> None:
    engine = Engine(toy_base(context=8192), keep=False)
    batcher = Batcher(engine, BatcherSettings(cache_bytes=10**8))  # not started: all wait
    batcher.submit(JOBS[name](), Ear())  # what is made once is there already
    tracemalloc.start()
    try:
        jobs = [JOBS[name]() for _ in range(3)]
        for job in jobs:
            batcher.submit(job, Ear())
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held <= sum(map(bytes_of, jobs))
