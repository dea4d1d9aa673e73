"""Tuning: the loop, its optimiser and objective, the run folder, and ``tune`` itself."""

from epigraph.tuning.result import TuneResult
from epigraph.tuning.session import tune
from epigraph.tuning.surroundings import Surroundings

__all__ = ["Surroundings", "TuneResult", "tune"]
