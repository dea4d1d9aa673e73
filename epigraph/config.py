"""The settings of a tuning: frozen dataclasses, TOML in and out. Imports no torch.

Command-line flags, help and documentation are generated from these fields: ``setting(default, doc)`` keeps a field's
meaning beside it. A value of None (or "") means "not asked for: choose, and keep the reason".
"""

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from epigraph.errors import ConfigError, NotFound

KINDS = {
    "token": "vectors at the embedding layer",
    "kv": "keys and values at every layer",
    "ptuning": "vectors, trained through a network",
    "residual": "vectors, with a network beside them",
    "superpos": "vectors, mixed of vocabulary rows",
    "prefix": "keys and values, through a network",
    "sink": "keys and values, the first frozen",
    "context": "examples whose tokens move a little",
    "multitask": "keys and values, shared by tasks times a task's own",
    "mixture": "attention over other tasks' prompts (epigraph multitask only)",
    "pool": "keys and values, mixed for each input",
}
PLACES = ("first", "last", "both", "template")
VALIDATION, FEW_VALIDATION = 0.15, 0.3
KEPT = ("soft", "better")
CALIBRATIONS = ("contextual", "prior")
STARTS = ("text", "labels", "vocab", "random", "examples", "nearest")
STARTS_WITH = {"text:": "text:FILE", "prompt:": "prompt:NAME"}


def _listed(values: Mapping[str, str]) -> str:
    """Names with their meanings, a line each; the mark keeps a command's help from joining the lines."""
    return "\n\n\b\n" + "\n".join(f"{name}: {meaning}" for name, meaning in values.items())


