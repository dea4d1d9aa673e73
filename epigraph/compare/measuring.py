"""One cell: fit a method, score it once on the test rows, and measure what both cost.

Every fit starts with nothing read, so that a method pays for its own reading of the texts; test rows are read once for all.

    memory       peak of the process's own pages (RssAnon) during the fit, above what there was; with the base's weights
                 added unless the method has a copy of the base of its own, which is then in it
    joules       as ``cost.Meter`` has them: of the processor's counter, or estimated and marked so
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
from epigraph.compare.general import general_text, loss_on
from epigraph.compare.method import Fitted, Job, Method
from epigraph.cost import MemoryWatch, Meter, Power, trim_memory
from epigraph.engine import Engine
from epigraph.engine.frozen import FrozenStore
from epigraph.evaluation import evaluate
from epigraph.methods.choice import quick_score
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
        scores=scored.json,
        cost=cost,
        settings=_plain(fitted.settings),
        reasons={name: str(reason) for name, reason in fitted.reasons.items()},
        forgetting=forgetting,
    )


def score_rate(method: Method, job: Job) -> tuple[float, float]:
    """What a learning rate is chosen by: the task's metric on the validation rows, then the mean −loss in nats."""
    with unread(job.engine):
        fitted = method.fit(job)
        rows = list(job.validation)[: None if job.task.has_labels else WATCHED_ROWS]
        found = quick_score(fitted.method, rows), _minus_loss(fitted.method, rows)
    trim_memory()
    return found


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
        fitted = method.fit(job)
        seconds, energy = meter.seconds, meter.energy(power)
        counted = job.engine.flops - before if fitted.counted is None else fitted.counted
        flops = counted + fitted.flops()
    own = 0 if fitted.own_base or fitted.loss_on is not None else base_bytes(job.engine)
    return fitted, {
        "seconds": round(fitted.seconds or seconds, 2),
        "flops": flops,
        **energy,
        "peak_memory_bytes": own + memory.added,
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
    many = (list(test) * math.ceil(MANY / max(1, len(test))))[: MANY if fitted.method.task.has_labels else MANY // 2]
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
    method.probabilities(rows) if method.task.has_labels else method.outputs(rows)
    return time.perf_counter() - started


_BEFORE: dict[str, float] = {}


def _loss_before(engine: Engine) -> float:
    """The base's own loss on the general text, computed once."""
    name = f"{engine.base.fingerprint}/{engine.base.precision.name}"
    if name not in _BEFORE:
        _BEFORE[name] = loss_on(engine.base, general_text())
    return _BEFORE[name]


def _minus_loss(method: Scorable, rows: Sequence[Row]) -> float:
    if not method.task.has_labels:
        return 0.0
    found, place = method.probabilities(rows), {label: n for n, label in enumerate(method.task.labels)}
    truth = [place.get(row.target or "") for row in rows]
    right = [float(each[at]) for each, at in zip(found, truth, strict=True) if at is not None]
    return statistics.fmean(math.log(max(p, 1e-12)) for p in right) if right else 0.0


def _plain(settings: Any) -> dict[str, Any]:
    """Settings as JSON can hold them."""
    plain = (str, int, float, bool, dict, list)
    return {name: value if isinstance(value, plain) or value is None else str(value) for name, value in settings.items()}
