"""What surrounds a tuning: where it reports, where it keeps its run, where other prompts come from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from epigraph.tuning.loop import Listener
from epigraph.tuning.run import Run
from epigraph.tuning.start import FormsOf

Stage = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What surrounds a tuning: where it reports, where it keeps its run, where other prompts come from."""

    runs: Path | None = None
    resume: Path | None = None
    listener: Listener = lambda _moment: None
    stage: Stage = lambda _name, _done, _total: None
    started: Callable[[Run], None] = lambda _run: None
    note: Callable[[str], None] = lambda _text: None
    forms_of: FormsOf | None = None
    source: Sequence[str] = ()
