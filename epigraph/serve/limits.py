"""What is turned away at the door, before anything is parsed: bodies that are too large, too slow or too many, and crowds.

Plain ASGI, so that a request's disconnection still reaches whoever waits for it.
"""

import asyncio
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from epigraph.serve.faults import Refused

BODY_SECONDS = 30.0
BODIES = 16
"""Bodies of the largest size that may be inside at once; more of smaller ones. Read into objects, each is several times as large."""
OPEN = ("/health", "/ready", "/metrics")


class Door:
    """Bounds the bytes of a body, the seconds in which it comes, how many requests are inside at once, and all their bytes."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        most_bytes: int,
        most_requests: int,
        most_held: int,
        seconds: float = BODY_SECONDS,
    ) -> None:
        self.app = app
        self.most_bytes = most_bytes
        self.most_requests = most_requests
        self.seconds = seconds
        self.most_held = most_held
        self.inside = 0
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        if self.inside >= self.most_requests:
            await refuse(send, _busy())
            return
        self.inside += 1
        try:
            await self._let_in(scope, receive, send)
        finally:
            self.inside -= 1

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self.most_bytes:
            await refuse(send, self._too_large())
            return
        begun, arrived, whole = False, 0, False
        deadline = asyncio.get_running_loop().time() + self.seconds

        async def counted() -> Message:
            nonlocal arrived, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, f"the request's body took more than {self.seconds:g} seconds.") from None
            size = len(message.get("body", b""))
            arrived += size
            self.held += size
            whole = not message.get("more_body", False)
            if arrived > self.most_bytes:
                raise self._too_large()
            if self.held > self.most_held:
                raise _busy()
            return message

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except Refused as refused:
            if begun:
                raise
            await refuse(send, refused)
        finally:
            self.held -= arrived

    def _too_large(self) -> Refused:
        return Refused(413, f"the request has more than {self.most_bytes:,} bytes.", "Send less at once.", code="too_large")


def _busy() -> Refused:
    return Refused(429, "the server is busy.", "Try again.", code="server_busy", retry_after=1.0)


async def refuse(send: Send, refused: Refused) -> None:
    """Answer with an error and nothing else."""
    body = json.dumps(refused.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