def setting(default: Any, doc: str) -> Any:
    """A dataclass field with its default and its meaning."""
    return dataclasses.field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """How a prompt is tuned. Facts of the base or the data never stand here."""

    kind: str = setting("", f"kind of prompt; by default kv, on bases that take vectors only token{_listed(KINDS)}")
    length: int | None = setting(None, "vectors a {prompt} block; by default 8, for generation 16, for context 128 at most")
    place: str = setting(
        "",
        "where the prompt stands: first, last (after the input) or both; by default as the template says (context: first)",
    )
    share_blocks: bool = setting(False, "several {prompt} blocks have the same vectors")
    readings: int | None = setting(
        None,
        "how often the base reads a row before the prompt, 1 or 2: in the second reading every token sees the whole row; by "
        "default 2 where rows are short, answers are labels and the template is the default one",
    )
    portable: bool = setting(False, "a token prompt that stands first: loads in PEFT and vLLM")
    start: str = setting(
        "",
        "first values: text, labels, vocab, random, examples (training rows), text:FILE (a long text, compressed), "
        "prompt:NAME, or nearest (the stored prompt that is most like this task's); by default text, for context examples",
    )
    epochs: int | None = setting(
        None,
        "the most passes over the training rows; by default some 3,000 examples, more with more labels (generation: 2,500)",
    )
    rate: float | None = setting(None, "learning rate in units of the start's rms; by default by kind")
    batch: int | None = setting(None, "examples a step; by default 16 or 32 by the number of rows")
    budget: str = setting(
        "",
        "what the search for settings may take: a time such as 60s or 5m, the tuning included, or a number of trials; 1 is no "
        "search; by default 4 trials, to 200 rows 16",
    )
    trials: int | None = setting(None, "the same as a budget of so many trials, tuned side by side")
    ensemble: int = setting(1, "so many of the trials, the best on validation, are kept and vote on the label in one pass")
    seed: int = setting(0, "seed of start, split and order")
    warmup: float = setting(0.1, "share of the steps in which the rate rises")
    clip: float = setting(1.0, "largest norm of a step's gradient")
    patience: int = setting(4, "validations without a better score before tuning stops")
    validation: float | None = setting(
        None,
        f"share of the training rows kept for validation; by default {VALIDATION}, to 200 rows {FEW_VALIDATION}, and to 32 rows "
        "every row in turn (cross-validation); with a share given, rows that validate are never learned from",
    )
    holdout: float = setting(0.15, "share of the rows kept for the final score where there is no test set")
    keep: str = setting(
        "",
        "what is stored: soft (the soft prompt, whatever it reached) or better (the hard prompt where validation prefers it); by "
        "default better, where a kind, place or ensemble is asked for soft",
    )
    calibrate: str = setting(
        "", "shift of the finished prompt's probabilities: contextual (by empty inputs) or prior (to the labels' shares)"
    )
    strict: bool = setting(False, "any faulty row ends the command")

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.readings not in (None, 1, 2):
            raise ConfigError(f"readings {self.readings} was asked; a row is read once or twice.", "Pass 1 or 2.")
        if self.place and self.place not in PLACES:
            raise ConfigError(f"place {self.place!r} is not known.", f"Choose one of: {', '.join(PLACES)}.")
        if self.calibrate not in ("", *CALIBRATIONS):
            raise ConfigError(f"calibration {self.calibrate!r} is not known.", f"Choose one of: {', '.join(CALIBRATIONS)}.")
        if self.start and self.start not in STARTS and not self.start.startswith(tuple(STARTS_WITH)):
            known = ", ".join([*STARTS, *STARTS_WITH.values()])
            raise ConfigError(f"start {self.start!r} is not known.", f"Choose one of: {known}.")
        if self.keep not in ("", *KEPT):
            raise ConfigError(f"keep {self.keep!r} is not known.", f"Choose one of: {', '.join(KEPT)}.")
        budget = parse_budget(self.budget)
        if self.trials is not None and budget:
            raise ConfigError(f"both trials {self.trials} and budget {self.budget} were asked.", "Give one of them.")
        if isinstance(budget, int) and budget < self.ensemble:
            raise ConfigError(
                f"an ensemble of {self.ensemble} was asked, but a budget of {budget} trials.",
                "Raise --budget or leave it out.",
            )
        if self.portable and self.place not in ("", "first"):
            raise ConfigError(f"a portable prompt stands first, but place {self.place!r} was asked.", "Leave --place out.")
        if self.portable and self.ensemble > 1:
            raise ConfigError(f"a portable prompt is one, but an ensemble of {self.ensemble} was asked.", "Leave one out.")

    def _check_numbers(self) -> None:
        at_least = {"length": 1, "epochs": 1, "batch": 1, "patience": 1, "trials": 1, "ensemble": 1, "seed": 0}
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} {value} was asked; it must be at least {least}.")
        if self.seed >= MOST_SEEDS:
            raise ConfigError(f"seed {self.seed} was asked; it must be below {MOST_SEEDS:,}.")
        for name in ("warmup", "validation", "holdout"):
            if not 0 <= (getattr(self, name) or 0.0) <= 0.9:
                raise ConfigError(f"{name} {getattr(self, name)} was asked; it must lie between 0 and 0.9.")
        for name in ("rate", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"{name} {value} was asked; it must be a positive number.")

    @property
    def single(self) -> "TuneConfig":
        """The same for a tuning that is a part of something larger.

        One trial unless more were asked for, a soft prompt, and one split, so that rows kept apart elsewhere stay apart.
        """
        searches = self.budget or self.trials or self.ensemble > 1
        return dataclasses.replace(
            self,
            budget=self.budget if searches else "1",
            keep=self.keep or "soft",
            validation=VALIDATION if self.validation is None else self.validation,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TuneConfig":
        """The config with these values; ConfigError on a name it does not have."""
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ConfigError(f"settings {', '.join(unknown)} are not known.", f"Known are: {', '.join(sorted(known))}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All values that are set (TOML has no null)."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


MOST_SEEDS = 2**32
BUDGET = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_budget(text: str) -> int | float | None:
    """A number of trials (int), a time in seconds (float), or None where nothing was asked. ConfigError if it is neither."""
    if not text:
        return None
    found = BUDGET.fullmatch(text.strip())
    if found is None or not float(found[1]) or (not found[2] and "." in found[1]):
        raise ConfigError(f"budget {text!r} was asked; it is a time or a number of trials.", "Write 60s, 5m or 12.")
    return float(found[1]) * SECONDS[found[2]] if found[2] else int(found[1])


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; NotFound or ConfigError with the line where it breaks."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"{path} was asked, but there is no such file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None


def write_toml(path: Path, values: Mapping[str, Any]) -> None:
    """Write values, whole or not at all; entries of None are left out, since TOML has no null."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(tomli_w.dumps(without_none(values)), encoding="utf-8")
    partial.replace(path)


def without_none(value: Any) -> Any:
    """The same nested value without entries of None."""
    if isinstance(value, Mapping):
        return {str(k): without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [without_none(v) for v in value if v is not None]
    return value
