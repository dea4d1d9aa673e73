"""The engine: attention, frozen states, batches; the one place where a prompt meets a base."""

from epigraph.engine.choosing import choice_scores, choose
from epigraph.engine.engine import Engine
from epigraph.engine.generation import before_stop, generate
from epigraph.engine.tree import Tree

__all__ = ["Engine", "Tree", "before_stop", "choice_scores", "choose", "generate"]
