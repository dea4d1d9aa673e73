"""With few examples: what ``tune`` does by itself against the best hard prompt, examples in the prompt, and LoRA.

    python benchmarks/few_shot.py sst2 trec6 ag_news --sizes 4 16 32 100 --rounds 5 --tests 500
    python benchmarks/few_shot.py sst2 --sizes 32 --methods auto hard shots --minutes 30

A cell is one method on one draw of so many examples in all (``--rounds`` draws, labels in turn as far as they go), with its
answers to the same ``--tests`` test rows. Every cell is written to ``results/few_shot.json`` when it is done; an interrupted
run, or one that is asked for more, goes on. All methods choose on the same rows: to 32 examples by the same folds, beyond by
the same validation rows; none of them sees a test row.

    auto    ``tune`` with no setting given; it may keep the hard prompt, and says so
    hard    the best instruction without examples
    shots   2 to 16 examples before the row, the best number
    lora    LoRA, r = 8, the rate searched over the same folds, then trained on all examples, as ``tune`` does it

Tested: auto against each of the others in every column (a set at a size), paired by rows and draws, with Holm's correction; and
against LoRA the mean over the sets. Seconds are those until a method can answer, its search included.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from kept import Table
from measuring import data_set, open_base, parser, show, verdict
from paired import Column, answers_of, compare_columns, on_average

from epigraph import Engine, TuneConfig, tune
from epigraph.errors import Diverged
from epigraph.evaluation import evaluate
from epigraph.methods.remembered import Book
from epigraph.methods.rivals import RIVALS
from epigraph.methods.watched import Watched
from epigraph.tasks.row import Row, Split
from epigraph.tasks.split import head
from epigraph.tasks.task import Task
from epigraph.tuning import Surroundings
from epigraph.tuning.choices import choose
from epigraph.tuning.data import Parts, divide
from epigraph.tuning.loop import Loop, Settings
from epigraph.tuning.noise import rank
from epigraph.tuning.session import longest_output
from epigraph.tuning.verdict import HardPrompt, Wordings, best_hard, hard_prompts

METHODS = ("auto", "hard", "shots", "lora")
FACTORS = (1.0, 2.5, 0.4, 5.0, 0.16)  # of LoRA's default rate, in the order they are tried
BATCH = 16
QUICK = {"epochs": 1, "batch": 8}


class Draw(NamedTuple):
    """Examples of a set, and which draw they are."""

    name: str
    size: int
    number: int
    task: Task

    def key(self, method: str, tests: int) -> str:
        """What a cell is of."""
        return f"{self.name} {method} {self.size} {self.number} {tests}"


def main() -> None:
    """Every cell that is not there yet, then the tables."""
    asked = arguments()
    base = open_base(asked)
    table = Table(asked.out / "few_shot.json", base, quick=asked.quick)
    until, columns, left = time.monotonic() + 60 * asked.minutes, list[tuple[str, int, str, Column]](), 0
    for name in asked.sets:
        with opened(name, asked) as task, engine_for(base, quick=asked.quick) as engine:
            methods = ways(engine, Book(), asked)
            for draw in draws(name, task, asked):
                for method in asked.methods:
                    key = draw.key(method, asked.tests)
                    if key in table.cells:
                        continue
                    if time.monotonic() > until:
                        left += 1
                        continue
                    table.add(key, methods[method](draw))
            show(f"{name}: accuracy, mean of the draws that are done", summary(name, table.cells, asked))
            columns += columns_of(name, task, table.cells, asked)
    if left:
        print(f"{asked.minutes:g} minutes are over; {left} cells are left: the same command goes on.")
    pairs = compare_columns("auto against the others, paired by rows and draws", [column for *_, column in columns])
    table.close(verdicts=verdicts(pairs, columns), pairs=pairs)


# ---- the rows ------------------------------------------------------------------------------------------------------------


@contextmanager
def opened(name: str, asked: argparse.Namespace) -> Iterator[Task]:
    """The set with the test rows that all methods answer."""
    with data_set(name, quick=asked.quick) as folder:
        task = Task.from_file(folder)
        assert task.test is not None
        yield replace(task, test=Split(rows=tuple(head(task.test.rows, asked.tests, seed=0))))


@contextmanager
def engine_for(base: Any, *, quick: bool) -> Iterator[Engine]:
    """The engine; a quick run leaves no frozen states behind."""
    with tempfile.TemporaryDirectory(prefix="bench-") as states:
        yield Engine(base, folder=Path(states)) if quick else Engine(base)


def draws(name: str, task: Task, asked: argparse.Namespace) -> Iterator[Draw]:
    """A draw after the other, each at all sizes, so that a first table is there early."""
    for number in range(asked.rounds):
        order = in_turn(head(task.train.rows, len(task.train.rows), seed=number))
        for size in asked.sizes:
            few = replace(task, train=Split(rows=tuple(order[:size])))
            yield Draw(name, size, number, few)


def in_turn(rows: Sequence[Row]) -> list[Row]:
    """One row of every label before the second of any; what a draw of fewer holds is in one of more."""
    by_label: dict[str | None, list[Row]] = {}
    for row in rows:
        by_label.setdefault(row.target, []).append(row)
    return [row for turn in range(len(rows)) for group in by_label.values() for row in group[turn : turn + 1]]


# ---- the methods ---------------------------------------------------------------------------------------------------------


def ways(engine: Engine, book: Book, asked: argparse.Namespace) -> Mapping[str, Callable[[Draw], dict[str, Any]]]:
    """How each method makes a cell; zero-shot answers are computed once for all draws."""
    settings = {**(QUICK if asked.quick else {}), **json.loads(asked.config)}

    def auto(draw: Draw) -> dict[str, Any]:
        config = TuneConfig(seed=draw.number, **settings)
        result = tune(engine.base, draw.task, config, engine=engine, around=Surroundings(book=book))
        said = {name: result.settings[name] for name in ("kind", "place", "length", "rate", "verdict")}
        return cell(draw, result.scored, result.cost["seconds"], **said, why=result.reasons["verdict"])

    def hard(draw: Draw) -> dict[str, Any]:
        return worded(engine, book, draw, lambda one: not one.holds_texts)

    def shots(draw: Draw) -> dict[str, Any]:
        return worded(engine, book, draw, lambda one: one.holds_texts)

    def lora(draw: Draw) -> dict[str, Any]:
        return tuned_lora(engine, draw, asked)

    return {"auto": auto, "hard": hard, "shots": shots, "lora": lora}


def cell(draw: Draw, scored: Any, seconds: float, **said: object) -> dict[str, Any]:
    """What is kept of a method on a draw."""
    score = scored.json[draw.task.metric]
    values = {name: score[name] for name in ("value", "low", "high")}
    return {**values, "metric": draw.task.metric, "seconds": seconds, **said, "answers": answers_of(scored)}


def worded(engine: Engine, book: Book, draw: Draw, suits: Callable[[HardPrompt], bool]) -> dict[str, Any]:
    """The best hard prompt of those that suit, chosen where ``tune`` chooses."""
    task, parts, started = draw.task, parts_of(draw), time.perf_counter()
    tokens = longest_output(engine.base, task, parts.all)
    both = Wordings(written=task, tuned=task)
    found = hard_prompts(engine, both, parts, tokens, seed=draw.number, book=book, finish=lambda method: method)
    some = [one for one in found if suits(one)]
    if not some:
        return {"refused": "no examples fit beside a row, or there are too few"}
    rows = [parts.all[place] for fold in parts.folds for place in fold] or list(parts.validation)
    best, tried = best_hard(some, rows)
    seconds = time.perf_counter() - started
    method = best.method if best.holds_texts else book.of(best.method)
    assert task.test is not None
    return cell(draw, evaluate(method, task.test.rows, split="test"), seconds, prompt=best.name, tried=tried)


def parts_of(draw: Draw) -> Parts:
    """The rows as ``tune`` divides them."""
    return divide(draw.task, TuneConfig(seed=draw.number), thrifty=True)


def tuned_lora(engine: Engine, draw: Draw, asked: argparse.Namespace) -> dict[str, Any]:
    """Every rate over the folds (or the one split), the best one trained on all examples."""
    task, parts, started = draw.task, parts_of(draw), time.perf_counter()
    passes = 1 if asked.quick else choose(TuneConfig(), task, len(parts.learned)).loop.epochs
    first = float(RIVALS["lora"].settings_type().rate)
    seen: list[Watched] = []
    rates = [first * factor for factor in FACTORS[: asked.rates]]
    for rate in rates:
        seen.append(watched(engine, task, parts, rate, passes, draw.number))
        print(f"  lora, rate {rate:.2g}: {seen[-1].score:.3f} on held-out rows", file=sys.stderr, flush=True)
    best = rates[rank(seen)[0]]
    rows = parts.learned
    found = trained(engine, task, rows, rows[:1], settings(best, passes, draw.number), blind=True)
    seconds = time.perf_counter() - started
    assert task.test is not None
    scored = evaluate(found, task.test.rows, split="test")
    tried = {f"{rate:.3g}": one.score for rate, one in zip(rates, seen, strict=True)}
    return cell(draw, scored, seconds, rate=best, passes=passes, tried=tried)


def watched(engine: Engine, task: Task, parts: Parts, rate: float, passes: int, seed: int) -> Watched:
    """What the held-out rows show of a rate, all folds together, as a trial of ``tune`` is judged."""
    every = parts.all
    splits = [
        ([row for place, row in enumerate(every) if place not in set(fold)], [every[place] for place in fold])
        for fold in parts.folds
    ] or [(list(parts.train), list(parts.validation))]
    shown, sizes = [], [len(held) for _, held in splits]
    for train, held in splits:
        last: list[list[float]] = []
        try:
            trained(engine, task, train, held, settings(rate, passes, seed), history=last)
        except Diverged:
            return Watched(-np.inf, -np.inf)
        shown.append(last[-1])
    score, minus_loss, error = (np.array([one[n] for one in shown]) for n in (1, 2, 3))
    shares = np.array(sizes) / sum(sizes)
    return Watched(float(shares @ score), float(shares @ minus_loss), float(np.sqrt(((shares * error) ** 2).sum())))


def trained(
    engine: Engine,
    task: Task,
    train: Sequence[Row],
    held: Sequence[Row],
    asked: Settings,
    *,
    blind: bool = False,
    history: list[list[float]] | None = None,
) -> Any:
    """LoRA on these rows to the end of its schedule; ``history`` takes what its validations showed."""
    kind, tokens = RIVALS["lora"], longest_output(engine.base, task, train)
    rival = kind(engine, task, train, held, kind.settings_type(seed=asked.seed, rate=asked.rate, output_tokens=tokens))
    loop = Loop(rival.module, rival.objective, asked, lambda _moment: None, blind=blind)
    loop.run()
    if history is not None:
        history += loop.state.history
    return rival


def settings(rate: float, passes: int, seed: int) -> Settings:
    """The loop's numbers without an early stop: a fold has too few rows to stop by; it is validated at its end."""
    usual = TuneConfig()
    return Settings(
        epochs=passes,
        batch=BATCH,
        rate=rate,
        warmup=usual.warmup,
        clip=usual.clip,
        patience=passes + 1,
        seed=seed,
        every=passes,
    )


