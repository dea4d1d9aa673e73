"""``epigraph compare``: every method on one task under the same conditions, and a verdict."""

import shlex
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epigraph.cli.options import (
    BaseFlag,
    DeviceFlag,
    DtypeFlag,
    JsonFlag,
    TaskKindFlag,
    check_alone,
    examples,
    with_settings,
)
from epigraph.cli.output import print_json, print_table, say
from epigraph.cli.progress import Resumable
from epigraph.compare.asked import CompareConfig
from epigraph.errors import InputError

if TYPE_CHECKING:
    from epigraph.compare.comparison import Comparison
    from epigraph.compare.errand import Errand

EXAMPLES = examples(
    "epigraph compare train.csv --report report.html",
    "epigraph compare task.toml --test test.csv --hard-prompt mine.txt --methods hard-prompt,kv,lora --seeds 1",
)
COMPARISONS = Path("comparisons")


@with_settings(CompareConfig)
def compare(
    task: Annotated[str, typer.Argument(help="data file, task TOML, or folder with train.* and maybe test.*")] = "",
    *,
    config: CompareConfig,
    given: Collection[str] = (),
    hard_prompt: Annotated[
        list[Path] | None, typer.Option("--hard-prompt", help="file with a hard prompt to compare; repeatable")
    ] = None,
    test: Annotated[str, typer.Option("--test", help="test file; without one a hold-out is split off")] = "",
    template: Annotated[
        str, typer.Option("--template", help='text around an example, such as "{text}{prompt}\\nLabel:"')
    ] = "",
    task_kind: TaskKindFlag = "",
    folder: Annotated[
        Path | None, typer.Option("--folder", help="where cells and reports are kept; by default comparisons/TASK")
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="one more copy of the report: .html or .md")] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="folder of an interrupted comparison to go on with")
    ] = None,
    base: BaseFlag = "default",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    json: JsonFlag = False,
) -> None:
    """Compare hard prompts, few-shot, soft prompts, LoRA and full fine-tuning on a task: scores, costs, a verdict.

    All get the same rows, seeds and budget. Every finished part is kept; the same command, or --resume, goes on from there.
    """
    from epigraph.compare.errand import Errand, check_report, read_errand, read_hard_prompts, run_errand, write_reports

    check_report(report)
    if resume is not None:
        check_alone(given, "resume", besides=("limit", "report", "json"))
        errand = read_errand(resume)
        if config.limit is not None:
            errand = replace(errand, config=replace(errand.config, limit=config.limit))
    elif not task:
        raise InputError("no TASK was given.", "Give a data file, a task TOML or a folder: epigraph compare train.csv")
    else:
        errand = Errand(
            task=task,
            folder=folder or COMPARISONS / _plain_name(task),
            config=config,
            test=test,
            template=template.replace("\\n", "\n"),
            task_kind=task_kind,
            base=base,
            device=device,
            dtype=dtype,
            written=read_hard_prompts(hard_prompt or []),
        )
    with Resumable("compare") as run:
        done = run_errand(errand, note=say, started=run.began)
    written = write_reports(done, errand, command_of(errand), report)
    show(done, errand, written, as_json=json)


def show(done: "Comparison", errand: "Errand", written: list[Path], *, as_json: bool) -> None:
    """The verdict and the table, or all of it as JSON."""
    from epigraph.compare.report import comparison_json, make_page
    from epigraph.report import List, Table, Text

    for path in written:
        say(f"wrote {path}")
    if as_json:
        print_json(comparison_json(done) | {"folder": str(errand.folder), "report": str(written[0])})
        return
    page = make_page(done)
    print(page.lead[0])
    for section in page.sections[:2]:
        for part in section.parts:
            if isinstance(part, Table):
                print_table("", list(part.columns), [list(row) for row in part.rows])
            elif isinstance(part, List):
                print("\n".join(f"  {item}" for item in part.items))
            elif isinstance(part, Text):
                print(part.text)


def command_of(errand: "Errand") -> str:
    """The command that makes this comparison anew."""
    usual, words = CompareConfig(), ["epigraph", "compare", errand.task]
    for flag, value in (("--test", errand.test), ("--template", errand.template), ("--task-kind", errand.task_kind)):
        words += [flag, value.replace("\n", "\\n")] if value else []
    for flag, value, left_out in (
        ("--base", errand.base, "default"),
        ("--device", errand.device, "auto"),
        ("--dtype", errand.dtype, "auto"),
    ):
        words += [flag, value] if value != left_out else []
    for name, value in errand.config.to_dict().items():
        if value == getattr(usual, name) or value is None:
            continue
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    for name, _ in errand.written:
        words += ["--hard-prompt", f"{name}.txt"]
    texts = [line for name, text in errand.written for line in (f"{name}.txt holds:", *text.splitlines())]
    return "\n".join([shlex.join(words), *(f"# {line}".rstrip() for line in texts)])


def _plain_name(task: str) -> str:
    path = Path(task.removeprefix("hub:"))
    name = path.stem if path.stem not in ("train", "task", "data") else path.resolve().parent.name or path.stem
    return name.strip(". ") or "task"
