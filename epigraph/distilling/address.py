"""A model at an OpenAI-style address, with retries and clear refusals.

    POST …/v1/completions           a text to go on with         ``complete``
    POST …/v1/chat/completions      a message to answer          ``chat``

The key is read from $OPENAI_API_KEY, goes into one header, and nowhere else: redirects are not followed, so that it reaches
nobody but the address that was named.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from epigraph.errors import ConfigError, FetchFailed

KEY = "OPENAI_API_KEY"
TRIES = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
TIMEOUT = 120.0  # seconds
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
MOST_SHOWN = 200


class Refused(FetchFailed):
    """The address answered, and said no; ``status`` is what it answered with."""

    def __init__(self, status: int, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a model answers. ConfigError where ``url`` is no address, or ``model`` is empty."""

    url: str
    model: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{self.url!r} is no address of a model.", "It begins with http:// or https://.")
        if parts.username or parts.password:
            raise ConfigError("the teacher's address holds a user name or password.", f"Put the key into ${KEY}.")
        if not self.model:
            raise ConfigError(f"no model was named for {self.url}.", "Pass --teacher-model NAME.")

    @property
    def endpoint(self) -> str:
        """The whole address; "/v1" may be given or left out."""
        bare = self.url.rstrip("/").removesuffix("/completions").removesuffix("/chat")
        return f"{bare}/completions" if bare.endswith("/v1") else f"{bare}/v1/completions"

    @property
    def chat_endpoint(self) -> str:
        """Where messages are answered."""
        return self.endpoint.removesuffix("/completions") + "/chat/completions"

    def complete(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a text. Refused for a refusal, FetchFailed where nothing or nonsense comes back."""
        return self._post(self.endpoint, asked)

    def chat(self, text: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a text that is a user's message; raises as ``complete``."""
        return self._post(self.chat_endpoint, {"messages": [{"role": "user", "content": text}], **asked})

    def _post(self, endpoint: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        body = json.dumps({"model": self.model, **asked}).encode()
        headers = {"content-type": "application/json"}
        if key := os.environ.get(KEY):
            headers["authorization"] = f"Bearer {key}"
        request = urllib.request.Request(endpoint, data=body, headers=headers, method="POST")  # noqa: S310 (checked)
        for attempt in range(TRIES):
            try:
                with _opener().open(request, timeout=TIMEOUT) as answer:
                    return self._read(answer.read(), endpoint)
            except urllib.error.HTTPError as error:
                if error.code not in AGAIN or attempt == TRIES - 1:
                    raise self._refused(error, endpoint) from None
                pause = _asked_pause(error.headers)
            except (OSError, HTTPException) as error:
                if attempt == TRIES - 1:
                    raise self._unreachable(error, endpoint) from error
                pause = None
            time.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt if pause is None else pause))
        raise AssertionError("the last try raises")

    def _read(self, content: bytes, endpoint: str) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("choices"), list):
            raise FetchFailed(f"{endpoint} answered with something that is no completion.", "Is it an OpenAI-style address?")
        return found

    def _refused(self, error: urllib.error.HTTPError, endpoint: str) -> Refused:
        with error:
            said = " ".join(error.read(4096).decode(errors="replace").split())[:MOST_SHOWN]
        hints = {401: f"Check the key in ${KEY}.", 403: f"Check the key in ${KEY}.", 404: "Check its name and address."}
        return Refused(
            error.code,
            f"model {self.model!r} at {endpoint} refused with status {error.code}: {said or error.reason}.",
            hints.get(error.code, "See what it says."),
        )

    def _unreachable(self, error: Exception, endpoint: str) -> FetchFailed:
        reason = getattr(error, "reason", None) or error
        return FetchFailed(
            f"{endpoint} does not answer: {reason}.",
            "Check --teacher-url; what was answered before is kept, and the same command goes on from there.",
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is a refusal."""

    def redirect_request(self, *_: Any) -> None:
        """None: not followed."""


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirect)


def _asked_pause(headers: Message) -> float | None:
    """Seconds that the address asks to wait, if it says so in numbers."""
    try:
        return max(0.0, float(headers.get("retry-after", "")))
    except ValueError:
        return None
