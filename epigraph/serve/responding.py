"""From an exchange to its HTTP answer: whole, or as a stream of pieces, whatever the endpoint's shape."""

from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Protocol, runtime_checkable

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from epigraph.serve.answers import Delta
from epigraph.serve.service import Exchange
from epigraph.serve.streaming import EventStream, unless_gone
from epigraph.serve.wire.sampled import Sampled


@runtime_checkable
class Shape(Protocol):
    """How an endpoint writes its answers."""

    def opening(self) -> Iterable[BaseModel]:
        """What a stream begins with."""
        ...

    def chunk(self, delta: Delta) -> BaseModel:
        """A piece of a stream."""
        ...

    def usage(self) -> BaseModel:
        """The last piece of a stream, where it was asked for."""
        ...

    def add(self, delta: Delta) -> None:
        """Keep a piece for the whole."""
        ...

    def whole(self) -> BaseModel:
        """All of it."""
        ...


async def respond(request: Request, asked: Sampled, exchange: Exchange, shape: Shape) -> Response:
    """The answer as it was asked for. ClientGone if nobody waits for it any more."""
    facts = request.scope.setdefault("state", {}).setdefault("facts", {})
    facts |= {"model": exchange.model, "said": partial(asked.model_dump, exclude_unset=True)}
    if asked.stream:
        pieces = _pieces(exchange, shape, with_usage=asked.with_usage)

        def at_end() -> None:
            exchange.flow.cancel()
            facts.update(exchange.facts)

        return EventStream(pieces, at_end)
    try:
        body = await unless_gone(request, _whole(exchange, shape))
    finally:
        facts |= exchange.facts
    return Response(body.model_dump_json(), media_type="application/json")


async def _pieces(exchange: Exchange, shape: Shape, *, with_usage: bool) -> AsyncIterator[BaseModel]:
    for piece in shape.opening():
        yield piece
    deltas = exchange.deltas()
    try:
        async for delta in deltas:
            yield shape.chunk(delta)
    finally:
        await deltas.aclose()  # type: ignore[attr-defined]
    if with_usage:
        yield shape.usage()


async def _whole(exchange: Exchange, shape: Shape) -> BaseModel:
    deltas = exchange.deltas()
    try:
        async for delta in deltas:
            shape.add(delta)
    finally:
        await deltas.aclose()  # type: ignore[attr-defined]
    return shape.whole()
