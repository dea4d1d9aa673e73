"""The settings of a correction."""

from dataclasses import dataclass

from epigraph.config import setting
from epigraph.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FixConfig:
    """How far a correction may go, and how it is learned."""

    tolerance: float = setting(0.02, "the largest share of other answers that may change (of held-out ones: break)")
    keep_rows: int | None = setting(
        None,
        "the most texts whose answers shall stay: two thirds are held, on the others changes are only counted; by default 900 of "
        "those given, or 200 that the base writes",
    )
    hold: float | None = setting(
        None,
        "how firmly answers are held: larger moves them less and the vectors more; by default where leaving each text out tells "
        "that the fewest others change",
    )
    reach: float = setting(0.05, "by how much a corrected answer shall win, in nats")
    steps: int = setting(8, "the most steps; it ends as soon as the corrections are mastered")
    seed: int = setting(0, "seed of drawn and written texts")

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 1:
            raise ConfigError(f"tolerance {self.tolerance} was asked; it must lie between 0 and 1.")
        for name, least in {"keep_rows": 8, "steps": 1, "seed": 0}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} {value} was asked; it must be at least {least}.")
        for name in ("hold", "reach"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name} {getattr(self, name)} was asked; it must be a positive number.")
