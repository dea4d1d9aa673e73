"""The command line: what ``epigraph`` runs, and the one place where errors become exit codes.

0 done    1 our fault (the traceback is in a file, named)    2 the user's input    130 interrupted (state saved)
"""

import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import click
import typer

from epigraph.cli import cache, demo, evaluate, library, predict, schema, tune
from epigraph.cli.output import print_error
from epigraph.errors import EpigraphError

app = typer.Typer(
    name="epigraph",
    help="Specialise a frozen language model with a few learned vectors: tune, score, keep, use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
app.command("demo")(demo.demo)
app.command("tune")(tune.tune)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.add_typer(library.app, name="library")
app.add_typer(cache.app, name="cache")
app.command("schema")(schema.schema)

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run a command; its exit code."""
    as_json = "--json" in arguments
    try:
        result = app(args=arguments, prog_name="epigraph", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except EpigraphError as error:
        print_error(type(error).__name__, error.message, error.hint, as_json)
        return 2
    except click.ClickException as error:
        print_error("UsageError", error.format_message(), "See epigraph --help.", as_json)
        return 2
    except (KeyboardInterrupt, click.exceptions.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:  # whatever is left is our own fault
        where = _keep_traceback()
        print_error(type(error).__name__, f"this is a fault of Epigraph: {error}", f"The traceback is in {where}.", as_json)
        return 1


def _keep_traceback() -> Path:
    with tempfile.NamedTemporaryFile("w", prefix="epigraph-", suffix=".traceback", delete=False, encoding="utf-8") as out:
        traceback.print_exc(file=out)
    return Path(out.name)
