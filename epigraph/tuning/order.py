"""The order in which examples are seen: shuffled anew every epoch, batches of similar length, a function of seed and epoch.

Nothing is remembered between epochs, so a resumed tuning sees the same batches as an uninterrupted one.
"""

import random
from collections.abc import Sequence

WINDOW = 8


def epoch_batches(lengths: Sequence[int], *, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Row numbers in batches: shuffled, sorted by length within windows of 8 batches, and the batches shuffled again."""
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    window = WINDOW * batch
    sorted_windows = [sorted(order[i : i + window], key=lambda r: lengths[r]) for i in range(0, len(order), window)]
    batches = [rows[i : i + batch] for rows in sorted_windows for i in range(0, len(rows), batch)]
    rng.shuffle(batches)
    return batches
