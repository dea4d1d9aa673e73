"""What is asked of the batcher and what it answers: requests, and events in the order in which they come about.

A ``Generation`` gives ``EchoEvent`` (where asked), ``TokenEvent`` …, ``EndEvent`` for each of its n choices; a
``Classification`` gives one ``LabelEvent`` and one ``EndEvent``, a ``Reading`` one ``QueryEvent`` and one ``EndEvent``. Whatever
happens, every choice ends in exactly one ``EndEvent``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from epigraph.engine import Tree
from epigraph.errors import ConfigError, EpigraphError
from epigraph.prompts import AnyForm
from epigraph.tasks.encode import Encoded

Top = tuple[tuple[int, float], ...]
Reason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen, when to stop, what to report of them."""

    max_tokens: int = 16
    """The most tokens a choice may have; 0 reads the input only."""
    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together have this probability."""
    top_k: int = 0
    """Draw among this many likeliest tokens; 0 and -1: among all."""
    seed: int | None = None
    """The same seed gives the same text, whatever else is in the batch; None draws one."""
    stop: tuple[str, ...] = ()
    """Texts that end a choice; they and what follows are left out of its text."""
    logprobs: int | None = None
    """How many alternatives to report with every token's log probability; None reports none at all."""
    echo: bool = False
    """With ``logprobs``: report those of the input's tokens too."""
    n: int = 1
    """Choices, drawn apart; they share the reading of the input."""
    ignore_end: bool = False
    """Go on after the end token."""
    stop_tokens: tuple[int, ...] = ()
    """Further tokens that end a choice; they have no text."""

    def __post_init__(self) -> None:
        _check("max_tokens", self.max_tokens, self.max_tokens >= 0, "0 or more")
        _check("temperature", self.temperature, 0 <= self.temperature < float("inf"), "0 or more")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1")
        _check("top_k", self.top_k, self.top_k >= -1, "0 (all) or more")
        _check("logprobs", self.logprobs, self.logprobs is None or self.logprobs >= 0, "0 or more")
        _check("n", self.n, self.n >= 1, "1 or more")
        _check("stop", "", all(self.stop), "no empty text")


def _check(name: str, value: object, right: bool, wanted: str) -> None:
    if not right:
        raise ConfigError(f"{name} is {value!r}; it must be {wanted}.")


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A prompt as the server carries it. ``content`` is the sha256 of its tensors: what is kept of it is kept under that.

    ``members`` prompts vote where there are more than one: then ``forms`` holds theirs, one prompt after another.
    """

    name: str
    content: str
    forms: tuple[AnyForm, ...]
    members: int = 1


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One request for n choices. ``segments`` are the token ids around the prompt's blocks: one more than there are blocks."""

    segments: tuple[tuple[int, ...], ...]
    prompt: Carried | None
    sampling: Sampling
    owner: str = ""
    """Who asks: states of texts are reused among requests of one owner."""


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Label probabilities of rows with one prompt; without a tree those of the choices that each row has.

    With ``verdicts`` (see ``tasks/verdicts.py``) every label has a probability of its own.
    """

    rows: tuple[Encoded, ...]
    prompt: Carried | None
    tree: Tree | None
    verdicts: tuple[tuple[int, int, int], ...] = ()
    owner: str = ""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The frozen query of each text: the mean of the last layer's states over it."""

    texts: tuple[tuple[int, ...], ...]
    owner: str = ""

    prompt = None


Job = Generation | Classification | Reading


@dataclass(frozen=True)
class TokenEvent:
    """A token was chosen. ``text`` is what became certain with it: whole characters, never part of a stop text.

    The end token and stop tokens are reported like any other, without text. ``logprob`` is of the base's own distribution,
    before temperature; ``top`` are the likeliest tokens with theirs.
    """

    choice: int
    token: int
    text: str
    logprob: float | None = None
    top: Top = ()


@dataclass(frozen=True)
class EchoEvent:
    """The input's tokens with their log probabilities; None at the first, which nothing predicts.

    A token right behind a block of keys and values is predicted by the token before the block, which has not seen it.
    """

    choice: int
    tokens: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    top: tuple[Top | None, ...]


@dataclass(frozen=True)
class LabelEvent:
    """The probability of every label, in the order of the tree's, or of every choice, for every row."""

    probabilities: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class QueryEvent:
    """The query of every text, fp32 on the CPU."""

    queries: Float[Tensor, "N H"]


@dataclass(frozen=True)
class EndEvent:
    """A choice is over. ``matched`` is the stop text or stop token that ended it, None for the end token.

    ``prompt_tokens`` are the input's own, ``virtual_tokens`` those of the prompt; ``reused_tokens`` of the former were not computed.
    """

    choice: int
    reason: Reason
    matched: str | int | None
    prompt_tokens: int
    completion_tokens: int
    error: EpigraphError | None = None
    virtual_tokens: int = 0
    reused_tokens: int = 0


Event = TokenEvent | EchoEvent | LabelEvent | QueryEvent | EndEvent
Listener = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class BatcherSettings:
    """The bounds of a batcher."""

    max_rows: int = 32
    """Sequences that are generated at once."""
    step_tokens: int = 256
    """Tokens a step computes at most; long inputs are read in parts, so that running sequences do not stall."""
    label_tokens: int = 512
    """The same where nothing is generated: no sequence waits for its next token, and products of more rows are faster."""
    cache_bytes: int | None = None
    """Keys and values of running sequences, a quarter as much again for rows of classifications; None: a quarter of what
    memory is free at the start."""
    prompt_bytes: int = 512 << 20
    """Keys and values of prompts kept for later requests."""
    text_bytes: int = 512 << 20
    """Frozen states of texts kept for later requests; 0 keeps none."""
    queue_length: int = 1024
    """Requests that may wait."""
    held_bytes: int = 1 << 30
    """What all requests that are not answered yet may hold in lists and objects (see ``sizes.py``)."""

    def __post_init__(self) -> None:
        for name in ("max_rows", "step_tokens", "label_tokens", "queue_length"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        for name in ("cache_bytes", "prompt_bytes", "text_bytes", "held_bytes"):
            value = getattr(self, name)
            _check(name, value, value is None or value >= 0, "0 bytes or more")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a batcher holds, and what it has counted since its start."""

    waiting: int
    """Requests that have not begun."""
    running: int
    """Sequences that are being read or generated."""
    labelling: int
    """Rows of classifications that are being read."""
    held_bytes: int
    """What requests hold that are not answered yet."""
    running_bytes: int
    """Room taken for keys and values of running sequences and rows."""
    cached_bytes: int
    """Bytes of prompts and texts kept for later requests."""
    prompt_hits: int
    prompt_misses: int
    prompt_evictions: int
    text_hits: int
    text_misses: int
    text_evictions: int
    steps: int
    tokens_computed: int
    """Tokens and prompt vectors that went through the base."""
    tokens_reused: int
    """Tokens and prompt vectors whose states were there already."""
    tokens_generated: int
    rows_labelled: int
    preempted: int
    """Sequences that gave up their room for older ones and were read again."""
    finished: int
    """Requests that are over."""
