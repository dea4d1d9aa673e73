"""Distilling: a prompt of a few vectors that answers as a long hard prompt, a larger model or another base's prompt does."""

from epigraph.distilling.result import DistillResult
from epigraph.distilling.session import distill
from epigraph.distilling.settings import DistillConfig

__all__ = ["DistillConfig", "DistillResult", "distill"]
