"""``compare``: every method on the same rows, seeds and budget, cell by cell, resumable.

    plan:  learning rates (300 rows, one seed, the same for all that are trained)
           → all rows, every seed → the data curve, from few rows on                   each cell is kept when it is done

A method that cannot run is a cell that says why; it never ends the comparison. Run again over the same folder, finished
cells are read and not run.
"""

import gc
import importlib
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from epigraph.base import Base
from epigraph.compare.asked import CompareConfig
from epigraph.compare.cells import FAILED, UNSUPPORTED, Cell, CellFolder, cell_key
from epigraph.compare.comparison import Comparison
from epigraph.compare.material import Material, Part, gather
from epigraph.compare.measuring import Scale, base_bytes, run_cell, score_rate
from epigraph.compare.method import Budget, Job, Method
from epigraph.compare.pace import Pace
from epigraph.compare.roster import make_methods
from epigraph.compare.spent import Spent
from epigraph.cost import processor_power
from epigraph.engine import Engine
from epigraph.errors import EpigraphError, StorageFailed, Unsupported
from epigraph.methods.remembered import Book
from epigraph.metrics import upward
from epigraph.tasks.task import Task
from epigraph.tuning.run import rows_hash
from epigraph.tuning.session import longest_output

RATE_ROWS = 300
FEWEST_PASSES, MOST_PASSES = 3, 20
GENERATION_SHARE, RATE_SHARE = 0.5, 0.4  # of the examples seen
MOST_ATTEMPTS = 2  # at a cell whose process ends in the middle of it
Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A cell to come."""

    method: Method
    rows: int
    seed: int

    @property
    def name(self) -> str:
        """As its file begins."""
        return f"{self.method.name}-{self.rows}-{self.seed}"


def compare(
    base: Base,
    task: Task,
    config: CompareConfig | None = None,
    *,
    folder: Path | str,
    hard_prompts: Sequence[tuple[str, str]] = (),
    engine: Engine | None = None,
    note: Note = lambda _text: None,
) -> Comparison:
    """Compare all methods asked for on this task. ``folder`` keeps what is done; ``hard_prompts`` are (name, text).

    Raises ConfigError and DataError for what cannot be compared at all. Ctrl-C leaves the folder; the same call goes on.
    """
    config = config or CompareConfig()
    material = gather(task, rows=config.rows, tests=config.tests)
    methods = make_methods(config, task, hard_prompts)
    session = Session(
        engine=engine or Engine(base),
        material=material,
        config=config,
        folder=CellFolder(Path(folder) / "cells"),
        note=note,
    )
    return session.run(methods)


@contextmanager
def _long_lived() -> Iterator[None]:
    """Load what methods import only when they are fitted, which is no method's cost, and spare the collector what lives on."""
    for module in ("sklearn.linear_model", "sklearn.pipeline", "sklearn.preprocessing", "peft"):
        with suppress(ImportError):
            importlib.import_module(module)
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Session:
    """The running of one comparison."""

    def __init__(self, *, engine: Engine, material: Material, config: CompareConfig, folder: CellFolder, note: Note) -> None:
        self.engine, self.material, self.config, self.folder, self.note = engine, material, config, folder, note
        base, task = engine.base, material.task
        self.output_tokens = longest_output(base, task, material.rest)
        self.common = {
            "base": [base.fingerprint, base.precision.name, base.device.type],
            "task": task.to_dict(),
            "train": rows_hash(material.rest),
            "test": rows_hash(material.test),
        }
        self.power = processor_power()
        self.refused: dict[str, str] = {}
        self.book = Book()

    def run(self, methods: Sequence[Method]) -> Comparison:
        """Every cell, those that are done read from the folder."""
        for warning in () if self.folder.begun else self.material.warnings:  # said when it was begun, and in the report
            self.note(f"note: {warning}")
        started, plan = time.perf_counter(), self.plan(methods)
        with _long_lived():
            cells = self._run_all(plan)
        return Comparison(
            material=self.material,
            config=self.config,
            methods=tuple(methods),
            cells=tuple(cells),
            base=self.engine.base,
            base_bytes=base_bytes(self.engine),
            seconds=time.perf_counter() - started,
        )

    def _run_all(self, plan: Sequence[Planned]) -> list[Cell]:
        """The cells of the plan, one after another, with the time left."""
        pace, cells, started = Pace([self._weight(planned) for planned in plan]), [], time.perf_counter()
        for number, planned in enumerate(plan):
            begun, known = time.perf_counter(), True
            cell = self._known(planned)
            if cell is None:
                known, cell = False, self._left_out(planned, started) or self._new(planned)
            pace.step(number, time.perf_counter() - begun, known=known)
            cells.append(cell)
            self.note(f"[{number + 1}/{len(plan)}] {self._said(planned, cell, known=known)}; {pace.left}")
        return cells

    def plan(self, methods: Sequence[Method]) -> list[Planned]:
        """All cells: all rows first, with every seed, then the curve, the cheapest points first."""
        every, seeds = len(self.material.rest), range(self.config.seed, self.config.seed + self.config.seeds)
        whole = [Planned(method=m, rows=every, seed=s) for s in seeds for m in methods if m.seeded or s == seeds[0]]
        points = [point for point in self.config.points if point < every]
        few = [
            Planned(method=m, rows=point, seed=s)
            for point in points
            for s in seeds[: self.config.curve_seeds]
            for m in methods
            if m.curved
        ]
        return whole + few

    # ---- one cell ----------------------------------------------------------------------------------------------------

    def _known(self, planned: Planned) -> Cell | None:
        """A finished cell, if its learning rate is known and it was run."""
        rate = self._kept_rate(planned.method)
        if rate is None:
            return None
        return self.folder.read_cell(planned.name, cell_key(self._facts(planned, rate.get("rate"))))

    def _left_out(self, planned: Planned, started: float) -> Cell | None:
        """A cell that says that the time is over, where it is."""
        limit = self.config.limit
        if limit is None or time.perf_counter() - started < 60 * limit:
            return None
        reason = f"the limit of {limit:g} minutes was reached before it was begun. The same command goes on."
        return Cell(method=planned.method.name, rows=planned.rows, seed=planned.seed, status=UNSUPPORTED, reason=reason)

    def _new(self, planned: Planned) -> Cell:
        """Run a cell; a cell that says why where it cannot be."""
        nothing = Cell(method=planned.method.name, rows=planned.rows, seed=planned.seed)
        if planned.method.name in self.refused:
            return replace(nothing, status=UNSUPPORTED, reason=self.refused[planned.method.name])
        name, key = planned.name, cell_key(self._facts(planned, None))
        if (cut := self.folder.cut_off(name, key)) >= MOST_ATTEMPTS:
            self.folder.unmark(name, key)
            reason = (
                f"the process ended in the middle of it {cut} times, most likely for lack of memory. Run again to retry."
            )
            return replace(nothing, status=FAILED, reason=reason)
        self.folder.mark(name, key)
        try:
            found = self._rate(planned.method)
            rate = found["rate"]
            job = self._job(planned.rows, planned.seed, rate)
            first = planned.rows == len(self.material.rest) and planned.seed == self.config.seed
            scale = Scale(test=self.material.test, split=self.material.split, power=self.power, requests=first)
            facts = self._facts(planned, rate)
            cell = run_cell(planned.method, job, scale)
            cell = replace(cell, cost=cell.cost | Spent(**found["spent"]).named("search"))
            self.folder.write_cell(name, cell_key(facts), facts, cell)
            return cell
        except StorageFailed:
            raise
        except EpigraphError as error:
            if isinstance(error, Unsupported):
                self.refused[planned.method.name] = str(error)  # with other rows or seeds too
            return replace(nothing, status=UNSUPPORTED, reason=str(error))
        except Exception as error:
            return replace(nothing, status=FAILED, reason=self._fault(planned, error))
        finally:
            self.folder.unmark(name, key)

    def _fault(self, planned: Planned, error: Exception) -> str:
        """What to say of a failure that no method foresaw: memory, or our own fault with its traceback kept."""
        said = " ".join(str(error).split())[:300]
        if isinstance(error, MemoryError) or "out of memory" in said.lower() or "can't allocate memory" in said:
            return f"there was not enough memory: {said}"
        where = self.folder.folder / f"{planned.name.replace('/', '-').replace(':', '-')}.traceback"
        where.write_text(traceback.format_exc(), encoding="utf-8")
        return f"a fault of Epigraph: {type(error).__name__}: {said} (traceback in {where.name})"

    def _job(self, rows: int, seed: int, rate: float | None) -> Job:
        part: Part = self.material.part(rows, seed)
        return Job(
            engine=self.engine,
            task=part.task,
            train=part.train,
            validation=part.validation,
            validation_share=part.share,
            seed=seed,
            budget=self._budget(len(part.train)),
            output_tokens=self.output_tokens,
            rate=rate,
            book=self.book,
        )

    def _budget(self, rows: int, share: float = 1.0) -> Budget:
        share *= GENERATION_SHARE if self.material.task.writes else 1.0
        passes = max(FEWEST_PASSES, min(MOST_PASSES, round(share * self.config.examples / max(1, rows))))
        return Budget(trials=self.config.tries, seconds=self.config.seconds, epochs=self.config.epochs or passes)

    def _facts(self, planned: Planned, rate: float | None) -> dict[str, Any]:
        """Everything a cell depends on."""
        config = self.config
        spent = {"trials": config.tries, "budget": config.seconds, "examples": config.examples, "epochs": config.epochs}
        own = {"method": planned.method.name, "settings": dict(planned.method.settings), "rate": rate}
        return {**self.common, **own, "rows": planned.rows, "seed": planned.seed, **spent}

    # ---- learning rates ----------------------------------------------------------------------------------------------

    def _rate(self, method: Method) -> dict[str, Any]:
        """The learning rate that is best on validation, of at most 300 rows and one seed; kept like a cell, with its cost."""
        kept = self._kept_rate(method)
        if kept is not None:
            return kept
        job, spent = self._rate_job(), Spent()
        tried, until = [], None if self.config.seconds is None else time.monotonic() + self.config.seconds
        for rate in method.rates(job):
            found = score_rate(method, replace(job, rate=rate), self.power)
            spent += found.spent
            if found.rank is None:
                self.note(f"    {method.name}: rate {rate:.3g} did not keep the loss finite")
                continue
            score, minus_loss = found.rank
            tried.append({"rate": rate, "score": score, "minus_loss": minus_loss})
            shown = upward(job.task.metric, score)
            self.note(f"    {method.name}: rate {rate:.3g} gave {job.task.metric} {shown:.3f} on validation")
            if until is not None and time.monotonic() > until:
                break
        if not tried:
            raise Unsupported(f"no learning rate kept the loss of {method.name} finite.", "Try --dtype float32.")
        best = max(tried, key=lambda one: (one["score"], one["minus_loss"]))
        facts = self._rate_facts(method)
        chosen = {"rate": best["rate"], "tried": tried, "spent": asdict(spent)}
        self.folder.write(f"{method.name}-rate", cell_key(facts), facts, chosen)
        return chosen

    def _kept_rate(self, method: Method) -> dict[str, Any] | None:
        """What a search found before; no rate for methods that have none."""
        if not method.trained:
            return {"rate": None, "spent": {}}
        return self.folder.read(f"{method.name}-rate", cell_key(self._rate_facts(method)))

    def _rate_job(self) -> Job:
        job = self._job(min(RATE_ROWS, len(self.material.rest)), self.config.seed, None)
        return replace(job, budget=self._budget(len(job.train), RATE_SHARE))

    def _rate_facts(self, method: Method) -> dict[str, Any]:
        planned = Planned(method=method, rows=min(RATE_ROWS, len(self.material.rest)), seed=self.config.seed)
        return {**self._facts(planned, None), "what": "learning rate"}

    # ---- words -------------------------------------------------------------------------------------------------------

    def _weight(self, planned: Planned) -> tuple[str, float]:
        """The method, and how much longer this cell takes than another of it: by examples seen and rows scored."""
        rows = planned.rows * (self._budget(planned.rows).epochs if planned.method.trained else 1)
        return planned.method.name, float(rows + len(self.material.test))

    def _said(self, planned: Planned, cell: Cell, *, known: bool) -> str:
        what = f"{planned.method.title}, {planned.rows:,} rows, seed {planned.seed}"
        if not cell.done:
            return f"{what}: {cell.status}: {cell.reason}"
        metric = self.material.task.metric
        value: Mapping[str, float] = cell.scores[metric]
        seconds = f"{cell.cost['seconds']:.0f} s" + (" (read, not run again)" if known else "")
        return f"{what}: {metric} {value['value']:.3f}, {seconds}"
