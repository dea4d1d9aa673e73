"""One line of JSON a request on standard error: when, who, what, how long, how many tokens; no text of a user, unless asked.

A fault of ours leaves the kinds of its errors and the lines of code; an error's message may quote a text, so it is left out.
"""

import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

FRAMES = 8
"""Lines of code that are told of a fault."""


def to_standard_error(line: str) -> None:
    """Where the log goes."""
    print(line, end="", file=sys.stderr, flush=True)


class Log:
    """Writes lines to ``out``. ``texts`` adds what users wrote."""

    def __init__(self, *, texts: bool = False, out: Callable[[str], object] = to_standard_error) -> None:
        self.texts = texts
        self._out = out

    def write(self, what: str, /, *, said: Any = None, **facts: Any) -> None:
        """One line. ``said`` is a user's text or an answer, or gives it: it is written only where texts are."""
        line = {"time": round(time.time(), 3), "event": what} | {k: v for k, v in facts.items() if v is not None}
        if self.texts and said is not None:
            line["said"] = said() if callable(said) else said
        self._out(json.dumps(line, ensure_ascii=False) + "\n")

    def fault(self, error: BaseException, **facts: Any) -> None:
        """A fault of ours."""
        self.write("fault", errors=kinds_of(error), where=frames_of(error.__traceback__), said=str(error), **facts)


def kinds_of(error: BaseException) -> list[str]:
    """The kinds of an error and of what caused it."""
    found: list[str] = []
    step: BaseException | None = error
    while step is not None and len(found) < FRAMES:
        found.append(type(step).__name__)
        step = step.__cause__
    return found


def frames_of(place: TracebackType | None) -> list[str]:
    """The last lines of code that an error went through."""
    return [f"{'/'.join(f.filename.split('/')[-2:])}:{f.lineno} {f.name}" for f in traceback.extract_tb(place)][-FRAMES:]


def trace_of(error: BaseException) -> str:
    """An error as a log may hold it: its kinds and where it came from, not what it says."""
    return f"{' from '.join(kinds_of(error))} at {' < '.join(reversed(frames_of(error.__traceback__)))}"


class Textless(logging.Formatter):
    """Writes tracebacks of the libraries below us without what their errors say."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 (its name in the standard library)
        """Kinds and lines of code."""
        return trace_of(ei[1]) if ei[1] is not None else ""

    def format(self, record: logging.LogRecord) -> str:
        """The line; what another handler has made of the traceback is not taken over."""
        before, record.exc_text = record.exc_text, None
        try:
            return super().format(record)
        finally:
            record.exc_text = before


@contextmanager
def textless() -> Iterator[None]:
    """Inside, log records that nobody else handles are written without the texts of errors."""
    last = logging.lastResort
    assert last is not None
    before = last.formatter
    last.setFormatter(Textless("%(levelname)s %(name)s: %(message)s"))
    try:
        yield
    finally:
        last.setFormatter(before)
