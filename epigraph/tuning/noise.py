"""Which of several validation results is the best, when a difference may be noise: the rule of one standard error.

    near(i) ⇔ score_i ≥ score* − error*        score*, error*: the best score and its standard error
    best    = argmin over near(i) of the validation loss, in nats; the usual one, where there is one and  score ≥ score* − 2 error*

Source: the one-standard-error rule, Breiman et al. 1984, Classification and Regression Trees, section 3.4.3. A score counts
rows that cross a threshold, so on N rows it moves by √(q(1 − q) / N), 0.03 for q = 0.85 and 150 rows: more than checkpoints
or trials differ. The loss of the same rows uses how far every answer is from the right one and has far less noise.
Differs: among those that are near, the lowest loss is preferred instead of the simplest model. Where one is the usual, which
other data than these have shown to be good, the others must be surely better: two standard errors, since the best of several is
often one above by luck.
"""

from collections.abc import Sequence

from epigraph.methods.watched import Watched

SURELY = 2.0  # standard errors


def is_near(watched: Watched, top: Watched, errors: float = 1.0) -> bool:
    """Whether a score is within so many standard errors of the top one."""
    return watched.score >= top.score - errors * top.error


def rank(watched: Sequence[Watched], *, usual: int | None = None) -> list[int]:
    """The places of these results, best first: the best of all, the best of the rest, and so on. ``usual`` is the place of what
    is taken where nothing is known."""
    left, ranked = list(range(len(watched))), []
    while left:
        ranked.append(_best(watched, left, usual))
        left.remove(ranked[-1])
    return ranked


def _best(watched: Sequence[Watched], among: Sequence[int], usual: int | None) -> int:
    top = max((watched[i] for i in among), key=lambda w: w.score)
    if usual is not None and usual in among and is_near(watched[usual], top, SURELY):
        return usual
    return max((i for i in among if is_near(watched[i], top)), key=lambda i: watched[i].minus_loss)
