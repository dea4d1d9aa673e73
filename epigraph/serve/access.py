"""Who comes in, and what became of it: the key before the body is read, one line of the log and the counts at the end.

Whatever nobody expected ends here: the client hears that the server failed, the log holds where.
"""

import asyncio
import time
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from epigraph.errors import EpigraphError
from epigraph.serve.faults import Refused, bad, refusal_of, shutting_down
from epigraph.serve.keys import ANYBODY
from epigraph.serve.limits import refuse
from epigraph.serve.service import Service
from epigraph.serve.settings import is_loopback
from epigraph.serve.streaming import ClientGone

PUBLIC = ("/health", "/ready", "/openapi.json")
STALL_SECONDS = 30.0
"""How long a client may take no byte of its answer."""
GONE = 499
"""The status of a request whose client left: nobody sees it but the log."""


class Access:
    """Admits a request, or not, and keeps account of it. Plain ASGI, as ``limits.Door``."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = Visit(scope, send)
        try:
            self._check_host(visit)
            public = scope["path"] in PUBLIC
            key = ANYBODY if public else self.service.admit(visit.header(b"authorization"))
            visit.who = key.name
            scope.setdefault("state", {})["key"] = key
            if public:
                await self.app(scope, receive, visit.send)
            else:
                await self._answer(visit, receive)
        except ClientGone:
            visit.status = GONE
            self.service.meters.gone.inc()
        except EpigraphError as error:
            await self._refuse(visit, refusal_of(error))
        except Exception as error:
            self.service.log.fault(error, request=visit.id, route=visit.route)
            await self._refuse(visit, Refused(500, "the server failed on this request.", code="internal_error"))
        except asyncio.CancelledError:
            if not self.service.closing:
                raise
            await self._refuse(visit, shutting_down())  # by the server, which has no time left
        finally:
            self._account(visit)

    async def _answer(self, visit: "Visit", receive: Receive) -> None:
        """Refused (503) while the server is closing: only those that are inside are answered."""
        if self.service.closing:
            raise shutting_down()
        self.service.inside += 1
        try:
            await self.app(visit.scope, receive, visit.send)
        finally:
            self.service.inside -= 1

    def _check_host(self, visit: "Visit") -> None:
        """Refused (400) for what is no name; (403) for a foreign one where there are no keys.

        A web page could give its own name this address.
        """
        try:
            host = urlsplit(f"//{visit.header(b'host') or ''}").hostname
        except ValueError as error:
            raise bad("the Host header is no host.") from error
        if self.service.keyring is None and host and not is_loopback(host):
            raise Refused(403, f"the server was asked as {host[:100]!r}.", "Ask it as localhost.", code="host_not_allowed")

    async def _refuse(self, visit: "Visit", refused: Refused) -> None:
        visit.code = refused.code
        if not visit.begun:
            await refuse(visit.send, refused)

    def _account(self, visit: "Visit") -> None:
        seconds = time.perf_counter() - visit.started
        self.service.meters.requests.labels(visit.route, str(visit.status)).inc()
        self.service.meters.seconds.labels(visit.route).observe(seconds)
        if visit.status >= 400:
            self.service.meters.refused.labels(visit.code or str(visit.status)).inc()
        if visit.route in ("/health", "/ready", "/metrics"):
            return
        facts = visit.scope.get("state", {}).get("facts", {})
        self.service.log.write(
            "request",
            request=visit.id,
            key=visit.who or None,
            method=visit.scope["method"],
            route=visit.route,
            status=visit.status,
            code=visit.code,
            ms=round(1000 * seconds, 1),
            **facts,
        )


class Visit:
    """One request on its way."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.id = uuid4().hex[:16]
        self.started = time.perf_counter()
        self.begun = False
        self.status = 500
        self.who = ""
        self.code: str | None = None
        self._send = send

    @property
    def route(self) -> str:
        """The route's pattern: paths may name prompts, and there are endlessly many that do not exist."""
        return str(getattr(self.scope.get("route"), "path", "other"))

    def header(self, name: bytes) -> str | None:
        """A header's value."""
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key == name), None)

    async def send(self, message: Message) -> None:
        """Pass on what is answered."""
        if message["type"] == "http.response.start":
            self.begun = True
            self.status = message["status"]
            self.code = self.code or self.scope.get("state", {}).get("code")
            message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", self.id.encode())]}
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._send(message)
        except TimeoutError:
            raise ClientGone from None
