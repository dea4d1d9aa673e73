"""Which stored prompt a text belongs to, when nobody says so: ``auto``."""

from epigraph.routing.auto import AutoModel, Routed, learn_route, open_auto
from epigraph.routing.queries import routed_text, text_queries
from epigraph.routing.router import Route, Router
from epigraph.routing.shelf import read_router, write_router

__all__ = [
    "AutoModel",
    "Route",
    "Routed",
    "Router",
    "learn_route",
    "open_auto",
    "read_router",
    "routed_text",
    "text_queries",
    "write_router",
]
