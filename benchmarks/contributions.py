"""Do integrated gradients add up, and do they say what leaving a part out says?

    python benchmarks/contributions.py                       an SST-2 prompt, twelve test texts
    python benchmarks/contributions.py --set trec6
    python benchmarks/contributions.py --quick               a toy base and made-up rows

A prompt is tuned on the set's first rows; the answers to some test texts are explained as ``explain --text`` does. For each: what the
row and the prompt bring in nats, what the sums of their parts miss, at how many places the slope was taken, the rank correlation with
leaving each part out, and the seconds.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from typing import Any

import measuring

import epigraph
from epigraph.explaining import ExplainConfig
from epigraph.explaining.case import Case
from epigraph.explaining.contributions import in_fp32, integrated, left_out
from epigraph.explaining.margin import Margin
from epigraph.explaining.why import MISSED, agreement
from epigraph.model import PromptModel
from epigraph.tasks.row import Row, Split
from epigraph.tasks.split import head

QUICK = {"rows": 48, "texts": 2, "config": '{"epochs": 2, "batch": 8, "budget": "1"}'}


def main() -> None:
    """Tune, explain, print the verdicts, write JSON."""
    asked = arguments()
    base = measuring.open_base(asked)
    with measuring.data_set(asked.set, quick=asked.quick) as folder:
        task = epigraph.Task.from_file(folder)
        assert task.test is not None
        texts = head(task.test.rows, asked.texts, asked.seed)
        config = epigraph.TuneConfig(seed=asked.seed, **json.loads(asked.config))
        few = replace(task, train=Split(rows=tuple(head(task.train.rows, asked.rows, asked.seed))), test=None)
        prompt = PromptModel(epigraph.tune(base, few, config).prompt.stored, base)
    lines = [one_answer(prompt, row) for row in texts]
    measuring.show(f"{asked.set}: {len(texts)} answers", lines)
    gap = max(max(line["row misses"], line["prompt misses"]) for line in lines)
    verdicts = [measuring.verdict("what the worst sum misses, as a share of it", gap, most=MISSED)]
    told = {name: statistics.median(line[name] for line in lines) for name in ("agreement", "seconds")}
    verdicts += [measuring.verdict(f"median {name}", value) for name, value in told.items()]
    measuring.write(asked, base, "contributions", {"lines": lines, "verdicts": verdicts})


def one_answer(prompt: PromptModel, row: Row) -> dict[str, Any]:
    """One text's contributions by both methods."""
    started = time.monotonic()
    margin = Margin(in_fp32(Case(model=prompt, rows=[], config=ExplainConfig())), row)
    gradients, without = integrated(margin), left_out(margin)
    found = {
        "parts": len(without),
        "row brings": gradients.text.total,
        "row misses": gradients.text.gap,
        "prompt brings": gradients.prompt.total,
        "prompt misses": gradients.prompt.gap,
        "places": gradients.text.places + gradients.prompt.places,
        "agreement": agreement(margin, gradients.parts, without),
        "seconds": time.monotonic() - started,
    }
    print(" ".join(f"{name} {value:.3g}" for name, value in found.items()), flush=True)
    return found


def arguments() -> argparse.Namespace:
    """What was asked."""
    found = measuring.parser(__doc__, rounds=1)
    found.add_argument("--set", default="sst2", help="a set in $EPIGRAPH_DATA")
    found.add_argument("--rows", type=int, default=400, help="training rows")
    found.add_argument("--texts", type=int, default=12, help="test rows whose answers are explained")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--config", default="{}", help="settings of the tuning, as JSON")
    asked = found.parse_args()
    if asked.quick:
        vars(asked).update(QUICK)
    return asked


if __name__ == "__main__":
    main()
