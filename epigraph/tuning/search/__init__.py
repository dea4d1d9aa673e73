"""The search for settings: which trials, how they are dropped, what they cost, and the table of what was tried."""

from epigraph.tuning.search.choosing import Chosen, choose_trials
from epigraph.tuning.search.contender import Contender
from epigraph.tuning.search.folds import CrossValidated
from epigraph.tuning.search.halving import Halving
from epigraph.tuning.search.lanes import Lanes
from epigraph.tuning.search.trial import Trial

__all__ = ["Chosen", "Contender", "CrossValidated", "Halving", "Lanes", "Trial", "choose_trials"]
