"""Which server is asked next, and how its stream is read."""

import asyncio
import json
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from epigraph.serve.servers import LONGEST_PAUSE, Server, in_turn, lines_of


def test_one_that_failed_rests_longer_each_time_and_is_still_there_when_all_others_fail() -> None:
    first, second = Server("first"), Server("second", running=3)
    pauses = []
    for _ in range(9):
        first.fail(100.0)
        pauses.append(first.rests_until - 100.0)
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert pauses[-1] == LONGEST_PAUSE
    assert in_turn([first, second], 101.0) == [second, first]
    assert in_turn([first, second], 101.0 + LONGEST_PAUSE) == [first, second]
    first.succeed()
    first.fail(200.0, asked=7.0)
    assert (first.rests_until, first.model) == (207.0, "")


@given(st.lists(st.text("a\x85\u2028\u2029\r\x0c机", max_size=5), max_size=4), st.integers(1, 7))
def test_lines_end_at_line_feeds_only(texts: list[str], size: int) -> None:
    """U+0085, U+2028 and U+2029 stand in a JSON text as they are: split there, an answer with one of them was broken."""
    lines = [json.dumps({"text": text}, ensure_ascii=False).encode() for text in texts]
    whole = b"\r\n".join(lines)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), size):
            yield whole[start : start + size]

    async def read() -> list[bytes]:
        return [line async for line in lines_of(pieces())]

    assert asyncio.run(read()) == lines
