"""The engine: attention, frozen states, batches; the one place where a prompt meets a base."""

from epigraph.engine.engine import Engine
from epigraph.engine.generation import generate
from epigraph.engine.tree import Tree

__all__ = ["Engine", "Tree", "generate"]
