"""``epigraph continual``: tasks learned one after another, measured in three scenarios; a task can be added later."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epigraph.cli.options import (
    LIBRARY,
    BaseFlag,
    DeviceFlag,
    DtypeFlag,
    JsonFlag,
    LibraryFlag,
    check_alone,
    examples,
    with_settings,
)
from epigraph.cli.output import print_json, print_table, say, share_text, size_text
from epigraph.cli.progress import Resumable
from epigraph.config import TuneConfig
from epigraph.continual.settings import METHODS, ContinualConfig

if TYPE_CHECKING:
    from epigraph.continual.sequence import ContinualResult

EXAMPLES = examples(
    "epigraph continual news.csv questions.csv reviews.csv --methods separate,pool --report continual.html",
    "epigraph continual --resume library/.runs/continual-… intents.csv --json",
)


@with_settings(TuneConfig)
def continual(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="tasks in their order: data files, task TOMLs, or folders with train.*")
    ] = None,
    *,
    config: TuneConfig,
    given: Collection[str] = (),
    methods: Annotated[
        str, typer.Option("--methods", help=f"methods, the first is stored: {', '.join(METHODS)}")
    ] = "separate",
    name: Annotated[
        str, typer.Option("--name", help="name of the sequence, and of the prompt of methods that have one")
    ] = "continual",
    distinct_labels: Annotated[
        bool, typer.Option("--distinct-labels", help="equal label words in two tasks are two labels, not one")
    ] = False,
    rows: Annotated[
        int | None, typer.Option("--rows", help="training rows of a task; by default all", show_default=False)
    ] = None,
    test_rows: Annotated[int, typer.Option("--test-rows", help="the most test rows of a task")] = 500,
    replayed: Annotated[int, typer.Option("--replayed", help="rows of each earlier task that the method replay keeps")] = 50,
    report: Annotated[Path | None, typer.Option("--report", help="write matrices and pictures to this HTML file")] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="sequence to go on with, or to add the tasks given to")
    ] = None,
    memory: Annotated[
        float, typer.Option("--memory", min=0.0, help="gigabytes for frozen states; by default half of what is free")
    ] = 0.0,
    base: BaseFlag = "default",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Learn tasks one after another, and measure what each method keeps of the earlier ones.

    Three scenarios: the task of a text is known; it is inferred; any label of any task is possible. The first method's
    prompts are stored, with a router that predict auto uses. Ctrl-C saves, and prints the command that goes on.
    """
    from epigraph.continual.report import write_report
    from epigraph.continual.sequence import ContinualJob, run_job

    if resume is not None:
        check_alone(given, "resume", besides=("tasks", "report", "memory", "library", "json"))
    asked = ContinualConfig(
        methods=tuple(part.strip() for part in methods.split(",") if part.strip()),
        distinct_labels=distinct_labels,
        rows=rows,
        test_rows=test_rows,
        replayed=replayed,
        tune=config,
    )
    job = ContinualJob(
        tasks=tuple(tasks or ()),
        library=library,
        config=asked,
        name=name,
        resume=resume,
        base=base,
        device=device,
        dtype=dtype,
        memory=memory,
    )
    with Resumable("continual", library) as run:
        result = run_job(job, listener=run.moment, show=run.stage, started=run.began, note=say)
    if report is not None:
        write_report(report, result)
        say(f"written: {report}")
    print_json(result.json) if json else show(result)


def show(result: "ContinualResult") -> None:
    """The order, the labels, every method's numbers, and the matrix of the first."""
    from epigraph.continual.measures import DEFINITIONS, MEANINGS

    print(f"order: {' → '.join(result.order)}")
    for words, names in result.shared_labels.items():
        how = "as many labels" if result.distinct_labels else "one label"
        print(f"  label {words!r} of {', '.join(names)} is {how} in the union")
    for scenario, meaning in MEANINGS.items():
        rows = [
            [
                name,
                *(_number(value) for value in (m.average_accuracy, m.backward_transfer, m.forgetting, m.forward_transfer)),
                *_grown(result, name),
            ]
            for name, found in result.methods.items()
            for m in [found[scenario]]
        ]
        columns = [scenario, "average accuracy", "backward transfer", "forgetting", "forward transfer", "kept", "tokens"]
        print_table(f"\n{scenario}: {meaning}", columns, rows)
    matrix = result.methods[result.first]["known"].matrix
    lines = [[f"after {name}", *map(_number, row)] for name, row in zip(result.order, matrix, strict=True)]
    print_table(f"\nR of {result.first}, task known", ["", *result.order], lines)
    for name, definition in DEFINITIONS.items():
        print(f"  {name}: {definition}")
    print(f"stored: {', '.join(result.stored) or 'nothing'}; add a task: epigraph continual --resume {result.folder} TASK")


def _number(value: float | None) -> str:
    return "–" if value is None else share_text(value)


def _grown(result: "ContinualResult", name: str) -> list[str]:
    grown = result.growth[name]
    return [size_text(grown[-1]["bytes"]), str(grown[-1]["inference_tokens"])] if grown else ["–", "–"]
