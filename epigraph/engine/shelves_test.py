"""Slots are found, freed, zeroed and counted; rows in a pass read nothing of each other."""

import pytest
import torch

from epigraph.base import Base
from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.engine.decoding import Part, Row, ShelfDecoder
from epigraph.engine.plain import plain_states
from epigraph.engine.shelves import SHORTEST, Place, Shelves
from epigraph.tasks.encode import Encoded


@pytest.fixture(scope="module")
def base() -> Base:
    return toy_base()


def row_bytes(base: Base, positions: int) -> int:
    return 2 * base.layers * base.heads * positions * base.head_size * 4


def take(shelves: Shelves, positions: int) -> Place:
    place = shelves.take(positions)
    assert place is not None
    return place


def test_bytes_stay_within_the_budget_and_empty_shelves_make_room(base: Base) -> None:
    shelves = Shelves(base, row_bytes(base, 4 * SHORTEST), rows=3)
    short = [take(shelves, SHORTEST) for _ in range(4)]
    assert shelves.bytes == shelves.budget
    assert shelves.take(1) is None
    assert shelves.take(2 * SHORTEST) is None
    for place in short[:2]:
        shelves.give_back(place, 0)
    longer = take(shelves, 2 * SHORTEST)
    assert longer.positions == 2 * SHORTEST
    assert shelves.bytes == shelves.budget
    assert shelves.fits(4 * SHORTEST)
    assert not shelves.fits(4 * SHORTEST + 1)


def test_without_room_for_a_new_shelf_a_longer_slot_serves(base: Base) -> None:
    shelves = Shelves(base, row_bytes(base, 4 * SHORTEST), rows=1)
    long = [take(shelves, 2 * SHORTEST), take(shelves, 2 * SHORTEST)]
    assert shelves.take(1) is None
    shelves.give_back(long[0], 0)
    held = take(shelves, 1)
    assert held.positions == SHORTEST or held.positions == 2 * SHORTEST
    assert shelves.bytes <= shelves.budget


def test_nothing_is_left_in_a_freed_slot(base: Base) -> None:
    shelves = Shelves(base, 10**6, rows=2)
    place = take(shelves, 10)
    bad = torch.full((base.layers, base.heads, 5, base.head_size), float("nan"))
    place.put(3, bad, bad)
    shelves.give_back(place, 8)
    again = take(shelves, 10)
    assert again == place
    assert all(float(part.abs().sum()) == 0 for part in again.get(0, 10))


def test_rows_of_any_lengths_and_slots_read_only_their_own(base: Base) -> None:
    """Gaps between slots, several shelves, parts of one to many tokens, each row in its own steps."""
    decoder, shelves = ShelfDecoder(Engine(base, keep=False)), Shelves(base, 10**7, rows=8)
    texts = [[(7 * n + i) % 256 for i in range(length)] for n, length in enumerate((3, 40, 9, 70, 5, 33, 1, 12))]
    rows = [Row([text], []) for text in texts]
    for number, row in enumerate(rows):
        assert decoder.open(row, shelves, len(texts[number]))
        if number % 3 == 2:  # leaves a gap
            spare = Row([[1]], [])
            assert decoder.open(spare, shelves, 1)
    states: list[list[torch.Tensor]] = [[] for _ in rows]
    step = 1
    while not all(row.complete for row in rows):
        parts = [Part(row, row.next(step * (n % 4 + 1))) for n, row in enumerate(rows) if not row.complete]
        for part, found in zip(parts, decoder.step(parts), strict=True):
            states[rows.index(part.row)].append(found)
            part.row.advance(part.elements)
        step += 3
    for text, found in zip(texts, states, strict=True):
        torch.testing.assert_close(torch.cat(found), plain_states(base, Encoded((tuple(text),)), []), atol=1e-5, rtol=1e-4)
