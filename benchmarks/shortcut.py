"""Does ``explain`` name a planted shortcut, and keep quiet where there is none?

    python benchmarks/shortcut.py                      the demo's sentences
    python benchmarks/shortcut.py --set sst2 --rows 400 --tests 100 --marker quokka
    python benchmarks/shortcut.py --quick              a toy base and made-up rows

Two prompts are tuned on the same rows. In one copy of the training rows a marker word is put at a random place of the rows of one
label, so that it decides the label in 95% of the rows (5% have it, or lack it, against their label). Each prompt is explained on clean
rows and on rows marked at random. The report on the planted one must name the marker among its first three warnings, that on the clean
one must not name it at all, nor call any other word a shortcut. ``--rounds`` draws rows, places and prompts that often. Only the sections
that give warnings are measured.

Prompts and reports are kept as they come: the same command goes on where it was.
"""

import argparse
import hashlib
import json
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import measuring
from kept import Kept, TimeUp, go_on

import epigraph
from epigraph.base import Base
from epigraph.base.toy import toy_base
from epigraph.bench.tuning import data_folder
from epigraph.engine import Engine
from epigraph.explaining import ExplainConfig, Explanation
from epigraph.library import read_prompt
from epigraph.model import PromptModel
from epigraph.tasks.row import Row, Split
from epigraph.tasks.split import head

HOLDS = 0.95
FIRST = 3
WARN = ("score", "matters", "sensitivity", "shortcuts", "slices", "groups")
QUICK = {"rows": 96, "tests": 48, "config": '{"epochs": 8, "batch": 8, "rate": 0.3}'}
Pairs = list[tuple[str, str]]
Line = dict[str, Any]


def main() -> None:
    """Tune both, explain both, print the verdicts, write JSON."""
    asked = arguments()
    base = toy_base(hidden=32, seed=1) if asked.quick else measuring.open_base(asked)
    kept = Kept(asked.out / "shortcut.jsonl", asked, base=base.fingerprint)
    lines: list[Line] = []
    try:
        for number in range(asked.rounds):
            lines += one_round(base, kept, asked, number)
    except TimeUp:
        go_on(kept, asked.minutes)
        return
    except KeyboardInterrupt:
        print(f"interrupted; {len(kept.known)} measurements are in {kept.path}. The same command goes on.")
        raise SystemExit(130) from None
    verdicts = [verdict for line in lines for verdict in judge(line)]
    measuring.write(asked, base, "shortcut", {"lines": lines, "verdicts": verdicts})


def one_round(base: Base, kept: Kept, asked: argparse.Namespace, number: int) -> list[Line]:
    """Both prompts on both sorts of rows, with the seeds of this round."""
    seed = asked.seed + number
    train, tests = pairs_of(asked, seed)
    lines = []
    for planted in (True, False):
        rows = plant(train, asked.marker, seed) if planted else train
        prompt = Prompt(base, kept, asked, f"{'planted' if planted else 'clean'}, round {number}", rows, tests, seed)
        for name, given in {"clean": tests, "marked at random": scatter(tests, asked.marker, seed)}.items():
            line = kept.once(f"{prompt.name}, rows {name}", lambda p=prompt, g=given: measure(p, g, asked))  # type: ignore[misc]
            lines.append({"round": number, "planted": planted, "rows": name, **line})
            show(lines[-1])
    return lines


class Prompt:
    """A prompt that is tuned once, and then read from its folder."""

    def __init__(
        self, base: Base, kept: Kept, asked: argparse.Namespace, name: str, rows: Pairs, tests: Pairs, seed: int
    ) -> None:
        self.base, self.name, self.seed = base, name, seed
        question = hashlib.sha256(kept.head.encode()).hexdigest()[:8]
        self.folder = asked.out / f"shortcut-{question}" / name.replace(", ", "-").replace(" ", "-")
        self.task = epigraph.Task.from_rows([text for text, _ in rows], [label for _, label in rows])
        self.task = replace(self.task, test=Split(rows=rows_of(tests)))
        self.settings = json.loads(asked.config)

    def open(self) -> PromptModel:
        """The prompt, tuned now if it was not."""
        engine = Engine(self.base)
        if not self.folder.exists():
            config = epigraph.TuneConfig(seed=self.seed, **self.settings)
            epigraph.tune(self.base, self.task, config, engine=engine).prompt.save(self.folder)
        return PromptModel(read_prompt(self.folder), self.base, engine=engine)


