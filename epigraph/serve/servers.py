"""The servers behind this one: which is asked next, how long one that failed rests, what its failure means for our client.

    pause = min(0.5 · 2^(failures in a row − 1), 30) seconds, or what its Retry-After says, up to the same bound

A server that rests is asked only where all others have failed.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import httpx2

from epigraph.errors import ConfigError, EpigraphError
from epigraph.serve.faults import UpstreamFailed

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
BUSY = (429, 503)
"""Where another server may answer."""
MOST_LINE, MOST_SAID, TOKEN_BYTES = 1 << 24, 1 << 20, 1 << 13
"""Bytes that are read of a server: a line of a stream (the first repeats the input's token ids), an answer that is no stream,
and what a stream says of a token, its likely ones included."""


@dataclass
class Server:
    """One server: what it calls its model, how many of our requests it has, its failures in a row, when it is asked again."""

    url: str
    model: str = ""
    running: int = 0
    failures: int = 0
    rests_until: float = 0.0

    def fail(self, now: float, asked: float | None = None) -> None:
        """Let it rest: as long as it ``asked`` for (seconds), or longer with every failure."""
        self.model = ""
        self.failures += 1
        pause = FIRST_PAUSE * 2 ** min(self.failures - 1, 10) if asked is None else asked
        self.rests_until = now + min(max(0.0, pause), LONGEST_PAUSE)

    def succeed(self) -> None:
        """It answers."""
        self.failures, self.rests_until = 0, 0.0


def in_turn(servers: Sequence[Server], now: float) -> list[Server]:
    """Those that do not rest, the least busy first, then those whose rest ends first."""
    return sorted(servers, key=lambda server: (max(0.0, server.rests_until - now), server.running))


def failure_of(error: httpx2.TransportError | UpstreamFailed) -> UpstreamFailed:
    """What a connection that failed means for our client."""
    if isinstance(error, UpstreamFailed):
        return error
    return UpstreamFailed(f"the vLLM server cannot be reached ({type(error).__name__}).", retry_after=1.0)


def refusal(status: int, text: str, headers: Mapping[str, str] | None = None) -> EpigraphError:
    """What a vLLM server's refusal means for our client: its 400 is one; where it is busy, so are we; all else is its failure."""
    try:
        found = json.loads(text)
        message = str((found.get("error") or found)["message"])
    except (ValueError, LookupError, TypeError, AttributeError):
        message = f"status {status}"
    if "enable-prompt-embeds" in message:
        return UpstreamFailed("the vLLM server was started without --enable-prompt-embeds.")
    if status == 400:
        return ConfigError(f"the vLLM server refuses this request: {message}")
    if status in BUSY:
        said = (headers or {}).get("retry-after", "")
        wait = min(float(said), 60.0) if said.isascii() and said.isdigit() else 1.0
        return UpstreamFailed(f"the vLLM server is busy (status {status}).", "Try again.", status=status, retry_after=wait)
    return UpstreamFailed(f"the vLLM server answered with status {status}.")


async def first_of(pieces: AsyncIterator[bytes], most: int) -> bytes:
    """So many bytes of it, or fewer; the rest is not read."""
    found = b""
    async for piece in pieces:
        found += piece
        if len(found) >= most:
            break
    return found[:most]


async def at_most(pieces: AsyncIterator[bytes], most: int) -> AsyncIterator[bytes]:
    """The same. UpstreamFailed for more bytes."""
    passed = 0
    async for piece in pieces:
        passed += len(piece)
        if passed > most:
            raise UpstreamFailed(f"the vLLM server's answer has more than {most:,} bytes.")
        yield piece


async def lines_of(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines of a stream of events. They end at a line feed only: a text within may hold U+0085, U+2028 or U+2029 as they are.

    UpstreamFailed for a line that does not end.
    """
    rest: list[bytes] = []
    async for piece in pieces:
        *whole, last = piece.split(b"\n")
        for line in whole:
            yield b"".join([*rest, line]).rstrip(b"\r")
            rest = []
        rest.append(last)
        if sum(map(len, rest)) > MOST_LINE:
            raise UpstreamFailed(f"a line of the vLLM server's answer has more than {MOST_LINE:,} bytes.")
    if found := b"".join(rest):
        yield found
