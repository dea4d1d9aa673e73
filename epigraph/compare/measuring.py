"""One cell: fit a method, score it once on the test rows, and measure what both cost.

Every fit starts with nothing read, so that a method pays for its own reading of the texts; test rows are read once for all.

    memory       the method's own peak: of the process's own pages (RssAnon) during the fit, above what there was; with the
                 base's weights added unless the method has a copy of the base of its own, which is then in it
    joules       as ``cost.Meter`` has them, of the same seconds: of the processor's counter, or estimated and marked so
    latency      median seconds of one request that was never read before          throughput   rows a second of many
"""

import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epigraph.compare.cells import Cell
from epigraph.compare.deciding import decided
from epigraph.compare.general import general_text, loss_on
from epigraph.compare.method import Fitted, Job, Method, Reading
from epigraph.compare.spent import Spent
from epigraph.cost import MemoryWatch, Meter, Power, trim_memory
from epigraph.engine import Engine
from epigraph.engine.frozen import FrozenStore
from epigraph.errors import Diverged
from epigraph.evaluation import evaluate
from epigraph.methods.ranking import Rank, rank_method
from epigraph.methods.solver import Scorable
from epigraph.tasks.row import Row

REQUESTS, MANY = 5, 32
TASKS_HELD = (1, 10, 100, 1000)
WATCHED_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What cells are measured by: the test rows, of what split, the processor's power; ``requests``: whether to serve."""

    test: Sequence[Row]
    split: str
    power: Power
    requests: bool


def base_bytes(engine: Engine) -> int:
    """What the base's weights take in memory."""
    return sum(p.numel() * p.element_size() for p in engine.base.model.parameters())


def run_cell(method: Method, job: Job, scale: Scale) -> Cell:
    """Fit, score and measure. Raises what the method raises where it cannot."""
    fitted, cost = _fit(method, job, scale.power)
    test = list(scale.test)[: fitted.most_tests]
    scored = evaluate(fitted.method, test, split=scale.split, seed=job.seed)
    forgetting = {}
    if fitted.loss_on is not None:
        forgetting = {"before": _loss_before(job.engine), "after": fitted.loss_on(general_text())}
    if scale.requests:
        cost |= _serve(fitted, job.engine, test)
    return Cell(
        method=method.name,
        rows=len(job.task.train.rows),
        seed=job.seed,
        predicted=list(scored.predicted),
        sets=[list(given) for given in scored.sets[1]] if scored.sets is not None else [],
        scores=scored.json,
        cost=cost,
        settings=_plain(fitted.settings),
        reasons={name: str(reason) for name, reason in fitted.reasons.items()},
        forgetting=forgetting,
    )


@dataclass(frozen=True, kw_only=True)
class RateScore:
    """What trying a learning rate gave: its rank, None where the loss did not stay finite; and what it took, either way."""

    rank: Rank | None
    spent: Spent


def score_rate(method: Method, job: Job, power: Power) -> RateScore:
    """What a learning rate is chosen by: the task's metric on the validation rows, then the mean −loss in nats."""
    found, own, before, meter = None, 0, job.engine.flops, Meter()
    with unread(job.engine):
        try:
            fitted = method.fit(job)
            rows = list(job.validation)[: WATCHED_ROWS if job.task.writes else None]
            found, own = rank_method(fitted.method, rows), fitted.flops()
        except Diverged:
            pass  # said by the rank that is not there
        read = Reading.of(meter, power)
    flops = job.engine.flops - before + own
    trim_memory()
    return RateScore(rank=found, spent=Spent(seconds=read.seconds, flops=flops, joules=float(read.energy["joules"])))


@contextmanager
def unread(engine: Engine) -> Iterator[None]:
    """Let the engine work with an empty store of frozen states meanwhile, held in memory; its own comes back after."""
    own = engine.store
    with tempfile.TemporaryDirectory(prefix="frozen-") as folder:
        engine.store = FrozenStore(own.shape, dtype=own.dtype, folder=Path(folder), budget=own.budget, keep=False)
        try:
            yield
        finally:
            engine.store = own


def _fit(method: Method, job: Job, power: Power) -> tuple[Fitted, dict[str, Any]]:
    trim_memory()
    before, meter = job.engine.flops, Meter()
    with unread(job.engine), MemoryWatch() as memory:
        fitted = decided(method.fit(job), job.validation)
        read = fitted.meter_read or Reading.of(meter, power, memory)
        counted = job.engine.flops - before if fitted.counted is None else fitted.counted
        flops = counted + fitted.flops()
    own = 0 if fitted.own_base or fitted.loss_on is not None else base_bytes(job.engine)
    return fitted, {
        "seconds": round(read.seconds, 2),
        "flops": flops,
        **read.energy,
        "peak_memory_bytes": own + read.memory,
        "trained_parameters": fitted.trained_parameters,
        "kept_parameters": fitted.kept_parameters,
        "kept_bytes": fitted.kept_bytes,
        "held_bytes": fitted.held_bytes,
        "own_base": fitted.own_base,
        "added_tokens": fitted.added_tokens,
    }


def _serve(fitted: Fitted, engine: Engine, test: Sequence[Row]) -> dict[str, Any]:
    """Latency of single requests and throughput of many, nothing of them read before."""
    single = list(test)[: REQUESTS + 1]
    many = (list(test) * math.ceil(MANY / max(1, len(test))))[: MANY // 2 if fitted.method.task.writes else MANY]
    with unread(engine), fitted.open() as method:
        seconds = [_answer(method, [row], engine) for row in single]
        together = _answer(method, many, engine)
    return {
        "latency_seconds": round(statistics.median(seconds[1:] or seconds), 4),
        "rows_a_second": round(len(many) / together, 2),
    }


def _answer(method: Scorable, rows: Sequence[Row], engine: Engine) -> float:
    """Seconds of answering these rows."""
    engine.store.forget()
    started = time.perf_counter()
    method.outputs(rows) if method.task.writes else method.probabilities(rows)
    return time.perf_counter() - started


_BEFORE: dict[str, float] = {}


def _loss_before(engine: Engine) -> float:
    """The base's own loss on the general text, computed once."""
    name = f"{engine.base.fingerprint}/{engine.base.precision.name}"
    if name not in _BEFORE:
        _BEFORE[name] = loss_on(engine.base, general_text())
    return _BEFORE[name]


def _plain(settings: Any) -> dict[str, Any]:
    """Settings as JSON can hold them."""
    plain = (str, int, float, bool, dict, list)
    return {name: value if isinstance(value, plain) or value is None else str(value) for name, value in settings.items()}
