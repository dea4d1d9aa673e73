"""The command line: what ``epigraph`` runs, and the one place where errors become exit codes.

0 done    1 our fault (the traceback is in a file, named)    2 the user's input    130 interrupted (state saved)
"""

import errno
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from epigraph.cli import (
    bench,
    cache,
    compare,
    continual,
    demo,
    distill,
    errors,
    evaluate,
    explain,
    fix,
    library,
    multitask,
    predict,
    prompt,
    schema,
    serve,
    tune,
)
from epigraph.cli.options import examples
from epigraph.cli.output import print_error, print_stop
from epigraph.errors import EpigraphError

app = typer.Typer(
    name="epigraph",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
app.command("demo", short_help="The whole path on real data.", epilog=demo.EXAMPLES)(demo.demo)
app.command("tune", short_help="From a data file to a stored, scored prompt.", epilog=tune.EXAMPLES)(tune.tune)
app.command("evaluate", short_help="Score a prompt on a labelled file.", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command("predict", short_help="Answer texts, a file or standard input.", epilog=predict.EXAMPLES)(predict.predict)
app.command("multitask", short_help="Several tasks together; a universal start.", epilog=multitask.EXAMPLES)(
    multitask.multitask
)
app.command("continual", short_help="Tasks one after another, measured.", epilog=continual.EXAMPLES)(continual.continual)
app.command("compare", short_help="Every method on one task: scores, costs, a verdict.", epilog=compare.EXAMPLES)(
    compare.compare
)
app.add_typer(prompt.app, name="prompt", short_help="Hard prompts: try one on rows at once, list all tried.")
app.command("explain", short_help="What a prompt does, why, what could go wrong.", epilog=explain.EXAMPLES)(explain.explain)
app.command("errors", short_help="The worst mistakes, in groups; likely label errors.", epilog=errors.EXAMPLES)(
    errors.errors
)
app.command("fix", short_help="Learn a handful of corrections; the rest stays.", epilog=fix.EXAMPLES)(fix.fix)
app.command("distill", short_help="A few vectors that answer as a teacher does.", epilog=distill.EXAMPLES)(distill.distill)
app.add_typer(library.app, name="library", short_help="Stored prompts: list, show, promote, verify …")
app.add_typer(cache.app, name="cache", short_help="What is kept between runs: list, clear.")
app.add_typer(bench.app, name="bench", short_help="Measure on this machine: tuning beside its rivals.")
app.command("serve", short_help="Every prompt behind OpenAI's HTTP interface.", epilog=serve.EXAMPLES)(serve.serve)
app.command("schema", short_help="The JSON schema of a command's output.", epilog=schema.EXAMPLES)(schema.schema)

INTERRUPTED = 130
DISK = {
    errno.ENOSPC: "the disk{} is full",
    errno.EDQUOT: "the disk{} is full (quota)",
    errno.EROFS: "the disk{} is read-only",
    errno.EACCES: "permission{} was denied",
    errno.EPERM: "permission{} was denied",
}


def show_version(asked: bool) -> bool:
    """What --version does."""
    if asked:
        from epigraph.library.card import package_version

        print(f"epigraph {package_version()}")
        raise typer.Exit
    return asked


Version = typer.Option("--version", help="print the version and exit", callback=show_version, is_eager=True)


@app.callback(
    no_args_is_help=True,
    epilog=examples("epigraph demo", "epigraph tune train.csv --name routing", 'epigraph predict routing "a new text"'),
)
def root(*, version: Annotated[bool, Version] = False) -> None:
    """Specialise a frozen language model with a few learned vectors: tune, score, keep, use."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code. Standard input and output are UTF-8 wherever it runs."""
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8")
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run a command; its exit code."""
    as_json = "--json" in arguments
    try:
        command = typer.main.get_command(app)
        with command.make_context("epigraph", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except EpigraphError as error:
        print_error(type(error).__name__, error.message, error.hint, as_json)
        return 2
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # typer keeps the class to itself
            print(error.format_message())
            return 0
        print_error("UsageError", _refusal(error, arguments), _way_out(error), as_json)
        return 2
    except (KeyboardInterrupt, typer.Abort) as stop:
        print_stop(str(stop), as_json)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:
            print_error(
                "StorageFailed",
                _disk_fault(error),
                "Free some space, mend the permissions, or choose another folder.",
                as_json,
            )
            return 2
        where = _keep_traceback()  # whatever is left is our own fault
        print_error(type(error).__name__, f"this is a fault of Epigraph: {error}", f"The traceback is in {where}.", as_json)
        return 1
    return 0


def _refusal(error: typer.TyperException, arguments: Sequence[str]) -> str:
    """What is wrong with the command line, with the value that was given where a flag refuses it."""
    message = error.format_message().rstrip(".")
    for name in getattr(getattr(error, "param", None), "opts", ()):
        for flag, value in zip(arguments, [*arguments[1:], ""], strict=True):
            if flag == name and value:
                return f"{message} (found {value!r})."
    return f"{message}."


def _way_out(error: typer.TyperException) -> str:
    context: Any = getattr(error, "ctx", None)
    if context is None:
        return "See epigraph --help."
    commands = ", ".join(getattr(context.command, "commands", ()))
    known = f"The commands are {commands}. " if commands else ""
    return f"{known}See {context.command_path} --help."


def _disk_fault(error: OSError) -> str:
    where = f" at {error.filename}" if error.filename else ""
    return f"something could not be read or written: {DISK[error.errno or 0].format(where)}."


def _keep_traceback() -> Path:
    with tempfile.NamedTemporaryFile("w", prefix="epigraph-", suffix=".traceback", delete=False, encoding="utf-8") as out:
        traceback.print_exc(file=out)
    return Path(out.name)
