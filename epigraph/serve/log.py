"""One line of JSON a request on standard error: when, who, what, how long, how many tokens; no text of a user, unless asked.

A fault of ours leaves the kinds of its errors and the lines of code; an error's message may quote a text, so it is left out.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any


def to_standard_error(line: str) -> None:
    """Where the log goes."""
    print(line, end="", file=sys.stderr, flush=True)


class Log:
    """Writes lines to ``out``. ``texts`` adds what users wrote."""

    def __init__(self, *, texts: bool = False, out: Callable[[str], object] = to_standard_error) -> None:
        self.texts = texts
        self._out = out

    def write(self, what: str, /, *, said: Any = None, **facts: Any) -> None:
        """One line. ``said`` is a user's text or an answer: it is written only where texts are."""
        line = {"time": round(time.time(), 3), "event": what} | {k: v for k, v in facts.items() if v is not None}
        if self.texts and said is not None:
            line["said"] = said
        self._out(json.dumps(line, ensure_ascii=False) + "\n")

    def fault(self, error: BaseException, **facts: Any) -> None:
        """A fault of ours."""
        frames = [f"{f.filename.rsplit('/', 2)[-1]}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
        kinds = []
        step: BaseException | None = error
        while step is not None:
            kinds.append(type(step).__name__)
            step = step.__cause__
        self.write("fault", errors=kinds, where=frames[-8:], said=str(error), **facts)
