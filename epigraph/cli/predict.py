"""``epigraph predict``: answers for a text, a file, or standard input, a line at a time."""

import json as jsonlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from epigraph.cli.options import LIBRARY, BaseFlag, CalibrateFlag, DeviceFlag, DtypeFlag, JsonFlag, LibraryFlag, examples
from epigraph.cli.output import print_json, say
from epigraph.errors import ConfigError, DataError, InputError

if TYPE_CHECKING:
    from epigraph.model import Given, Prediction
    from epigraph.routing import AutoModel
    from epigraph.tasks.row import Split

FILES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt")
EXAMPLES = examples(
    'epigraph predict routing "my card was swallowed" --min-confidence 0.8',
    "epigraph predict routing --file new.csv --json > answers.jsonl",
)


def predict(
    prompt: Annotated[
        str, typer.Argument(help="a stored prompt: routing, routing@3 or routing@prod; auto: the library's router chooses")
    ],
    texts: Annotated[
        list[str] | None, typer.Argument(help="texts to answer; none: read standard input line by line")
    ] = None,
    *,
    file: Annotated[str, typer.Option("--file", help="answer every row of this file")] = "",
    min_confidence: Annotated[float, typer.Option("--min-confidence", help="withhold labels less probable than this")] = 0.0,
    min_route: Annotated[
        float, typer.Option("--min-route", help="with auto: below this confidence a text goes to no prompt")
    ] = 0.5,
    otherwise: Annotated[
        str, typer.Option("--otherwise", help="with auto: who answers a text that goes to no prompt: refuse or base")
    ] = "refuse",
    strict: Annotated[bool, typer.Option("--strict", help="any faulty row ends the command")] = False,
    calibrate: CalibrateFlag = "",
    base: BaseFlag = "",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Answer texts with a stored prompt. Rows with several fields are given as JSON objects, one a line."""
    from epigraph.jobs import open_auto, open_prompt
    from epigraph.library import Library
    from epigraph.methods.calibration import check_calibration
    from epigraph.methods.shortened import shortened_note
    from epigraph.model import task_of

    if not 0 <= min_confidence <= 1:
        raise ConfigError(f"--min-confidence {min_confidence} was asked; it must lie between 0 and 1.")
    if file and texts:
        raise InputError("both texts and --file were given.", "Give one of them.")
    if prompt == "auto":
        auto = open_auto(library, base=base, device=device, dtype=dtype, note=say, threshold=min_route, otherwise=otherwise)
        _answer_routed(auto, texts, file, strict=strict, min_confidence=min_confidence, json=json)
        return
    stored = Library(library).get(prompt)
    task = task_of(stored.card)
    if calibrate:
        check_calibration(task, calibrate)
    if calibrate == "prior" and not file:
        raise InputError(
            "--calibrate prior was asked without a file.", "It is matched on many texts: give them under --file."
        )
    split = task.read_rows(file, need_target=False, strict=strict) if file else None
    model = open_prompt(stored, base=base, device=device, dtype=dtype, note=say)
    if calibrate:
        model.calibrate(calibrate, split.rows if split is not None else ())
    together = 64 if file or texts or not _is_live() else 1
    rows: Iterable[Given] = map(_given, texts or ())
    if split is not None:
        rows = split.rows
        _tell_faults(split)
        if shortened := shortened_note(model.method, split.rows, strict=strict):
            say(f"note: {shortened}")
    elif not texts:
        rows = (replace(model.row(given), line=number) for number, given in _lines())
    _tell_file(texts or [])
    if not file and not texts and sys.stdin.isatty():
        say("texts are read from standard input, one a line; Ctrl-D ends")
    for prediction in model.stream(rows, min_confidence=min_confidence, together=together):
        print_json(prediction.json) if json else print(_text(prediction), flush=True)


def _answer_routed(
    auto: "AutoModel", texts: list[str] | None, file: str, *, strict: bool, min_confidence: float, json: bool
) -> None:
    """Answers of ``auto``, each with the prompt it came from and the router's confidence."""
    rows: Iterable[Given]
    if file:
        some = next(iter(auto.router.tasks.values())).prompt
        split = auto.prompt_of(some).task.read_rows(file, need_target=False, strict=strict)
        _tell_faults(split)
        rows = split.rows
    else:
        rows = map(_given, texts) if texts else (given for _, given in _lines())
    together = 64 if file or texts or not _is_live() else 1
    for routed in auto.stream(rows, min_confidence=min_confidence, together=together):
        if json:
            print_json(routed.json)
        else:
            print(f"{routed.prompt or '(no prompt)'} {routed.route.confidence:.3f}\t{_text(routed.prediction)}", flush=True)


def _is_live() -> bool:
    """Whether standard input arrives piece by piece (a terminal or a pipe) rather than from a file."""
    return not sys.stdin.seekable()


def _tell_faults(split: "Split") -> None:
    if split.skipped:
        say(f"note: {split.skipped}")


def _tell_file(texts: Sequence[str]) -> None:
    """A file's name is answered as a text; whoever gave one most likely meant what is in it."""
    if len(texts) == 1 and Path(texts[0]).suffix.lower() in FILES and Path(texts[0]).is_file():
        say(f"note: {texts[0]!r} is answered as a text; its rows are answered by --file {texts[0]}")


def _lines() -> Iterator[tuple[int, str | Mapping[str, Any]]]:
    """The lines of standard input with their numbers; blank ones are left out."""
    read = 0
    try:
        for line in sys.stdin:
            read += 1
            if line.strip():
                yield read, _given(line.rstrip("\r\n").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input is not UTF-8: after line {read} comes the byte 0x{error.object[error.start]:02x}.",
            "Convert it, for example with iconv -f ISO-8859-1 -t UTF-8, or use --file.",
        ) from None


def _given(text: str) -> str | Mapping[str, Any]:
    """A text, or the fields of a JSON object; lists, such as choices, stay lists."""
    if not text.strip():
        raise DataError("an empty text was given.", "Give a text to answer.")
    if not text.lstrip().startswith("{"):
        return text
    try:
        found = jsonlib.loads(text)
    except ValueError:
        return text
    return {k: v if isinstance(v, list | dict) else str(v) for k, v in found.items()} if isinstance(found, dict) else text


def _text(prediction: "Prediction") -> str:
    if prediction.output is not None:
        return prediction.output
    text = " | ".join(prediction.fields.values()).replace("\n", " ")
    known = prediction.probabilities or {}
    if prediction.labels is not None:
        return f"{', '.join(f'{label} {known[label]:.3f}' for label in prediction.labels) or '(none)'}\t{text}"
    best = max(known.values(), default=0.0) if prediction.label is None else known[prediction.label]
    return f"{prediction.label or '(not sure)'}\t{best:.3f}\t{text}"
