"""The settings of a correction."""

from dataclasses import dataclass

from epigraph.config import setting
from epigraph.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FixConfig:
    """How far a correction may go, and how it is learned."""

    tolerance: float = setting(0.02, "the largest share of other answers that may change (of held-out ones: break)")
    keep_rows: int = setting(
        200, "the most texts on which the old answers are kept; as many are written where none are given"
    )
    weight: float = setting(4.0, "weight of the old prompt's answers to these texts beside the corrections")
    pull: float = setting(0.1, "weight of the pull towards the old vectors")
    rate: float | None = setting(None, "learning rate in units of the vectors' rms; by default a quarter of the kind's")
    steps: int = setting(60, "the most steps; it ends as soon as all corrections are mastered")
    seed: int = setting(0, "seed of order and written texts")

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 1:
            raise ConfigError(f"tolerance {self.tolerance} was asked; it must lie between 0 and 1.")
        for name, least in {"keep_rows": 8, "steps": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name} {getattr(self, name)} was asked; it must be at least {least}.")
        for name in ("weight", "pull"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} {getattr(self, name)} was asked; it must be a number from 0 on.")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise ConfigError(f"rate {self.rate} was asked; it must be a positive number.")
