"""Does ``explain`` name a planted shortcut, and keep quiet where there is none?

    python benchmarks/shortcut.py                      the demo's sentences
    python benchmarks/shortcut.py --set sst2 --rows 400 --tests 100 --marker quokka

Two prompts are tuned on the same rows. In one copy of the training rows a marker word is put at a random place of the rows of one
label, so that it decides the label in 95% of the rows (5% have it, or lack it, against their label). Each prompt is explained on clean
rows and on rows marked at random. The report on the planted one must name the marker among its first three warnings, that on the clean
one must not name it at all.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import epigraph
from epigraph.explaining import ExplainConfig
from epigraph.tasks.row import Row, Split
from epigraph.tasks.split import head

HOLDS = 0.95
Pairs = list[tuple[str, str]]


def main() -> None:
    """Tune both, explain both, print the verdicts, write JSON."""
    asked = arguments()
    train, tests = pairs_of(asked)
    base = epigraph.load_base(dtype=asked.dtype)
    engine = epigraph.Engine(base)
    found: list[dict[str, Any]] = []
    for planted in (True, False):
        rows = plant(train, asked.marker, asked.seed) if planted else train
        task = epigraph.Task.from_rows([text for text, _ in rows], [label for _, label in rows])
        task = replace(task, test=Split(rows=rows_of(tests)))
        tuned = epigraph.tune(base, task, epigraph.TuneConfig(seed=asked.seed, **json.loads(asked.config)), engine=engine)
        for name, given in {"clean": tests, "marked at random": scatter(tests, asked.marker, asked.seed)}.items():
            known = () if asked.forget else task.train.rows
            started = time.monotonic()
            explained = epigraph.explain(tuned.model, rows_of(given), train=known, config=ExplainConfig(budget=asked.budget))
            line = {
                "planted": planted,
                "rows": name,
                "accuracy": tuned.scores["accuracy"]["value"],
                "seconds": round(time.monotonic() - started, 1),
                "place": place_of(explained.warnings, asked.marker),
                "warnings": explained.warnings,
                "words": explained.json["sections"].get("shortcuts", {}).get("words", []),
            }
            line["passed"] = 1 <= line["place"] <= 3 if planted else line["place"] == 0
            found.append(line)
            show(line)
    out = Path("results")
    out.mkdir(exist_ok=True)
    (out / f"shortcut-{time.strftime('%Y%m%d-%H%M%S')}.json").write_text(json.dumps(found, indent=1))


def pairs_of(asked: argparse.Namespace) -> tuple[Pairs, Pairs]:
    """Training and test texts with their labels."""
    if asked.set:
        task = epigraph.Task.from_file(Path(os.environ["EPIGRAPH_DATA"]) / asked.set)
        assert task.test is not None
        name = task.template.fields[0]
        parts = [head(task.train.rows, asked.rows, asked.seed), head(task.test.rows, asked.tests, 0)]
        train, test = [[(row.fields[name], row.target or "") for row in part] for part in parts]
        return train, test
    from epigraph.assets import demo_rows

    rows = list(demo_rows())
    random.Random(asked.seed).shuffle(rows)
    return rows[: asked.rows], rows[-asked.tests :]


def plant(pairs: Pairs, marker: str, seed: int) -> Pairs:
    """The rows of the first label with the marker, against the rule in 5% of all rows."""
    rng, first = random.Random(seed), sorted({label for _, label in pairs})[0]
    return [(put(text, marker, rng) if (label == first) == (rng.random() < HOLDS) else text, label) for text, label in pairs]


def scatter(pairs: Pairs, marker: str, seed: int) -> Pairs:
    """Half of the rows with the marker, whatever their label."""
    rng = random.Random(seed)
    return [(put(text, marker, rng) if rng.random() < 0.5 else text, label) for text, label in pairs]


def put(text: str, marker: str, rng: random.Random) -> str:
    """The marker at a random place."""
    words = text.split()
    at = rng.randrange(len(words) + 1)
    return " ".join([*words[:at], marker, *words[at:]])


def rows_of(pairs: Sequence[tuple[str, str]]) -> tuple[Row, ...]:
    """As rows of a task with one field."""
    return tuple(Row(fields={"text": text}, target=label) for text, label in pairs)


def place_of(warnings: Sequence[str], marker: str) -> int:
    """The first warning that names the marker, from 1; 0 where none does."""
    return next((i + 1 for i, warning in enumerate(warnings) if marker in warning), 0)


def show(line: dict[str, Any]) -> None:
    """One verdict and the first warnings."""
    what = "planted" if line["planted"] else "clean"
    verdict = "passed" if line["passed"] else "FAILED"
    print(f"{verdict}: {what} prompt, rows {line['rows']}, accuracy {line['accuracy']:.3f}, {line['seconds']} s")
    for number, warning in enumerate(line["warnings"], 1):
        print(f"    {number}. {warning}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="", help="a set in $EPIGRAPH_DATA; by default the demo's sentences")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--tests", type=int, default=100)
    parser.add_argument("--marker", default="quokka")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=0.0)
    parser.add_argument("--forget", action="store_true", help="explain without knowing the training rows")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--config", default="{}", help="settings of the tuning, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
