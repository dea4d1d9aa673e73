"""What goes wrong with a request, as OpenAI's clients read it.

    {"error": {"message", "type", "param", "code"}}      with the status that makes the client raise the right class

A client's fault is never a 5xx. Clients retry 408, 409, 429 and 5xx by themselves; where that is useless, they are told so.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from epigraph.errors import (
    BaseMismatch,
    Closing,
    Corrupt,
    EpigraphError,
    InputError,
    NameRefused,
    NotFound,
    QueueFull,
    StorageFailed,
    Unsupported,
)
from epigraph.serve.work import EndEvent

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    501: "not_implemented_error",
}


class Refused(InputError):
    """A request that is not answered as asked. ``code`` is a word for programs, ``param`` the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        hint: str = "",
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """What tells a client whether and when to try again."""
        if self.retry_after is not None:
            return {"retry-after": str(max(1, math.ceil(self.retry_after)))}
        found = {"www-authenticate": "Bearer"} if self.status == 401 else {}
        return found | ({"x-should-retry": "false"} if self.status >= 500 else {})


class UpstreamFailed(Refused):
    """A server behind this one failed (502), or is busy (429, 503)."""

    def __init__(self, message: str, hint: str = "", *, status: int = 502, retry_after: float | None = None) -> None:
        super().__init__(status, message, hint, code="upstream", retry_after=retry_after)


def bad(message: str, hint: str = "", *, param: str | None = None, code: str | None = None) -> Refused:
    """A request that cannot be answered by its own fault."""
    return Refused(400, message, hint, param=param, code=code)


def refusal_of(error: EpigraphError) -> Refused:
    """The refusal that tells a client of this error."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, Closing):
        return shutting_down()
    if isinstance(error, QueueFull):
        return Refused(429, error.message, error.hint, code="queue_full", retry_after=1.0)
    if isinstance(error, NotFound | NameRefused | BaseMismatch):
        return Refused(404, error.message, error.hint, code="model_not_found", param="model")
    if isinstance(error, InputError | Unsupported):
        return Refused(400, error.message, error.hint, code="unsupported" if isinstance(error, Unsupported) else None)
    if isinstance(error, Corrupt):
        return Refused(500, "the prompt is damaged in the server's library.", "Roll it back.", code="prompt_corrupt")
    if isinstance(error, StorageFailed):
        return Refused(500, "the server's library cannot be read or written.", code="storage_failed")
    return Refused(500, "the server failed on this request.", code="internal_error")


def shutting_down() -> Refused:
    """The server takes no more, or had no time left to finish."""
    return Refused(503, "the server is shutting down.", "Try again.", code="shutting_down", retry_after=1.0)


def refusal_at_end(event: EndEvent) -> Refused:
    """The refusal that tells a client why its job ended early."""
    if event.reason == "cancelled":
        return shutting_down()
    if isinstance(event.error, EpigraphError):
        return refusal_of(event.error)
    return Refused(500, "the server failed on this request.", code="internal_error")


def refusal_of_fields(errors: Sequence[Mapping[str, Any]]) -> Refused:
    """The refusal that names the first field at fault, as pydantic found it; what was sent there is not repeated."""
    first = errors[0] if errors else {"loc": (), "msg": "it cannot be read"}
    place = [str(part) for part in first["loc"] if part not in ("body", "path", "query")]
    if first.get("type") == "json_invalid":
        return bad("the body is no JSON.", code="json_invalid")
    where = ".".join(part for part in place if "[" not in part)
    return bad(f"{where or 'the body'}: {first['msg']}.", param=place[0] if place else None, code=str(first.get("type")))
