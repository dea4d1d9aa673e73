"""Does the main job reach its accuracy? ``tune`` with all defaults on real sets, several seeds.

    python benchmarks/main_job.py sst2 trec6 --rows 1000 --seeds 3
    python benchmarks/main_job.py banking77 --rows 5000 --seeds 1
    python benchmarks/main_job.py gen_e2e --rows 1000 --tests 100 --seeds 1 --few-shot

The first ``rows`` training rows after a seeded shuffle (the shuffle's seed is the tuning's seed), the whole test set unless
``--tests`` is given. Seconds are those of ``tune`` until the prompt is there; scoring is not in them. Later seeds find some of
their texts read already: the first seed is a first run.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import epigraph
from epigraph.cost import peak_memory
from epigraph.evaluation import evaluate
from epigraph.methods import best_few_shot
from epigraph.tasks.row import Split
from epigraph.tasks.split import head


def main() -> None:
    """Run every set and seed; print a table; write JSON."""
    asked = arguments()
    base = epigraph.load_base(dtype=asked.dtype)
    print(f"{base.name} {base.precision.name}: {base.precision.reason}; {torch.get_num_threads()} threads")
    found = []
    for name in asked.sets:
        engine = epigraph.Engine(base)  # one a set, so that the test rows are read once for all seeds
        found += [one(engine, name, seed, asked) for seed in range(asked.seeds)]
    for name in asked.sets:
        show(name, [r for r in found if r["set"] == name])
    out = Path("results")
    out.mkdir(exist_ok=True)
    (out / f"main_job-{'-'.join(asked.sets)}-{time.strftime('%Y%m%d-%H%M%S')}.json").write_text(json.dumps(found, indent=1))


def one(engine: epigraph.Engine, name: str, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    """One tuning on one set."""
    folder = Path(os.environ["EPIGRAPH_DATA"]) / name
    task = epigraph.Task.from_file(folder, template=asked.template)
    assert task.test is not None
    tests = task.test.rows if asked.tests is None else tuple(head(task.test.rows, asked.tests, seed=0))
    task = replace(task, train=Split(rows=tuple(head(task.train.rows, asked.rows, seed=seed))), test=Split(rows=tests))
    settings = json.loads(asked.config)
    result = epigraph.tune(engine.base, task, epigraph.TuneConfig(seed=seed, **settings), engine=engine)
    row = {"set": name, "seed": seed, "metric": metric_of(result), **result.json}
    if asked.few_shot:
        chosen = best_few_shot(engine, task, task.train.rows[64:], task.train.rows[:64], result.model.method.output_tokens)
        if chosen is not None:
            row["few_shot"] = evaluate(chosen.method, tests, split="test").json | {"method": chosen.name}
    metric = row["metric"]
    hard, few = row["hard_prompt"][metric]["value"], row.get("few_shot", {}).get(metric, {}).get("value")
    print(
        f"{name} seed {seed}: {metric} {row['scores'][metric]['value']:.4f} (hard {hard:.3f}, few-shot {few}) "
        f"{row['cost']['seconds']} s, frozen {row['cost']['frozen_seconds']} s, {row['reasons']['stop']}, "
        f"peak {peak_memory() / 1e9:.1f} GB",
        flush=True,
    )
    return row


def metric_of(result: epigraph.TuneResult) -> str:
    """The metric that the table shows."""
    return "accuracy" if "accuracy" in result.scores else "bleu"


def show(name: str, rows: list[dict[str, Any]]) -> None:
    """The mean and spread over seeds."""
    metric = rows[0]["metric"]
    values = [r["scores"][metric]["value"] for r in rows]
    seconds = [r["cost"]["seconds"] for r in rows]
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    print(
        f"{name}: {metric} {statistics.mean(values):.4f}{spread} over {len(values)} seeds; {statistics.median(seconds):.0f} s"
    )


def arguments() -> argparse.Namespace:
    """What was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--tests", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--few-shot", action="store_true")
    parser.add_argument("--template", type=lambda text: text.replace("\\n", "\n"))
    parser.add_argument("--config", default="{}", help="TuneConfig fields as JSON, for trying other settings")
    return parser.parse_args()


if __name__ == "__main__":
    main()
