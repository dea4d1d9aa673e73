"""Progress for people on standard error: a bar on a terminal, a line a validation elsewhere."""

import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from epigraph.cli.output import program, say

if TYPE_CHECKING:
    from epigraph.tuning.loop import Moment

ENDS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Progress:
    """Shows the stages of a tuning; silent about single steps where there is no terminal."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.name = ""
        self.started = time.monotonic()

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"))
            self.bar = Bar(
                *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
            )
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def stage(self, name: str, done: int, total: int) -> None:
        """A stage other than training: how much of it is done."""
        if self.bar is None:
            if name != self.name:
                say(f"{name} …")
            self.name = name
            return
        self._show(name, done, total, "")

    def moment(self, moment: "Moment") -> None:
        """A step or a validation of the loop."""
        facts = f"loss {moment.loss:.3f}  rate {moment.rate:.1e}"
        if moment.best is not None:
            facts += f"  best {moment.metric} {moment.best:.3f}"
        if self.bar is not None:
            self._show(f"tuning, epoch {moment.epoch}", moment.step, moment.steps, facts)
        if moment.note:
            self._line(moment.note)
        if moment.score is not None:
            seconds = time.monotonic() - self.started
            self._line(f"epoch {moment.epoch}  {moment.metric} {moment.score:.3f}  {facts}  {seconds:.0f} s")

    def _line(self, text: str) -> None:
        if self.bar is None:
            say(text)
        else:
            self.bar.console.print(text, highlight=False)

    def _show(self, name: str, done: int, total: int, facts: str) -> None:
        if name.split(",")[0] != self.name:
            if self.task is not None:
                self.bar.remove_task(self.task)
            self.task = self.bar.add_task(name, total=total, facts=facts)
            self.name = name.split(",")[0]
        self.bar.update(self.task, description=name, completed=done, total=total, facts=facts)


class Resumable(Progress):
    """The same for a ``command`` that can be continued: whatever ends it, it names the command that goes on.

    A polite kill and a closed terminal are interrupts, as Ctrl-C is.
    """

    def __init__(self, command: str, library: Path | None = None) -> None:
        super().__init__()
        self.command, self.library = command, library
        self.folder: Path | None = None
        self.handled: list[signal.Signals] = []

    def __enter__(self) -> "Resumable":
        super().__enter__()
        if threading.current_thread() is threading.main_thread():
            self.handled = [each for each in ENDS if signal.getsignal(each) is signal.SIG_DFL]
        for each in self.handled:
            signal.signal(each, signal.default_int_handler)
        return self

    def began(self, folder: Path) -> None:
        """From here on there is something to go on with; said at once, since a hard kill leaves no time for words."""
        self.folder = folder
        say(f"what is done is kept in {folder}; if this is cut off, {self.way_on}")

    @property
    def way_on(self) -> str:
        """The command that continues; empty before anything was begun."""
        if self.folder is None:
            return ""
        where = shlex.join([str(self.folder), *(["--library", str(self.library)] if self.library else [])])
        return f"go on with: {program()} {self.command} --resume {where}"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        for each in self.handled:
            signal.signal(each, signal.SIG_DFL)
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(self.way_on) from None
        if error is not None and self.folder is not None:
            say(self.way_on)
