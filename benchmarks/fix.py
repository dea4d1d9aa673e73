"""Can a handful of mistakes be corrected without the training data, and the rest stay?

    python benchmarks/fix.py sst2 trec6 --rows 1000 --corrections 20

Tunes a prompt on each set, takes mistakes of it on one half of the test rows as corrections, and measures on the other half:
corrections mastered (those by heart apart), accuracy before and after, other answers changed (the broken ones apart), seconds, and
``copies``: the share of the corrected texts answered right when each is written otherwise (in capitals at the start, with a full stop
more, with wide spaces; nothing is asked of it). Once with texts of the training rows to keep (their labels unseen), once with texts
that the base writes. A round is another split of the test rows.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import measuring

import epigraph
from epigraph.correct.answers import right_answers
from epigraph.correct.fixing import fix
from epigraph.correct.settings import FixConfig
from epigraph.model import PromptModel
from epigraph.tasks.row import Row
from epigraph.tasks.split import head
from epigraph.tasks.task import Task

GIVEN, WRITTEN = "training texts", "written by the base"
TARGETS = {"mastered": 0.9, "accuracy change": -0.005, "changed": 0.02, "seconds": 30.0}


def main() -> None:
    """Measure, show, write."""
    asked = _arguments()
    base = measuring.open_base(asked)
    lines: list[dict[str, Any]] = []
    for name in asked.sets:
        with measuring.data_set(name, quick=asked.quick) as folder, measuring.fresh_engine(base) as engine:
            task, test = _rows(Task.from_file(folder), asked)
            model = epigraph.tune(base, task, _tuning(asked), name=name, engine=engine).model
            for split in range(asked.rounds):
                for line in measure(model, task, test, split, asked):
                    lines.append({"set": name, "split": split, **line})
                    print(lines[-1], flush=True)
    measuring.show("Corrections", lines)
    verdicts = [verdict for line in lines for verdict in judge(line)]
    measuring.write(asked, base, "fix", {"lines": lines, "verdicts": verdicts})


def measure(
    model: PromptModel, task: Task, test: Sequence[Row], split: int, asked: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """One line for each sort of texts to keep."""
    shuffled = head(test, len(test), split)
    first, second = shuffled[: len(test) // 2], shuffled[len(test) // 2 :]
    right = right_answers(model.method, first)
    wrong = [row for row, ok in zip(first, right, strict=True) if not ok][: asked.corrections]
    wrong = wrong or [_turned(task, row) for row in first[:2]]  # a quick run's toy may make none
    for source in (GIVEN, WRITTEN):
        keep = [replace(row, target=None) for row in task.train.rows] if source == GIVEN else []
        config = FixConfig(keep_rows=asked.keep, seed=split, tolerance=asked.tolerance)
        done = fix(model, wrong, keep=keep, held_out=second, config=config, keep_source=GIVEN)
        assert done.held_out is not None
        there, before, after = done.held_out.changes, done.held_out.before, done.held_out.after
        yield {
            "keep": source,
            "corrections": done.mastered.rows,
            "mastered": done.mastered.mastered,
            "by heart": done.mastered.by_heart,
            "copies": float(right_answers(model.method.with_forms(done.forms), _copies(wrong)).mean()),
            "before": before.value("accuracy"),
            "after": after.value("accuracy"),
            "held out": there.rows,
            "changed": there.changed,
            "broken": there.broken,
            "fixed": there.fixed,
            "kept changed": done.elsewhere.changed,
            "kept": done.elsewhere.rows,
            "seconds": done.cost["seconds"],
            "refused": done.refused is not None,
        }


def judge(line: dict[str, Any]) -> list[dict[str, Any]]:
    """The targets, for one line."""
    what = f"{line['set']}, {line['keep']}, split {line['split']}"
    found = [
        ("mastered", line["mastered"] / line["corrections"], {"least": TARGETS["mastered"]}),
        ("accuracy change", line["after"] - line["before"], {"least": TARGETS["accuracy change"]}),
        ("changed", line["changed"] / line["held out"], {"most": TARGETS["changed"]}),
        ("seconds", line["seconds"], {"most": TARGETS["seconds"]}),
    ]
    return [measuring.verdict(f"{what}: {name}", value, **bound) for name, value, bound in found]


def _copies(rows: Sequence[Row]) -> list[Row]:
    """The same texts with a capital first letter, with a full stop more, and with wide spaces."""
    ways: list[Callable[[str], str]] = [str.capitalize, lambda text: f"{text} .", lambda text: text.replace(" ", "  ")]
    return [replace(row, fields={name: way(text) for name, text in row.fields.items()}) for way in ways for row in rows]


def _turned(task: Task, row: Row) -> Row:
    return replace(row, target=next(label for label in task.labels if label != row.target))


def _rows(whole: Task, asked: argparse.Namespace) -> tuple[Task, list[Row]]:
    """The task with so many training rows, and the test rows."""
    train = head(whole.train.rows, asked.rows, 0)
    rest = whole.test.rows if whole.test is not None and not asked.quick else whole.train.rows[asked.rows :]
    task = replace(whole, train=replace(whole.train, rows=tuple(train)), test=None)
    return task, head(rest, asked.tests, 0)


def _tuning(asked: argparse.Namespace) -> epigraph.TuneConfig:
    return epigraph.TuneConfig(holdout=0.0, epochs=1 if asked.quick else None).single


def _arguments() -> argparse.Namespace:
    parser = measuring.parser(__doc__, rounds=1)
    parser.add_argument("sets", nargs="*", default=["sst2", "trec6"], help="folders under $EPIGRAPH_DATA")
    parser.add_argument("--rows", type=int, default=1000, help="training rows")
    parser.add_argument("--tests", type=int, default=10_000, help="test rows, both halves together")
    parser.add_argument("--corrections", type=int, default=20)
    parser.add_argument("--keep", type=int, help="texts whose answers are kept; by default as many as the command keeps")
    parser.add_argument("--tolerance", type=float, default=0.02)
    asked = parser.parse_args()
    if asked.quick:
        asked.sets, asked.rows, asked.tests, asked.corrections, asked.keep = asked.sets[:1], 24, 60, 2, 24
    return asked


if __name__ == "__main__":
    main()
