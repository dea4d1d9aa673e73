"""Does the mean of several orders of the same rows make a better prompt than one order?

    θ = 1/K Σ_k θ_k         K prompts from one start, each of which sees the rows in an order of its own, side by side

    python benchmarks/orders.py sst2 trec6 --rows 1000 --orders 4 --rounds 3
    python benchmarks/orders.py sst2 trec6 --shared 0.67        # one order at first, which parts into four for the last third

What `tune` does at its end, alone: all settings by default, nothing chosen on validation, every row trains. A round is a draw of the
rows; every prompt is scored on the whole test set by itself, then the mean of their parameters as one prompt (Wortsman et al. 2022,
https://arxiv.org/abs/2203.05482). `each` is the mean over the orders: what one order gives, without the luck of the draw. `gain` is
`averaged − each`, its interval over all rounds of all sets by their spread (Student's t). `loss` and `averaged loss` are of the rows
that were learned: where the second is far above the first, the orders ended in different basins, and their mean is in none (Frankle et
al. 2020, section 2, https://arxiv.org/abs/1912.05671).
"""

import argparse
import copy
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from measuring import data_set, fresh_engine, open_base, parser, show, write
from scipy import stats

from epigraph.base import Base
from epigraph.config import TuneConfig
from epigraph.methods.solver import PromptedBase
from epigraph.prompts import SoftPrompt
from epigraph.tasks.row import Split
from epigraph.tasks.split import head
from epigraph.tasks.task import Task
from epigraph.tuning.choices import choose
from epigraph.tuning.loop import Loop, run_together
from epigraph.tuning.objective import make_objective
from epigraph.tuning.start import make_prompt


def main() -> None:
    """A line a round and a set; JSON."""
    asked = arguments()
    base = open_base(asked)
    found = []
    for turn in range(asked.rounds):
        for name in asked.sets:
            found.append(one_round(base, name, turn, asked))
            print(found[-1], flush=True)
    show(f"{asked.orders} orders", found)
    gains = [line["gain"] for line in found]
    mean = statistics.mean(gains)
    half = float(stats.t.ppf(0.975, len(gains) - 1)) * statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    print(f"gain of the mean over one order: {mean:+.4f} ± {half:.4f}")
    write(asked, base, "orders", {"rounds": found, "gain": mean, "half": half, "verdicts": []})


def one_round(base: Base, name: str, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Train all orders side by side on one draw of rows, then score each and their mean."""
    with data_set(name, quick=asked.quick) as folder, fresh_engine(base) as engine:
        task = Task.from_file(folder)
        assert task.test is not None
        task = replace(task, train=Split(rows=tuple(head(task.train.rows, asked.rows, seed=seed))))
        chosen = choose(TuneConfig(seed=seed, rate=asked.rate), task, len(task.train.rows))
        task, tests = chosen.task, head(task.test.rows, asked.tests, seed=0)
        prompt = make_prompt(engine, task, kind=chosen.kind, length=chosen.length, start=chosen.start, seed=seed)
        solver = PromptedBase(engine, task, prompt.fold())
        started = time.perf_counter()
        engine.freeze(solver.encode([*task.train.rows, *tests]))
        objective = make_objective(solver, task.train.rows, tests)
        loops = [
            Loop(copy.deepcopy(prompt), objective, replace(chosen.loop, seed=seed + order), lambda _: None, blind=True)
            for order in range(asked.orders)
        ]
        if together := int(asked.shared * chosen.loop.epochs):
            loops[0].pause_after(together)
            run_together(loops[:1])
            for loop in loops:
                loop.resume(loops[0].state.copy(), loops[0].last_good.copy())
                loop.pause_after(chosen.loop.epochs)
        run_together(loops)
        mean = mean_of([loop.prompt for loop in loops])
        each = [objective.watch(loop.prompt.offer()).score for loop in loops]
        averaged = objective.watch(mean.offer()).score
        learned = make_objective(solver, task.train.rows, task.train.rows)
        losses = [-learned.watch(prompt.offer()).minus_loss for prompt in (*(loop.prompt for loop in loops), mean)]
    return {
        "set": name,
        "seed": seed,
        "each": statistics.mean(each),
        "lowest": min(each),
        "highest": max(each),
        "averaged": averaged,
        "gain": averaged - statistics.mean(each),
        "loss": statistics.mean(losses[:-1]),
        "averaged loss": losses[-1],
        "seconds": time.perf_counter() - started,
    }


def mean_of(prompts: list[SoftPrompt]) -> SoftPrompt:
    """One prompt with the mean of all parameters."""
    states = [prompt.state_dict() for prompt in prompts]
    found = copy.deepcopy(prompts[0])
    found.load_state_dict({key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]})
    return found


def arguments() -> argparse.Namespace:
    """What was asked."""
    found = parser(__doc__, rounds=3)
    found.add_argument("sets", nargs="*", default=["sst2", "trec6"], help="folders of $EPIGRAPH_DATA")
    found.add_argument("--rows", type=int, default=1000)
    found.add_argument("--tests", type=int, default=10_000)
    found.add_argument("--orders", type=int, default=4)
    found.add_argument("--shared", type=float, default=0.0, help="the share of the epochs in one order, before they part")
    found.add_argument("--rate", type=float, help="by default what tune would take")
    return found.parse_args()


if __name__ == "__main__":
    main()
