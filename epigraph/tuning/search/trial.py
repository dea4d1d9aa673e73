"""One setting of everything that a search may choose: what a trial is tuned with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from epigraph.tuning.loop import Settings


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Kind, length, place and start of a prompt, how often it sees a row, and the numbers of the loop that tunes it."""

    kind: str
    length: int
    place: str
    start: str
    readings: int
    loop: Settings

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the run folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Trial":
        """The trial that the run folder holds."""
        return cls(**{**values, "loop": Settings(**values["loop"])})

    def __str__(self) -> str:
        return f"{self.kind} {self.place}, {self.length} vectors, rate {self.loop.rate:.3g}, start {self.start}"
