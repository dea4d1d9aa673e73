"""Starts: the first values of a prompt. ``values`` makes the prompt; every way to begin has its own file."""

from epigraph.tuning.start.nearest import Stored
from epigraph.tuning.start.values import FormsOf, make_prompt
from epigraph.tuning.start.words import start_text

__all__ = ["FormsOf", "Stored", "make_prompt", "start_text"]