# ---- what comes out ------------------------------------------------------------------------------------------------------


def done_cells(
    name: str, method: str, size: int, done: Mapping[str, Mapping[str, Any]], asked: argparse.Namespace
) -> dict[int, Mapping[str, Any]]:
    """The cells with scores, by draw."""
    keys = {n: f"{name} {method} {size} {n} {asked.tests}" for n in range(asked.rounds)}
    return {n: done[key] for n, key in keys.items() if "value" in done.get(key, {})}


def summary(name: str, done: Mapping[str, Mapping[str, Any]], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a size and method."""
    rows = []
    for size in asked.sizes:
        for method in asked.methods:
            own = list(done_cells(name, method, size, done, asked).values())
            if own:
                values = [one["value"] for one in own]
                rows.append(
                    {
                        "examples": size,
                        "method": method,
                        own[0]["metric"]: statistics.fmean(values),
                        "least": min(values),
                        "most": max(values),
                        "draws": len(own),
                        "hard kept": sum(one.get("verdict") == "hard" for one in own) if method == "auto" else None,
                        "seconds": statistics.median(one["seconds"] for one in own),
                    }
                )
    return rows or [{"examples": None}]


def columns_of(
    name: str, task: Task, done: Mapping[str, Mapping[str, Any]], asked: argparse.Namespace
) -> list[tuple[str, int, str, Column]]:
    """auto against every other method at every size, on the draws that both have."""
    found = []
    for size in asked.sizes:
        own = done_cells(name, "auto", size, done, asked)
        for method in asked.methods:
            other = done_cells(name, method, size, done, asked)
            both = sorted(own.keys() & other.keys())
            if method != "auto" and both:
                first, second = ([side[n]["answers"] for n in both] for side in (other, own))
                column = Column(name=f"{name}, {size} examples: auto − {method}", task=task, first=first, second=second)
                found.append((method, size, name, column))
    return found


def verdicts(pairs: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, int, str, Column]]) -> list[dict[str, Any]]:
    """Not behind the hard prompt by more than the interval at any size; level with LoRA on average over the sets."""
    found = [
        verdict(f"{pair['column']}, the interval's upper end", pair["high"], least=0.0)
        for pair, (method, *_) in zip(pairs, columns, strict=True)
        if method == "hard"
    ]
    for size in sorted({size for method, size, _, _ in columns if method == "lora"}):
        some = [column for method, its, _, column in columns if method == "lora" and its == size]
        mean = on_average(f"{size} examples, mean of {len(some)} sets: auto − lora", some)
        show("auto against LoRA over all sets", [mean])
        found.append(verdict(f"{mean['column']}, the interval's upper end", mean["high"], least=0.0))
    return found


def arguments() -> argparse.Namespace:
    """What was asked."""
    found = parser(__doc__, rounds=5)
    found.add_argument("sets", nargs="*", default=["sst2", "trec6", "ag_news"])
    found.add_argument("--sizes", nargs="+", type=int, default=[4, 16, 32, 100], help="examples in all")
    found.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    found.add_argument("--tests", type=int, default=500, help="test rows, the same for all")
    found.add_argument("--rates", type=int, default=4, help="learning rates that LoRA tries, at most 5")
    found.add_argument("--minutes", type=float, default=float("inf"), help="after which no cell is begun")
    found.add_argument("--config", default="{}", help="TuneConfig fields of auto as JSON")
    asked = found.parse_args()
    if asked.quick:
        asked.sets, asked.sizes, asked.rates = asked.sets[:1], [4, 16], min(asked.rates, 2)
    return asked


if __name__ == "__main__":
    main()
