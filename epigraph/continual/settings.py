"""What a sequence of tasks is asked for, beside how each prompt is tuned. Imports no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from epigraph.config import TuneConfig, setting
from epigraph.errors import ConfigError

METHODS: Mapping[str, str] = {
    "separate": "a prompt a task",
    "progressive": "each task's prompt behind those before it, which are frozen",
    "pool": "components mixed by the frozen query; no task id needed",
    "sequential": "one prompt, tuned on one task after another",
    "lora": "one LoRA, tuned on one task after another",
    "full": "all weights, tuned on one task after another",
    "replay": "one prompt, some rows of earlier tasks kept and tuned on again",
    "joint": "one prompt, tuned on all tasks at once: the upper bound",
}
NEEDS_ALL = ("joint",)


@dataclass(frozen=True, kw_only=True)
class ContinualConfig:
    """How a sequence of tasks is learned and measured."""

    methods: tuple[str, ...] = setting(("separate",), "methods, the first of which is stored in the library")
    distinct_labels: bool = setting(False, "equal label words in two tasks are two labels")
    rows: int | None = setting(None, "training rows of a task, the head of a seeded shuffle; by default all")
    test_rows: int = setting(500, "the most test rows of a task")
    replayed: int = setting(50, "rows of each earlier task that replay keeps")
    tune: TuneConfig = field(default_factory=TuneConfig)

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise ConfigError(f"method {', '.join(unknown) or 'none'} is not known.", f"Choose among: {', '.join(METHODS)}.")
        if len(set(self.methods)) < len(self.methods):
            raise ConfigError(f"methods {', '.join(self.methods)} were asked: one stands twice.")
        for name, least in {"rows": 4, "test_rows": 1, "replayed": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} {value} was asked; it must be at least {least}.")
        if self.tune.start.startswith("prompt:"):
            raise ConfigError("a sequence settles itself from which prompt each task starts.", "Leave --start prompt: out.")
        if self.tune.ensemble > 1:
            raise ConfigError(
                f"an ensemble of {self.tune.ensemble} was asked for a sequence, whose prompts go on from one another.",
                "Leave --ensemble out; --trials keeps the best of several.",
            )
        if self.tune.calibrate:
            raise ConfigError(
                f"calibration {self.tune.calibrate!r} was asked for a sequence: its shift is of one task's labels, and the "
                "scenarios compare labels of all.",
                "Leave --calibrate out; predict and evaluate take it.",
            )
        if self.tune.kind in ("pool", "mixture"):
            raise ConfigError(
                f"kind {self.tune.kind!r} was asked for a sequence.", "Ask for --methods pool, or another kind."
            )

    def to_dict(self) -> dict[str, Any]:
        """All values that are set."""
        found = asdict(self) | {"tune": self.tune.to_dict(), "methods": list(self.methods)}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ContinualConfig":
        """The config with these values."""
        tune = TuneConfig.from_dict(values["tune"])
        return cls(**{**values, "methods": tuple(values["methods"]), "tune": tune})
