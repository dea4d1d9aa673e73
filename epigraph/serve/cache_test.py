"""The longest unused goes first, within the budget."""

import pytest

from epigraph.engine.decoding import Row
from epigraph.serve.beginnings import TOKENS, Beginning
from epigraph.serve.cache import Cache
from epigraph.serve.toys_test import generation


def test_the_longest_unused_goes_first() -> None:
    cache: Cache[str] = Cache(100)
    for key in (b"a", b"b", b"c"):
        cache.put(key, key.decode(), 40)
        cache.get(b"a")
    assert [key in cache for key in (b"a", b"b", b"c")] == [True, False, True]
    assert (cache.bytes, cache.evictions, cache.hits) == (80, 1, 3)
    assert cache.get(b"b") is None
    assert cache.misses == 1


def test_what_exceeds_the_budget_alone_pushes_nothing_out() -> None:
    cache: Cache[str] = Cache(100)
    cache.put(b"a", "a", 60)
    cache.put(b"big", "big", 101)
    assert b"a" in cache
    assert b"big" not in cache


def test_a_value_put_again_is_counted_once() -> None:
    cache: Cache[str] = Cache(100)
    cache.put(b"a", "a", 60)
    cache.put(b"a", "b", 30)
    assert cache.bytes == 30
    assert cache.get(b"a") == "b"


@pytest.mark.parametrize("length", [1, TOKENS - 1, TOKENS, TOKENS + 1, 3 * TOKENS + 5])
def test_blocks_of_a_text_are_named_by_all_that_stands_before(length: int) -> None:
    def blocks(ids: list[int]) -> list[tuple[int, bytes]]:
        return Beginning(Row([ids], []), generation([""]), 0).blocks

    ids = list(range(length))
    ends = [end for end, _ in blocks(ids)]
    assert ends == [*range(TOKENS, length, TOKENS), length]
    assert blocks(ids)[: length // TOKENS] == blocks([*ids, 7])[: length // TOKENS]
    other = blocks([99, *ids[1:]])
    assert not {key for _, key in other} & {key for _, key in blocks(ids)}
