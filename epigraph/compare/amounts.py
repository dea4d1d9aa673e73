"""Differences between methods as words: points of a share, ranks of a mean error; + is always the better side."""

from epigraph.metrics import LOWER_IS_BETTER, upward
from epigraph.report.numbers import change_text, percent_points

IN_RANKS = frozenset({"mae"})


def gap_text(metric: str, difference: float) -> str:
    """The size of a difference: ``0.6 points``, ``0.120 ranks``."""
    size = abs(difference)
    return f"{size:.3f} ranks" if metric in IN_RANKS else percent_points(size)


def gain_text(metric: str, difference: float) -> str:
    """A difference with the sign of a gain: ``+0.6`` points, or ``+0.120`` ranks nearer."""
    gain = upward(metric, difference)
    if metric not in IN_RANKS:
        return change_text(gain)
    return f"{gain:+.3f}" if round(gain, 3) else "0.000"


def gain_bounds(metric: str, low: float, high: float) -> tuple[str, str]:
    """The bounds of a difference as gains, the worse first."""
    ends = (high, low) if metric in LOWER_IS_BETTER else (low, high)
    return gain_text(metric, ends[0]), gain_text(metric, ends[1])
