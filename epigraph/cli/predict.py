"""``epigraph predict``: answers for a text, a file, or standard input, a line at a time."""

import json as jsonlib
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epigraph.cli.options import LIBRARY, BaseFlag, DeviceFlag, DtypeFlag, JsonFlag, LibraryFlag, examples
from epigraph.cli.output import print_json, say
from epigraph.errors import ConfigError, DataError, InputError

if TYPE_CHECKING:
    from epigraph.model import Prediction

EXAMPLES = examples(
    'epigraph predict routing "my card was swallowed" --min-confidence 0.8',
    "epigraph predict routing --file new.csv --json > answers.jsonl",
)


def predict(
    prompt: Annotated[str, typer.Argument(help="a stored prompt: routing, routing@3 or routing@prod")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="texts to answer; none: read standard input line by line")
    ] = None,
    *,
    file: Annotated[str, typer.Option("--file", help="answer every row of this file")] = "",
    min_confidence: Annotated[float, typer.Option("--min-confidence", help="withhold labels less probable than this")] = 0.0,
    strict: Annotated[bool, typer.Option("--strict", help="any faulty row ends the command")] = False,
    base: BaseFlag = "",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Answer texts with a stored prompt. Rows with several fields are given as JSON objects, one a line."""
    from epigraph.jobs import open_prompt
    from epigraph.library import Library
    from epigraph.tasks.task import Task

    if not 0 <= min_confidence <= 1:
        raise ConfigError(f"--min-confidence {min_confidence} was asked; it must lie between 0 and 1.")
    if file and texts:
        raise InputError("both texts and --file were given.", "Give one of them.")
    stored = Library(library).get(prompt)
    split = Task.from_dict(stored.card.task).read_rows(file, need_target=False, strict=strict) if file else None
    model = open_prompt(stored, base=base, device=device, dtype=dtype, note=say)
    together = 64 if file or texts or not _is_live() else 1
    rows = split.rows if split is not None else map(_given, texts) if texts else _lines()
    if split is not None and split.faults:
        some = ", ".join(f"line {fault.line}: {fault.reason}" for fault in split.faults[:5])
        say(f"note: {len(split.faults)} rows were skipped: {some}")
    if not file and not texts and sys.stdin.isatty():
        say("texts are read from standard input, one a line; Ctrl-D ends")
    for prediction in model.stream(rows, min_confidence=min_confidence, together=together):
        print_json(prediction.json) if json else print(_text(prediction), flush=True)


def _is_live() -> bool:
    """Whether standard input arrives piece by piece (a terminal or a pipe) rather than from a file."""
    return not sys.stdin.seekable()


def _lines() -> Iterator[str | Mapping[str, Any]]:
    read = 0
    try:
        for line in sys.stdin:
            read += 1
            if line.strip():
                yield _given(line.rstrip("\r\n").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input is not UTF-8: after line {read} comes the byte 0x{error.object[error.start]:02x}.",
            "Convert it, for example with iconv -f ISO-8859-1 -t UTF-8, or use --file.",
        ) from None


def _given(text: str) -> str | Mapping[str, Any]:
    """A text, or the fields of a JSON object."""
    if not text.strip():
        raise DataError("an empty text was given.", "Give a text to answer.")
    if not text.lstrip().startswith("{"):
        return text
    try:
        found = jsonlib.loads(text)
    except ValueError:
        return text
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else text


def _text(prediction: "Prediction") -> str:
    if prediction.output is not None:
        return prediction.output
    best = max((prediction.probabilities or {}).values(), default=0.0)
    text = " | ".join(prediction.fields.values()).replace("\n", " ")
    return f"{prediction.label or '(not sure)'}\t{best:.3f}\t{text}"
