"""``epigraph multitask``: several tasks tuned together, a universal prompt that new tasks start from, which tasks help which."""

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
from epigraph.cli.output import print_json, print_table, say, score_text
from epigraph.cli.progress import Resumable
from epigraph.config import TuneConfig
from epigraph.errors import ConfigError, InputError
from epigraph.multitask.settings import FORMS, KINDS, MultitaskConfig

if TYPE_CHECKING:
    from epigraph.multitask.results import MultitaskResult
    from epigraph.multitask.similarity import Table

EXAMPLES = examples(
    "epigraph multitask reviews.csv questions.csv news.csv --name universal",
    "epigraph multitask reviews.csv questions.csv --kind mixture --transfer 0 --json",
)


@with_settings(TuneConfig)
def multitask(
    tasks: Annotated[list[str] | None, typer.Argument(help="tasks: data files, task TOMLs, or folders with train.*")] = None,
    *,
    config: TuneConfig,
    given: Collection[str] = (),
    name: Annotated[str, typer.Option("--name", help="name of the universal prompt")] = "universal",
    form: Annotated[str, typer.Option("--form", help=f"what is tuned: {' or '.join(FORMS)}")] = "kv",
    distil: Annotated[
        float, typer.Option("--distil", help="weight of what each task's plain prompt teaches; 0: nothing")
    ] = 0.9,
    factor_rate: Annotated[
        float, typer.Option("--factor-rate", help="rate of the tasks' factors in units of the shared prompt's")
    ] = 4 / 3,
    transfer: Annotated[
        int, typer.Option("--transfer", help="rows on which transfer from task to task is measured; 0: it is not")
    ] = 16,
    rows: Annotated[
        int | None, typer.Option("--rows", help="training rows of a task; by default all", show_default=False)
    ] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="write which tasks are alike to this SVG file")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help="work folder to go on with")] = None,
    memory: Annotated[
        float, typer.Option("--memory", min=0.0, help="gigabytes for frozen states; by default half of what is free")
    ] = 0.0,
    base: BaseFlag = "default",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Tune several tasks together, each beside its plain prompt, and store theirs and one that new tasks start from.

    --kind is multitask, mixture, spot or average. Start a new task with: epigraph tune new.csv --from universal
    """
    from epigraph.multitask.errand import MultitaskJob, run_job

    if resume is not None and tasks:
        raise InputError("both tasks and --resume were given; a work folder knows its tasks.", "Give --resume alone.")
    if resume is not None:
        check_alone(given, "resume", besides=("picture", "memory", "library", "json"))
    if config.kind and config.kind not in KINDS:
        raise ConfigError(f"kind {config.kind!r} is none of several tasks.", f"Choose one of: {', '.join(KINDS)}.")
    asked = MultitaskConfig(
        kind=config.kind or "multitask",
        form=form,
        distil=distil,
        factor_rate=factor_rate,
        transfer=transfer,
        rows=rows,
        tune=_without_kind(config),
    )
    job = MultitaskJob(
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
    with Resumable("multitask", library) as run:
        result = run_job(job, listener=run.moment, show=run.stage, started=run.began, note=say)
    if picture is not None:
        _draw(picture, result)
    print_json(result.json) if json else show(result)


def _without_kind(config: TuneConfig) -> TuneConfig:
    import dataclasses

    return dataclasses.replace(config, kind="")


def _draw(file: Path, result: "MultitaskResult") -> None:
    from epigraph.library.disk import replace_file, storing
    from epigraph.multitask.similarity import similarity_svg

    picture = similarity_svg([one.name for one in result.tasks], result.similarity, result.gains)
    with storing("the picture", file):
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, picture.encode())
    say(f"written: {file}")


def show(result: "MultitaskResult") -> None:
    """Every task beside its plain prompt; which tasks are alike; what to do next."""
    rows = [
        [one.prompt, one.metric, *(score_text(scores, one.metric) for scores in (one.scores, one.plain, one.hard))]
        for one in result.tasks
    ]
    print_table("", ["task", "metric", f"together ({result.kind})", "plain prompt", "hard prompt"], rows)
    names = [one.name for one in result.tasks]
    _show_table("cosine of the plain prompts", names, result.similarity)
    if result.gains:
        _show_table("gain by transfer (row → column)", names, result.gains.value)
        for sentence in result.gains.sentences(names) or ["of no task it is sure that it helps or harms another"]:
            print(f"  {sentence}")
        if result.agreement is not None:
            print(f"  rank correlation of cosine and gain: {result.agreement:.2f}")
    for key, reason in result.reasons.items():
        print(f"  {key}: {reason}")
    if result.universal:
        print(f"stored: {result.universal}; start a new task from it: epigraph tune new.csv --from {result.universal}")


def _show_table(title: str, names: list[str], table: "Table") -> None:
    lines = [[name, *("–" if v is None else f"{v:.2f}" for v in row)] for name, row in zip(names, table, strict=True)]
    print_table(title, ["", *names], lines)
