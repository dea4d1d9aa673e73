"""The slow way for bases that are run by plain concatenation: rows of classifications one by one, between two steps."""

from collections import deque

from epigraph.engine import Engine
from epigraph.errors import EpigraphError
from epigraph.serve.labelling import Labelling, not_numbers


def classify_next(engine: Engine, jobs: deque[Labelling]) -> None:
    """Answer one row of the first classification; the next one's turn follows."""
    if not jobs:
        return
    job = jobs.popleft()
    job.request.begun = True
    row = job.waiting.popleft()
    assert row.tail is not None, "no frozen states are read here"
    try:
        found = row.tail.alone(engine, job.rows[row.number], [form for _, form in row.row.blocks])
        if not bool(found.isfinite().all()):
            raise not_numbers(job.request)
    except EpigraphError as error:
        job.end("error", error)
        return
    job.take(row, found)
    if job.complete:
        job.finish()
    else:
        jobs.append(job)
