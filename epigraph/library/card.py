"""The card: what is written beside a prompt, so that whoever finds the folder knows what it is and may trust it.

A card says on which base a prompt was tuned, for which task, how good it was with which intervals, what it cost, and where
it came from. It holds plain values only; ``cardfile`` writes it as TOML and seals it with a hash.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Literal

from epigraph.errors import BaseMismatch

FormName = Literal["Embedded", "KeyValue", "Dependent"]
Place = Literal["first", "last", "both", "template"]


def utc_now() -> str:
    """The present moment as an ISO text in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def package_version() -> str:
    """The version of the installed epigraph, or "unknown" where it runs from a bare checkout."""
    try:
        return metadata.version("epigraph")
    except metadata.PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, kw_only=True)
class BaseFacts:
    """Which base a prompt belongs to, and the axes its tensors must have.

    ``fingerprint`` is a sha256 in hex. ``verified`` is False where the fingerprint was taken on trust (an imported adapter
    does not say on which weights it was tuned).
    """

    name: str
    fingerprint: str
    hidden: int
    layers: int
    kv_heads: int
    head_size: int
    verified: bool = True


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a prompt came from: ``parents`` such as "routing@2" or "peft:folder-name", and ``how`` in a few words."""

    parents: tuple[str, ...] = ()
    how: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Everything that is stored beside a prompt's tensors.

    ``version`` is 0 until a library stores the prompt. ``form`` and ``lengths`` (P of each block) are filled in from the
    tensors when they are written; so is ``files`` (name → sha256). ``portable`` says that the prompt stands before every
    token, so that PEFT means the same by it. ``task`` is ``Task.to_dict()``, not looked into. TOML has no null: entries
    that are None are left out, and None in a list becomes nan.
    """

    name: str
    kind: str
    place: Place
    trained_parameters: int
    base: BaseFacts
    version: int = 0
    created: str = field(default_factory=utc_now)
    epigraph: str = field(default_factory=package_version)
    form: FormName = "Embedded"
    lengths: tuple[int, ...] = ()
    portable: bool = False
    task: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    hard_prompt: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, Any] = field(default_factory=dict)
    lineage: Lineage = field(default_factory=Lineage)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The prompt as one writes it on the command line: "routing@3", or "routing" before it is stored."""
        return f"{self.name}@{self.version}" if self.version else self.name

    @property
    def members(self) -> int:
        """How many prompts vote: their forms stand one prompt after another. 1 where it is no ensemble."""
        return int(self.settings.get("members", 1))


def check_base(card: Card, base: BaseFacts) -> None:
    """Refuse to use a prompt on a base it was not tuned on.

    Raises:
        BaseMismatch: the fingerprints differ.
    """
    if card.base.fingerprint == base.fingerprint:
        return
    raise BaseMismatch(
        f"prompt {card.reference!r} was trained on base {_describe(card.base)}; this base is {_describe(base)}.",
        f"Tune it again, or pass --base {card.base.name}.",
    )


def _describe(base: BaseFacts) -> str:
    return f"{base.name} (fingerprint {base.fingerprint[:12]}…, H={base.hidden})"
