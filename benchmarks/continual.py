"""Tasks one after another on real sets: what each method forgets, in three scenarios, in three orders.

    python benchmarks/continual.py                     prompt methods, three orders, 1,000 rows a task
    python benchmarks/continual.py --baselines         sequential prompt, LoRA, full, replay, joint beside them: one order, 300 rows
    python benchmarks/continual.py --quick             a toy base and made-up tasks

Sets are found through $EPIGRAPH_DATA. Asked of the prompt methods: forgetting of exactly 0 for separate and progressive with the
task known; an order in under 40 minutes, interruptions left out. Every order is a sequence of its own in ``--out``, in which every
task that a method has learned and every row of R is on disk as soon as it is there; the same command goes on from them, and takes
orders that are finished from results/continual-….jsonl. Another question (rows, seed, methods) begins anew.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kept import Kept

from epigraph.base.toy import toy_base
from epigraph.bench.tuning import data_folder
from epigraph.config import TuneConfig
from epigraph.continual.sequence import ContinualJob, ContinualResult, run_job
from epigraph.continual.settings import ContinualConfig

ORDERS = (
    ("ag_news", "dbpedia14", "trec6", "sst2", "banking77", "imdb"),
    ("imdb", "banking77", "sst2", "trec6", "dbpedia14", "ag_news"),
    ("trec6", "imdb", "dbpedia14", "banking77", "ag_news", "sst2"),
)
PROMPTS = ("separate", "progressive", "pool")
BASELINES = ("separate", "pool", "sequential", "lora", "full", "replay", "joint")
MINUTES = 40


def main() -> None:
    """One row a method and scenario; JSON after every order."""
    asked = arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    methods = BASELINES if asked.baselines else PROMPTS
    rows = asked.rows or (16 if asked.quick else 300 if asked.baselines else 1000)
    orders = (("one", "two", "three"),) if asked.quick else ORDERS[:1] if asked.baselines else ORDERS[: asked.orders]
    name = f"continual-{'baselines' if asked.baselines else 'prompts'}"
    kept = Kept(asked.out / f"{name}.jsonl", asked, more=("orders",), sets=orders[0], methods=methods)
    found = []
    for number, order in enumerate(orders):
        key = f"{name}-{number}"
        found.append(kept.once(key, lambda order=order, key=key: measure(order, methods, rows, asked, key, kept.head)))
        (asked.out / f"{name}.json").write_text(json.dumps({"rows": rows, "quick": asked.quick, "orders": found}, indent=1))
    print(f"written: {asked.out / f'{name}.json'}")


class Mark:
    """Which folder an order's sequence lies in, what was asked of it, and the seconds it has taken so far."""

    def __init__(self, path: Path, question: str) -> None:
        self.path, self.said = path, {"question": question, "folder": "", "seconds": 0.0}
        if path.exists() and (known := json.loads(path.read_text()))["question"] == question:
            self.said = known

    @property
    def folder(self) -> Path | None:
        """The sequence to go on with."""
        return Path(self.said["folder"]) if self.said["folder"] else None

    def note(self, **values: Any) -> None:
        """Write these down, whole or not at all."""
        self.said |= values
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(self.said))
        partial.replace(self.path)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add what this takes, however it ends."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.note(seconds=self.said["seconds"] + time.monotonic() - started)


def measure(
    order: tuple[str, ...], methods: tuple[str, ...], rows: int, asked: argparse.Namespace, name: str, question: str
) -> dict[str, Any]:
    """One order; gone on with where an earlier call left it."""
    base = made_up(asked.out / "toy") if asked.quick else "default"
    home = asked.out / "toy" if asked.quick else data_folder()
    tune = TuneConfig(epochs=1, batch=4, length=2) if asked.quick else TuneConfig(seed=asked.seed)
    config = ContinualConfig(methods=methods, rows=rows, test_rows=6 if asked.quick else 500, tune=tune)
    mark = Mark(asked.out / f"{name}.mark", question)
    tasks = tuple(str(home / one) for one in order) if mark.folder is None else ()
    job = ContinualJob(
        tasks=tasks,
        library=asked.out / f"{name}-library",
        config=config,
        name=name,
        resume=mark.folder,
        base=base,
        dtype=asked.dtype,
    )
    print(f"\norder: {' → '.join(order)}; {rows} rows a task", flush=True)
    with mark.timed():
        result = run_job(
            job, started=lambda folder: mark.note(folder=str(folder)), note=lambda text: print(text, flush=True)
        )
    seconds = mark.said["seconds"]
    show(result)
    return result.json | {"seconds": round(seconds, 1), "verdicts": judge(result, seconds, baselines=asked.baselines)}


def judge(result: ContinualResult, seconds: float, *, baselines: bool) -> list[dict[str, Any]]:
    """What is asked, beside what was found."""
    found: list[dict[str, Any]] = []
    for name in ("separate", "progressive"):
        if name in result.methods:
            value = result.methods[name]["known"].forgetting
            found.append({"what": f"forgetting of {name}, task known", "value": value, "asked": "0", "met": value == 0})
    if baselines:
        for rival in ("lora", "full"):
            ours, theirs = (result.methods[m]["union"].average_accuracy or 0.0 for m in ("pool", rival))
            asked = f"above 0: {ours:.3f} of pool against {theirs:.3f} of sequential {rival}, union of labels"
            found.append({"what": f"pool less {rival}", "value": ours - theirs, "asked": asked, "met": ours > theirs})
    else:
        minutes = seconds / 60
        found.append(
            {"what": "minutes an order", "value": minutes, "asked": f"at most {MINUTES}", "met": minutes <= MINUTES}
        )
    for one in found:
        print(f"{one['what']}: {one['value']:.3g}, asked {one['asked']}: {'met' if one['met'] else 'MISSED'}", flush=True)
    return found


def show(result: ContinualResult) -> None:
    """Every method in every scenario."""
    for name, scenarios in result.methods.items():
        for scenario, m in scenarios.items():
            values = (m.average_accuracy, m.backward_transfer, m.forgetting, m.forward_transfer)
            shown = "  ".join("     –" if value is None else f"{value:6.3f}" for value in values)
            print(f"{name:12} {scenario:9} accuracy, backward, forgetting, forward: {shown}", flush=True)


def made_up(home: Path) -> str:
    """A toy base on disk and three tasks of made-up rows; the base's folder."""
    for n, (task, words) in enumerate({"one": ("yes", "no"), "two": ("up", "no"), "three": ("odd", "even")}.items()):
        folder = home / task
        folder.mkdir(parents=True, exist_ok=True)
        for part, rows in (("train", 24), ("test", 6)):
            lines = [json.dumps({"text": f"{task} {words[i % 2] * 3} {i + n}", "label": words[i % 2]}) for i in range(rows)]
            (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    base = toy_base()
    base.model.save_pretrained(home / "base")
    base.tokenizer.save_pretrained(home / "base")
    return str(home / "base")


def arguments() -> argparse.Namespace:
    """What was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a toy base and made-up rows: to try the script, not the machine"
    )
    parser.add_argument("--baselines", action="store_true", help="the baselines too: one order, 300 rows a task")
    parser.add_argument("--orders", type=int, default=3, help="how many of the three orders")
    parser.add_argument("--rows", type=int, help="training rows of a task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=Path, default=Path("results"), help="the folder of the JSON and of the sequences")
    return parser.parse_args()


if __name__ == "__main__":
    main()
