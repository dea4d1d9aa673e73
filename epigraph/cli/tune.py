"""``epigraph tune``: from a data file to a stored, scored prompt."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epigraph.cli.options import (
    LIBRARY,
    BaseFlag,
    DeviceFlag,
    DtypeFlag,
    JsonFlag,
    LibraryFlag,
    TaskKindFlag,
    check_alone,
    examples,
    with_settings,
)
from epigraph.cli.output import METRIC_NAMES, metrics_in, print_json, print_table, say, scores_rows, size_text
from epigraph.cli.progress import Resumable
from epigraph.config import TuneConfig
from epigraph.errors import InputError

if TYPE_CHECKING:
    from epigraph.tuning import TuneResult

EXAMPLES = examples(
    "epigraph tune train.csv --name routing",
    "epigraph tune task.toml --test test.csv --kind token --length 20 --json",
)
TaskArgument = Annotated[str, typer.Argument(help="data file, task TOML, or folder with train.* and maybe test.*")]


@with_settings(TuneConfig)
def tune(
    task: TaskArgument = "",
    *,
    config: TuneConfig,
    given: Collection[str] = (),
    name: Annotated[
        str | None, typer.Option("--name", help="name under which the prompt is stored; by default the task's")
    ] = None,
    test: Annotated[str, typer.Option("--test", help="test file; without one a hold-out is split off")] = "",
    template: Annotated[
        str, typer.Option("--template", help='text around an example, such as "{text}{prompt}\\nLabel:"')
    ] = "",
    task_kind: TaskKindFlag = "",
    start_from: Annotated[
        str, typer.Option("--from", help="start from this stored prompt, such as a universal one: --start prompt:NAME")
    ] = "",
    resume: Annotated[Path | None, typer.Option("--resume", help="run folder of an interrupted tuning to continue")] = None,
    memory: Annotated[
        float, typer.Option("--memory", min=0.0, help="gigabytes for frozen states; by default half of what is free")
    ] = 0.0,
    base: BaseFlag = "default",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Tune a soft prompt on a task, score it beside the best hard prompt, and store it in the library.

    What is not asked for is chosen, and the reason is printed. Ctrl-C saves, and prints the command that goes on.
    """
    from epigraph.jobs import TuneJob, resume_job, run_job

    if start_from:
        config = _started_from(config, start_from)
    if resume is not None:
        check_alone(given, "resume", besides=("library", "json"))
        job = resume_job(resume, library)
    elif not task:
        raise InputError(
            "no TASK was given.", "Give a data file, a task TOML or a folder: epigraph tune train.csv --name routing"
        )
    else:
        job = TuneJob(
            task=task,
            test=test,
            template=template.replace("\\n", "\n"),
            task_kind=task_kind,
            name=name,
            base=base,
            device=device,
            dtype=dtype,
            library=library,
            config=config,
            memory=memory,
        )
    with Resumable("tune", library) as run:
        result = run_job(job, listener=run.moment, stage=run.stage, started=run.began, note=say)
    print_json(result.json) if json else show(result)


def _started_from(config: TuneConfig, name: str) -> TuneConfig:
    if config.start not in ("", f"prompt:{name}"):
        raise InputError(f"both --from {name} and --start {config.start} were given.", "Give one of them.")
    return dataclasses.replace(config, start=f"prompt:{name}")


def show(result: "TuneResult") -> None:
    """The result as a table with its reasons."""
    for warning in result.warnings:
        say(f"note: {warning}")
    metrics = metrics_in(result.scores)
    reference = result.prompt.stored.card.reference
    kept = "hard prompt, kept as" if result.verdict.keeps == "hard" else "soft prompt"
    rows = scores_rows({f"{kept} {reference}": result.scores, "hard prompt": result.hard.json}, metrics)
    print_table("", [_rows_of(result.scores), *(METRIC_NAMES[m] for m in metrics)], rows)
    cost = result.cost
    print(
        f"{cost['seconds']:.0f} s ({cost['frozen_seconds']:.0f} s reading the texts once), "
        f"{cost['trained_parameters']:,} trained numbers, {size_text(cost['kept_bytes'])} kept, "
        f"{cost['joules']:.0f} J ({cost['joules_source']})"
    )
    if len(result.trials) > 1:
        show_trials(result)
    for key, reason in result.reasons.items():
        print(f"  {key}: {reason}")


def show_trials(result: "TuneResult") -> None:
    """What a search tried, a line a trial."""
    columns = ("trial", "kind", "place", "length", "rate", "start", "seed", "epochs", "steps", "score", "loss", "kept")
    rows = [
        [f"{trial[c]:.3g}" if isinstance(trial[c], float) else str(trial[c]) for c in columns] for trial in result.trials
    ]
    print_table("", list(columns), rows)


def _rows_of(scores: dict[str, Any]) -> str:
    return f"{scores['rows']} {scores['split']} rows, 95% intervals"
