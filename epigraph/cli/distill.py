"""``epigraph distill``: a few vectors that answer as a long hard prompt, a larger model or another base's prompt does."""

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
    check_alone,
    examples,
    with_settings,
)
from epigraph.cli.output import metrics_in, print_json, print_table, say, score_text, share_text
from epigraph.cli.progress import Resumable
from epigraph.distilling.settings import DistillConfig
from epigraph.errors import InputError

if TYPE_CHECKING:
    from epigraph.distilling import DistillResult

EXAMPLES = examples(
    "epigraph distill train.csv --hard-prompt mine.txt --shots 50 --texts unlabelled.csv --name short",
    "epigraph distill train.csv --teacher ./fine-tuned --texts unlabelled.csv --name small",
    "epigraph distill train.csv --hard-prompt mine.txt --teacher-url http://localhost:8000/v1 --teacher-model big --texts t.csv",
    "epigraph distill --from routing --base ./other --texts unlabelled.csv --test test.csv --json",
)


@with_settings(DistillConfig)
def distill(
    task: Annotated[
        str, typer.Argument(help="data file, task TOML or folder that has the labels; with --from not needed")
    ] = "",
    *,
    config: DistillConfig,
    given: Collection[str] = (),
    texts: Annotated[str, typer.Option("--texts", help="file of texts to learn from; labels are not needed")] = "",
    name: Annotated[str, typer.Option("--name", help="name of the student; by default the task's")] = "",
    hard_prompt: Annotated[
        str,
        typer.Option("--hard-prompt", help="file of the hard prompt: words before the text, or a template that names it"),
    ] = "",
    shown: Annotated[
        str, typer.Option("--examples", help="labelled file of the examples for --shots; by default the task's")
    ] = "",
    test: Annotated[
        str, typer.Option("--test", help="rows to measure on; without them a part of the texts is held out")
    ] = "",
    teacher: Annotated[
        str,
        typer.Option(
            "--teacher", help="another model that teaches: a folder (fine-tuned, LoRA merged, a classifier) or a hub name"
        ),
    ] = "",
    teacher_prompt: Annotated[str, typer.Option("--teacher-prompt", help="a stored prompt that teaches, on its base")] = "",
    teacher_url: Annotated[
        str, typer.Option("--teacher-url", help="an OpenAI-style address that teaches; its key in $OPENAI_API_KEY")
    ] = "",
    teacher_model: Annotated[str, typer.Option("--teacher-model", help="the model's name at that address")] = "",
    start_from: Annotated[
        str,
        typer.Option("--from", help="a stored prompt to carry to --base: it is the start, where it can be, and the teacher"),
    ] = "",
    resume: Annotated[
        Path | None, typer.Option("--resume", help="run folder of an interrupted distilling to continue")
    ] = None,
    base: BaseFlag = "default",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Teach a short prompt from unlabelled texts to answer as its teacher does, and say how far it agrees.

    The teacher's answers are kept, so that an interrupted command asks nothing twice. Ctrl-C saves, and prints the command that
    goes on.
    """
    from epigraph.distilling.errand import DistillJob, resume_job, run_job

    if resume is not None:
        check_alone(given, "resume", besides=("library", "json"))
    if start_from and teacher_prompt:
        raise InputError("both --from and --teacher-prompt were given.", "Give one of them: either teaches.")
    if resume is not None:
        job = resume_job(resume, library)
    else:
        job = DistillJob(
            library=library,
            config=config,
            task=task,
            name=name,
            hard_prompt=hard_prompt,
            examples=shown,
            texts=texts,
            test=test,
            teacher=teacher,
            prompt=start_from or teacher_prompt,
            url=teacher_url,
            model=teacher_model,
            base=base,
            device=device,
            dtype=dtype,
        )
    with Resumable("distill", library) as run:
        result = run_job(job, listener=run.moment, stage=run.stage, started=run.began, note=say)
    print_json(result.json) if json else show(result)


def show(result: "DistillResult") -> None:
    """How far the student agrees, what was lost, what a request saves, and why."""
    for warning in result.warnings:
        say(f"note: {warning}")
    found, start = result.json, result.json["start"]
    rows = []
    for name, one in ((f"student {found['prompt']}", found), ("before training", start)):
        kappa = "-" if one["kappa"] is None else score_text(one, "kappa")
        more = one["divergence"] if one["divergence"] is not None else one["overlap"]
        rows.append([name, score_text(one, "agreement"), kappa, f"{more:.4f}"])
    constant = found["constant"]
    rows.append([f"always {constant['answer'][:40]!r}", share_text(constant["agreement"]), share_text(0.0), "-"])
    last = "divergence, nats" if found["divergence"] is not None else "overlap (ROUGE-L)"
    print_table("", [f"{found['rows']} {found['split']} texts", "agreement", "kappa", last], rows)
    if result.scored is not None and result.teacher_scored is not None:
        metrics = metrics_in(result.scored.json)
        scored = {"student": result.scored.json, f"teacher: {result.teacher}": result.teacher_scored.json}
        print_table("", ["score", *metrics], [[n, *(score_text(s, m) for m in metrics)] for n, s in scored.items()])
    if (lost := found["lost"]) is not None:
        bounds = f"{lost['low']:+.3f} to {lost['high']:+.3f}"
        print(f"lost: {lost['value']:+.3f} {lost['metric']} ({bounds}), teacher − student on the same {lost['rows']} texts")
    _show_request(found["request"])
    for key, reason in result.reasons.items():
        print(f"  {key}: {reason}")


def _show_request(request: dict[str, Any]) -> None:
    tokens, seconds = request["tokens"], request["seconds"]
    before = "-" if tokens["before"] is None else f"{tokens['before']:.0f}"
    print(f"tokens a request: {before} before, {tokens['after']:.0f} after")
    said = [
        f"{(value or 0) * 1000:.0f} ms {name.replace('_', ' ')}" for name, value in sorted(seconds.items(), reverse=True)
    ]
    print(f"one request alone: {', '.join(said)}")
    print(f"  ({request['how']})")
