"""What a prompt does, why an answer, what could go wrong: measured, and said in words and pictures."""

from epigraph.explaining.case import ExplainConfig
from epigraph.explaining.explanation import Explanation, explain

__all__ = ["ExplainConfig", "Explanation", "explain"]
