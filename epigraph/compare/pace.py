"""How much time a plan has left: seconds a unit of work, learned of every method as its cells are done.

left = Σ over cells to come of weight · pace(method);   pace: of the same method's last cell, else the mean so far
"""

from collections.abc import Sequence


class Pace:
    """The time left of a plan of (method, weight)."""

    def __init__(self, plan: Sequence[tuple[str, float]]) -> None:
        self.plan = list(plan)
        self.done = 0
        self.paces: dict[str, float] = {}

    def step(self, number: int, seconds: float, *, known: bool) -> None:
        """Cell ``number`` took so long; one that was only read tells nothing of its method."""
        self.done = number + 1
        method, weight = self.plan[number]
        if not known:
            self.paces[method] = seconds / max(1.0, weight)

    @property
    def seconds(self) -> float | None:
        """Seconds left; None while nothing was measured."""
        if not self.paces:
            return None
        usual = sum(self.paces.values()) / len(self.paces)
        return sum(weight * self.paces.get(method, usual) for method, weight in self.plan[self.done :])

    @property
    def left(self) -> str:
        """In words."""
        if self.done == len(self.plan):
            return "all cells are done"
        seconds = self.seconds
        if seconds is None:
            return f"{len(self.plan) - self.done} cells left"
        return f"about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """A time for people: "40 s", "12 min", "2 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
