"""What surrounds a tuning: where it reports, where it keeps its run, where other prompts come from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from epigraph.methods.remembered import Book
from epigraph.prompts import SoftPrompt
from epigraph.tuning.loop import Listener
from epigraph.tuning.run import Run
from epigraph.tuning.start import FormsOf, Stored

Stage = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What surrounds a tuning: where it reports, where it keeps its run, where other prompts come from.

    ``wrap`` makes of a prompt at its start the one that is tuned, for example one that stands behind those of other tasks.
    """

    runs: Path | None = None
    resume: Path | None = None
    listener: Listener = lambda _moment: None
    stage: Stage = lambda _name, _done, _total: None
    started: Callable[[Run], None] = lambda _run: None
    note: Callable[[str], None] = lambda _text: None
    forms_of: FormsOf | None = None
    stored: Stored | None = None
    """The newest versions of all prompts of this base with their forms, for the start ``nearest``."""
    wrap: Callable[[SoftPrompt], SoftPrompt] = lambda prompt: prompt
    source: Sequence[str] = ()
    book: Book = field(default_factory=Book)
    """What hard prompts answered before; several tunings that share it ask each of them for each row once."""
