"""The order is a function of seed and epoch, sees every row once, and keeps like lengths together."""

from hypothesis import given
from hypothesis import strategies as st

from epigraph.tuning.order import epoch_batches


@given(st.lists(st.integers(1, 200), min_size=1, max_size=300), st.integers(1, 40), st.integers(0, 5), st.integers(0, 5))
def test_every_row_is_seen_once_in_the_promised_number_of_batches(
    lengths: list[int], batch: int, seed: int, epoch: int
) -> None:
    batches = epoch_batches(lengths, batch=batch, seed=seed, epoch=epoch)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch)
    assert batches == epoch_batches(lengths, batch=batch, seed=seed, epoch=epoch)


def test_epochs_and_seeds_differ() -> None:
    lengths = list(range(100))
    orders = [epoch_batches(lengths, batch=10, seed=s, epoch=e) for s in range(2) for e in range(2)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_batches_are_of_similar_length() -> None:
    lengths = [1, 1000] * 200
    batches = epoch_batches(lengths, batch=20, seed=0, epoch=0)
    mixed = sum(len({lengths[row] for row in rows}) > 1 for rows in batches)
    assert mixed <= len(batches) // 4
