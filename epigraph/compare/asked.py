"""What a comparison is asked for: methods, rows, seeds, budget. Imports no torch."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epigraph.config import parse_budget, setting
from epigraph.errors import ConfigError

METHODS = (
    "hard-prompt",
    "few-shot-random",
    "few-shot-balanced",
    "few-shot-nearest",
    "optimised",
    "dspy",
    "probe",
    "kv",
    "token",
    "lora",
    "full",
)
CURVE = "8,16,32,64,128,256"
NO_CURVE = "none"
RATES = 5  # that there are to try; a hard-prompt search would go on alone beyond them


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared, on how many rows and seeds, and what each method may spend."""

    methods: str = setting(",".join(METHODS), "methods, with commas; other kinds of prompt and rivals by their names")
    rows: int | None = setting(None, "the most training rows (validation among them); by default all")
    tests: int | None = setting(None, "the most test rows; by default all")
    seeds: int = setting(3, "how many seeds: split, start and order")
    seed: int = setting(0, "the first seed")
    curve: str = setting(CURVE, "fewer training rows to try as well, with commas, or none; all rows are always tried")
    curve_seeds: int = setting(1, "seeds of a point of the data curve below all rows")
    trials: int = setting(
        3, "learning rates that each trained method may try, at most 5; a hard-prompt search tries 8 times as many"
    )
    budget: str = setting(
        "",
        "a time such as 60s or 5m after which a search of any method tries nothing more, or a number of trials; by default no end",
    )
    examples: int = setting(2000, "examples that a trained method sees at most, 3 to 20 passes; generation half of it")
    epochs: int | None = setting(None, "passes over the training rows for all trained methods, instead of --examples")
    limit: float | None = setting(None, "minutes after which nothing more is begun; the same command goes on another time")
    prompt_model: str = setting("", "a stronger model that writes hard prompts for method dspy")
    prompt_address: str = setting("", "the OpenAI-style address where that model answers; its key is $OPENAI_API_KEY")
    strict: bool = setting(False, "any faulty row ends the command")

    def __post_init__(self) -> None:
        at_least = {"rows": 4, "tests": 1, "seeds": 1, "seed": 0, "curve_seeds": 1, "trials": 1, "examples": 1, "epochs": 1}
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} {value} was asked; it must be at least {least}.")
        if self.limit is not None and not 0 < self.limit < float("inf"):
            raise ConfigError(f"limit {self.limit} was asked; it must be a positive number of minutes.")
        if self.tries > RATES:
            raise ConfigError(
                f"{self.tries} trials were asked; there are {RATES} learning rates to try, and every method gets the same.",
                f"Ask for at most {RATES}, or for a time such as --budget 5m.",
            )
        if not self.named:
            raise ConfigError("no methods were asked for.", f"Choose some of: {', '.join(METHODS)}.")
        _ = self.points

    @property
    def named(self) -> list[str]:
        """The methods, in order, each once."""
        return list(dict.fromkeys(name.strip() for name in self.methods.split(",") if name.strip()))

    @property
    def seconds(self) -> float | None:
        """The seconds after which a search tries nothing more; None for no end."""
        asked = parse_budget(self.budget)
        return asked if isinstance(asked, float) else None

    @property
    def tries(self) -> int:
        """How many learning rates each trained method may try: a budget in trials, or ``trials``."""
        asked = parse_budget(self.budget)
        return asked if isinstance(asked, int) else self.trials

    @property
    def points(self) -> list[int]:
        """The row counts of the data curve, rising. ConfigError if they are none."""
        if self.curve.strip().lower() in ("", NO_CURVE):
            return []
        try:
            found = sorted({int(point) for point in self.curve.split(",")})
        except ValueError:
            raise ConfigError(
                f"curve {self.curve!r} was asked.", f"Give numbers of rows, such as {CURVE}, or none."
            ) from None
        if found[0] < 4:
            raise ConfigError(f"a point of {found[0]} rows was asked for the curve; the fewest are 4.")
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CompareConfig":
        """The config with these values; ConfigError on a name it does not have."""
        if not isinstance(values.get("budget", ""), str):  # as folders have it that were begun when it was a number
            values = {**values, "budget": "" if values["budget"] is None else f"{values['budget']:g}s"}
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ConfigError(f"settings {', '.join(unknown)} are not known.", f"Known are: {', '.join(sorted(known))}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All values."""
        return dataclasses.asdict(self)
