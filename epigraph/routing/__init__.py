"""Which stored prompt a text belongs to, when nobody says so: ``auto``."""

from epigraph.routing.auto import AutoModel, Routed, answering_version, fitting_names, learn_route, open_auto
from epigraph.routing.queries import query_rows, routed_text, text_queries
from epigraph.routing.router import Route, Router
from epigraph.routing.shelf import read_router, write_router

__all__ = [
    "AutoModel",
    "Route",
    "Routed",
    "Router",
    "answering_version",
    "fitting_names",
    "learn_route",
    "open_auto",
    "query_rows",
    "read_router",
    "routed_text",
    "text_queries",
    "write_router",
]
