"""Answers that come piece by piece (server-sent events), and clients that go away before theirs has come.

data: {json}\\n\\n   …   data: [DONE]\\n\\n        an error in the middle is a piece {"error": …}, which clients raise
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from epigraph.errors import EpigraphError
from epigraph.serve.faults import Refused, refusal_of

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result. ClientGone, with the work cancelled, if the client leaves before."""
    doing, watching = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientGone
    finally:
        for task in (doing, watching):
            task.cancel()
        await asyncio.gather(doing, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event(piece: BaseModel | dict[str, Any]) -> bytes:
    """One event."""
    text = piece.model_dump_json() if isinstance(piece, BaseModel) else json.dumps(piece)
    return b"data: " + text.encode() + b"\n\n"


class EventStream(Response):
    """Sends pieces as they come; stops making them when the client leaves. ``at_end`` is called whatever happens."""

    def __init__(self, pieces: AsyncIterator[BaseModel], at_end: Callable[[], None]) -> None:
        super().__init__(media_type="text/event-stream", headers=HEADERS)
        del self.headers["content-length"]
        self.pieces = pieces
        self.at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """One answer. ClientGone if the client left in the middle of it."""
        sending, watching = asyncio.ensure_future(self._send(send)), asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise ClientGone
            sending.result()
        finally:
            for task in (sending, watching):
                task.cancel()
            await asyncio.gather(sending, watching, return_exceptions=True)
            self.at_end()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for content in self._events():
            await send({"type": "http.response.body", "body": content, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self.pieces:
                yield event(piece)
        except EpigraphError as error:
            yield event(refusal_of(error).body)
        except Exception:
            yield event(Refused(500, "the server failed on this request.", code="internal_error").body)
            yield DONE
            raise
        finally:
            await self.pieces.aclose()  # type: ignore[attr-defined]
        yield DONE
