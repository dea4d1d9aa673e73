"""``epigraph tune``: from a data file to a stored, scored prompt."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epigraph.cli.options import LIBRARY, BaseFlag, DeviceFlag, DtypeFlag, JsonFlag, LibraryFlag, with_settings
from epigraph.cli.output import METRIC_NAMES, metrics_in, print_json, print_table, say, score_text, size_text
from epigraph.cli.progress import Progress
from epigraph.config import TuneConfig
from epigraph.errors import InputError

if TYPE_CHECKING:
    from epigraph.tuning import TuneResult

TaskArgument = Annotated[str, typer.Argument(help="data file, task TOML, or folder with train.* and maybe test.*")]


@with_settings(TuneConfig)
def tune(
    task: TaskArgument = "",
    *,
    config: TuneConfig,
    name: Annotated[str, typer.Option("--name", help="name under which the prompt is stored")] = "",
    test: Annotated[str, typer.Option("--test", help="test file; without one a hold-out is split off")] = "",
    template: Annotated[
        str, typer.Option("--template", help='text around an example, such as "{text}{prompt}\\nLabel:"')
    ] = "",
    resume: Annotated[Path | None, typer.Option("--resume", help="run folder of an interrupted tuning to continue")] = None,
    base: BaseFlag = "default",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Tune a soft prompt on a task, score it beside the best hard prompt, and store it in the library."""
    from epigraph.jobs import TuneJob, resume_job, run_job

    if resume is not None:
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
            name=name,
            base=base,
            device=device,
            dtype=dtype,
            library=library,
            config=config,
        )
    run_folder: list[Path] = []
    with Progress() as progress:
        try:
            result = run_job(job, listener=progress.moment, stage=progress.stage, started=run_folder.append, note=say)
        except KeyboardInterrupt:
            if run_folder:
                say(f"\ninterrupted; go on with: epigraph tune --resume {run_folder[0]} --library {library}")
            raise
    print_json(result.json) if json else show(result)


def show(result: "TuneResult") -> None:
    """The result as a table with its reasons."""
    for warning in result.warnings:
        say(f"note: {warning}")
    metrics = metrics_in(result.scores)
    rows = [
        [f"soft prompt {result.prompt.stored.card.reference}", *(score_text(result.scores, m) for m in metrics)],
        ["hard prompt", *(score_text(result.hard.json, m) for m in metrics)],
    ]
    if "majority" in result.scores:
        rows.append(["majority class", f"{result.scores['majority']:.3f}", *["" for _ in metrics[1:]]])
    print_table("", [_rows_of(result.scores), *(METRIC_NAMES[m] for m in metrics)], rows)
    cost = result.cost
    print(
        f"{cost['seconds']:.0f} s ({cost['frozen_seconds']:.0f} s reading the texts once), "
        f"{cost['trained_parameters']:,} trained numbers, {size_text(cost['kept_bytes'])} kept, "
        f"{cost['joules']:.0f} J ({cost['joules_source']})"
    )
    for key, reason in result.reasons.items():
        print(f"  {key}: {reason}")


def _rows_of(scores: dict[str, Any]) -> str:
    return f"{scores['rows']} {scores['split']} rows, 95% intervals"
