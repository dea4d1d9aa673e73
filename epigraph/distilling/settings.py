"""What can be asked of distilling; every field is a flag."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epigraph.config import setting
from epigraph.errors import ConfigError

PLACES = ("first", "last")
TAUGHT_KINDS = ("token", "kv", "sink", "prefix", "ptuning", "residual")
START_TEXT, START_MATCHED, START_MAPPED = "text", "matched", "mapped"


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """How a student prompt is taught. Facts of the bases or the data never stand here."""

    kind: str = setting(
        "", "kind of prompt; by default sink (keys and values, the first frozen), on bases that take vectors only token"
    )
    length: int | None = setting(
        None, "vectors of the student; by default 16, or as many as the prompt that is carried over"
    )
    place: str = setting(
        "",
        "where the student stands: first (by default, as a hard prompt does; --from: as it stood) or last (after the input)",
    )
    start: str = setting(
        "",
        "first values: matched (what the texts find in what the teacher reads; the default where both are one base and the student"
        " stands first), text (its tokens, some of them), or mapped (from --from, the old prompt carried over)",
    )
    shots: int = setting(0, "examples that the teacher reads before a text, labels in turn; 0: none")
    epochs: int | None = setting(None, "the most passes over the texts; by default by their number")
    rate: float | None = setting(
        None, "learning rate in units of the start's rms; by default by kind, for keys and values below that of tune"
    )
    batch: int = setting(16, "texts a step")
    seed: int = setting(0, "seed of examples, start, split and order")
    warmup: float = setting(0.1, "share of the steps in which the rate rises")
    clip: float = setting(1.0, "largest norm of a step's gradient")
    patience: int = setting(6, "validations without a smaller divergence before it stops")
    validation: float = setting(0.15, "share of the texts, at most 256 of them, on which it is chosen where to stop")
    holdout: float = setting(0.2, "share of the texts kept for the agreement where there is no --test")
    states: float | None = setting(
        None,
        "weight of the states that a hard prompt's labels are read from, which its student imitates too; 0: labels alone; by default 1 "
        "where it starts matched, else 0",
    )
    pieces: int = setting(
        0, "pieces cut from every text to learn from, that the teacher answers too: more to learn from where texts are few"
    )
    top: int = setting(32, "tokens kept of the teacher's distribution at each place of an answer")
    strict: bool = setting(False, "any faulty row ends the command")

    def __post_init__(self) -> None:
        for name, least in {
            "length": 1,
            "epochs": 1,
            "batch": 1,
            "patience": 1,
            "seed": 0,
            "shots": 0,
            "pieces": 0,
            "top": 1,
        }.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} {value} was asked; it must be at least {least}.")
        for name in ("warmup", "validation", "holdout"):
            if not 0 <= getattr(self, name) <= 0.9:
                raise ConfigError(f"{name} {getattr(self, name)} was asked; it must lie between 0 and 0.9.")
        if self.validation + self.holdout > 0.9:
            raise ConfigError(f"validation {self.validation} and holdout {self.holdout} leave too few texts to learn from.")
        for name in ("rate", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name} {value} was asked; it must be a positive number.")
        if self.states is not None and not 0 <= self.states < float("inf"):
            raise ConfigError(f"states {self.states} was asked; it must be 0 or a positive number.")
        self._check_names()

    def _check_names(self) -> None:
        known = {"place": PLACES, "start": (START_TEXT, START_MATCHED, START_MAPPED), "kind": TAUGHT_KINDS}
        for name, values in known.items():
            value = getattr(self, name)
            if value and value not in values:
                raise ConfigError(f"{name} {value!r} is not known.", f"Choose one of: {', '.join(values)}.")

    def to_dict(self) -> dict[str, Any]:
        """All values that are set."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DistillConfig":
        """The config with these values; ConfigError on a name it does not have."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := [name for name in values if name not in known]:
            raise ConfigError(f"settings {', '.join(unknown)} are not known.", f"Known are: {', '.join(sorted(known))}.")
        return cls(**values)
