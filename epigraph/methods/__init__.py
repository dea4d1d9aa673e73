"""Anything that solves a task: a prompted base, a hard prompt, few-shot."""

from epigraph.methods.choice import ZERO_SHOT, Chosen, best_few_shot, best_zero_shot
from epigraph.methods.solver import PromptedBase, Scorable

__all__ = ["ZERO_SHOT", "Chosen", "PromptedBase", "Scorable", "best_few_shot", "best_zero_shot"]
