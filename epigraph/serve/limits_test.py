"""What is turned away at the door."""

import asyncio
import json
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from epigraph.serve.limits import Door

SCOPE = {"type": "http", "path": "/v1/completions", "headers": []}


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, then answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def through(door: Door, receive: Receive, scope: dict[str, Any] = SCOPE) -> tuple[int, Any]:
    """What a request is answered."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await door(dict(scope), receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"] or b"null")


def test_a_body_that_trickles_has_one_deadline() -> None:
    """Each of its pieces had the whole time anew, so that a byte now and then held a place for ever."""
    pieces = 0

    async def trickle() -> Message:
        nonlocal pieces
        pieces += 1
        assert pieces < 1000
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b" ", "more_body": True}

    status, body = asyncio.run(
        through(Door(echo, most_bytes=10_000, most_requests=1, most_held=10_000, seconds=0.1), trickle)
    )
    assert (status, body["error"]["type"]) == (408, "timeout_error")


def test_all_bodies_together_have_a_bound_and_give_their_room_back() -> None:
    """Each was bounded and so was their number, but a thousand bodies of 8 MB were let in at once."""

    async def pieces() -> Message:
        return {"type": "http.request", "body": b" " * 80, "more_body": False}

    async def inside(_scope: Scope, receive: Receive, send: Send) -> None:
        """Another comes while this one is answered."""
        await receive()
        second.append(await through(door, pieces))
        await echo({}, pieces, send)

    second: list[tuple[int, Any]] = []
    door = Door(inside, most_bytes=100, most_requests=9, most_held=150)
    assert asyncio.run(through(door, pieces))[0] == 200
    assert (second[0][0], second[0][1]["error"]["code"]) == (429, "server_busy")
    assert (door.held, door.inside) == (0, 0)
