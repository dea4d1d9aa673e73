"""What several tasks tuned together are asked for, beside how each prompt is tuned. Imports no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from epigraph.config import TuneConfig, setting
from epigraph.errors import ConfigError

KINDS: Mapping[str, str] = {
    "multitask": "one shared prompt times a rank-one change for each task, taught by plain prompts (MPT)",
    "mixture": "each task attends over the prompts of the others, by the frozen query (ATTEMPT)",
    "spot": "one prompt for all tasks, from which each task's starts (SPoT)",
    "average": "the mean of the tasks' prompts, from which each task's starts",
}
IN_ONE_PASS = ("multitask", "spot")
"""Kinds whose shared part learns from all tasks at once."""
FORMS = ("kv", "token")


@dataclass(frozen=True, kw_only=True)
class MultitaskConfig:
    """How several tasks are tuned together."""

    kind: str = setting("multitask", "how they are tuned together")
    form: str = setting("kv", "keys and values, or vectors (token)")
    distil: float = setting(0.9, "weight of what the plain prompts teach; 0: nothing")
    factor_rate: float = setting(4 / 3, "rate of the tasks' factors in units of the shared prompt's")
    transfer: int = setting(16, "rows on which transfer from task to task is measured; 0: it is not")
    rows: int | None = setting(None, "training rows of a task")
    tune: TuneConfig = field(default_factory=TuneConfig)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind {self.kind!r} is not known.", f"Choose one of: {', '.join(KINDS)}.")
        if self.form not in FORMS:
            raise ConfigError(f"form {self.form!r} is not known.", f"Choose one of: {', '.join(FORMS)}.")
        for name in ("distil", "factor_rate"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(f"{name} {value} was asked; it must be 0 or more.")
        if self.tune.ensemble > 1:
            raise ConfigError(
                f"an ensemble of {self.tune.ensemble} was asked for tasks together, of each of which one prompt is shared.",
                "Leave --ensemble out; --trials keeps the best of several.",
            )
        if self.tune.start == "nearest" or self.tune.start.startswith("prompt:"):
            raise ConfigError(
                f"start {self.tune.start!r} was asked for tasks together, which settle themselves what starts from which prompt.",
                "Leave --start out, or pass vocab, random, text, labels or examples.",
            )
        if self.transfer and self.transfer < 4:
            raise ConfigError(
                f"transfer on {self.transfer} rows was asked; tuning needs 4 or more.", "Pass --transfer 0 for none."
            )
        if self.rows is not None and self.rows < 4:
            raise ConfigError(f"rows {self.rows} was asked; tuning needs 4 or more.")

    def to_dict(self) -> dict[str, Any]:
        """All values that are set."""
        found = asdict(self) | {"tune": self.tune.to_dict()}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "MultitaskConfig":
        """The config with these values."""
        return cls(**{**values, "tune": TuneConfig.from_dict(values["tune"])})