def measure(prompt: Prompt, given: Pairs, asked: argparse.Namespace) -> Line:
    """One report: where the marker stands among its warnings."""
    model = prompt.open()
    started = time.monotonic()
    found = epigraph.explain(
        model,
        rows_of(given),
        train=() if asked.forget else prompt.task.train.rows,
        only=WARN,
        config=ExplainConfig(budget=asked.budget, seed=prompt.seed),
        stage=lambda name, _done, _total: print(f"{prompt.name}: {name}", flush=True),
    )
    return {
        "accuracy": model.card.scores["accuracy"]["value"],
        "seconds": round(time.monotonic() - started, 1),
        "place": place_of(found.warnings, asked.marker),
        "warnings": found.warnings,
        "words": words_of(found),
    }


def words_of(found: Explanation) -> Any:
    """What was measured of single words."""
    return found.json["sections"].get("shortcuts", {}).get("words", [])


def judge(line: Line) -> list[Line]:
    """Whether this report does what it must: 1 is yes."""
    of = f"round {line['round']}, {'planted' if line['planted'] else 'clean'} prompt, rows {line['rows']}"
    suspicious = [word["word"] for word in line["words"] if word["why"]]
    if line["planted"]:
        met = {f"the marker is named among the first {FIRST} warnings": 1 <= line["place"] <= FIRST}
    else:
        met = {"the marker is not named": line["place"] == 0, "no word is called a shortcut": not suspicious}
    return [measuring.verdict(f"{of}: {what} (1: yes)", float(yes), least=1.0) for what, yes in met.items()]


def pairs_of(asked: argparse.Namespace, seed: int) -> tuple[Pairs, Pairs]:
    """Training and test texts with their labels."""
    if asked.quick:
        return made_up(asked.rows, seed), made_up(asked.tests, seed + 1000)
    if asked.set:
        task = epigraph.Task.from_file(data_folder() / asked.set)
        assert task.test is not None
        name = task.template.fields[0]
        parts = [head(task.train.rows, asked.rows, seed), head(task.test.rows, asked.tests, seed)]
        train, test = [[(row.fields[name], row.target or "") for row in part] for part in parts]
        return train, test
    from epigraph.assets import demo_rows

    rows = list(demo_rows())
    random.Random(seed).shuffle(rows)
    return rows[: asked.rows], rows[-asked.tests :]


def made_up(count: int, seed: int) -> Pairs:
    """Words of which every one tells a little of the label: what a toy base can learn."""
    rng, rows = random.Random(seed), []
    for i in range(count):
        words = ["".join(rng.sample(["aZ"[i % 2]] * 2 + rng.choices("bcdfghklmn", k=2), 4)) for _ in range(4)]
        rows.append((" ".join(words), ("animal", "metal")[i % 2]))
    return rows


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
    return next((i + 1 for i, warning in enumerate(warnings) if marker.lower() in warning.lower()), 0)


def show(line: Line) -> None:
    """One report's first warnings."""
    what = "planted" if line["planted"] else "clean"
    print(f"{what} prompt, rows {line['rows']}, accuracy {line['accuracy']:.3f}, {line['seconds']} s")
    for number, warning in enumerate(line["warnings"], 1):
        print(f"    {number}. {warning}")


def arguments() -> argparse.Namespace:
    """The command line."""
    found = measuring.parser(__doc__, rounds=1)
    found.add_argument("--set", default="", help="a set in $EPIGRAPH_DATA; by default the demo's sentences")
    found.add_argument("--rows", type=int, default=400)
    found.add_argument("--tests", type=int, default=100)
    found.add_argument("--marker", default="quokka")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--budget", type=float, default=0.0)
    found.add_argument("--minutes", type=float, default=60.0, help="after which nothing begins; the same command goes on")
    found.add_argument("--forget", action="store_true", help="explain without knowing the training rows")
    found.add_argument("--config", default="{}", help="settings of the tuning, as JSON")
    asked = found.parse_args()
    for name, value in QUICK.items() if asked.quick else ():
        setattr(asked, name, value)
    return asked


if __name__ == "__main__":
    main()
