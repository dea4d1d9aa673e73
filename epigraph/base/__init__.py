"""The base: load, freeze, fingerprint, choose its dtype."""

from epigraph.base.base import Base
from epigraph.base.load import DEFAULT, load_base, wrap_model

__all__ = ["DEFAULT", "Base", "load_base", "wrap_model"]
