"""What the tests of serving share: prompts, someone who listens, the answer of a request alone by the engine itself."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from epigraph.base import Base
from epigraph.engine import Engine, Tree, generate
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.serve.batcher import Batcher
from epigraph.serve.request import Ticket
from epigraph.serve.work import (
    BatcherSettings,
    Carried,
    Classification,
    EchoEvent,
    EndEvent,
    Event,
    Generation,
    Job,
    LabelEvent,
    Sampling,
    TokenEvent,
)
from epigraph.tasks.encode import Encoded
from epigraph.tasks.trie import LabelTrie

SECONDS = 60
GREEDY = Sampling(temperature=0.0, max_tokens=8)


class Ear:
    """Hears one request; ``on_token`` is called with the number of tokens heard."""

    def __init__(self, choices: int = 1, on_token: Callable[[int], None] | None = None) -> None:
        self.events: list[Event] = []
        self.ended = threading.Event()
        self.ticket: Ticket | None = None
        self._open = choices
        self._on_token = on_token

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, TokenEvent) and self._on_token:
            self._on_token(len(self.of(TokenEvent)))
        if isinstance(event, EndEvent):
            self._open -= 1
            if not self._open:
                self.ended.set()

    def of(self, kind: type, choice: int | None = None) -> list:
        """The events of one kind."""
        return [e for e in self.events if isinstance(e, kind) and choice in (None, getattr(e, "choice", None))]

    def wait(self) -> "Ear":
        """Until every choice has ended."""
        assert self.ended.wait(SECONDS), self.events
        return self

    def tokens(self, choice: int = 0) -> list[int]:
        """What was chosen, the end token too."""
        return [e.token for e in self.of(TokenEvent, choice)]

    def text(self, choice: int = 0) -> str:
        """What was said."""
        return "".join(e.text for e in self.of(TokenEvent, choice))

    @property
    def end(self) -> EndEvent:
        """The end of the first choice."""
        found: EndEvent = self.of(EndEvent, 0)[0]
        return found

    @property
    def labels(self) -> list[list[float]]:
        """The probabilities of a classification."""
        return [list(row) for row in self.of(LabelEvent)[0].probabilities]

    @property
    def echo(self) -> EchoEvent:
        """What was said of the input."""
        found: EchoEvent = self.of(EchoEvent)[0]
        return found


@contextmanager
def serving(engine: Engine, **settings: int) -> Iterator[Batcher]:
    """A batcher at work; its steps are as small where only labels are asked, so that few rows fill several."""
    small = {"label_tokens": settings["step_tokens"]} if "step_tokens" in settings else {}
    batcher = Batcher(engine, BatcherSettings(**({"cache_bytes": 10**8} | small | settings)))
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.close(drain=False, timeout=0.0)


def ask(batcher: Batcher, job: Job, on_token: Callable[[int], None] | None = None) -> Ear:
    """Submit, and listen."""
    ear = Ear(job.sampling.n if isinstance(job, Generation) else 1, on_token)
    ear.ticket = batcher.submit(job, ear)
    return ear


def generation(segments: Sequence[str], prompt: Carried | None = None, sampling: Sampling = GREEDY) -> Generation:
    """A request about texts, whose bytes are taken for token ids."""
    return Generation(segments=tuple(tuple(s.encode()) for s in segments), prompt=prompt, sampling=sampling)


def carried(base: Base, kind: str, *, blocks: int = 1, length: int = 3, seed: int = 1) -> Carried:
    """A random prompt."""
    torch.manual_seed(seed)
    forms: list[Form] = []
    for _ in range(blocks):
        if kind == "token":
            forms.append(Embedded(torch.randn(length, base.hidden) * base.table_rms))
        else:
            shape = (base.layers, base.heads, length, base.head_size)
            forms.append(KeyValue(torch.randn(shape), torch.randn(shape)))
    tensors = [t for f in forms for t in ([f.vectors] if isinstance(f, Embedded) else [f.keys, f.values])]
    content = hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()
    return Carried(name=f"{kind}-{seed}", content=content, forms=tuple(forms))


def tree_of(base: Base, *labels: str) -> Tree:
    """The tree of labels that are their own words."""
    return Tree.build(LabelTrie.build({label: base.tokenize(label) for label in labels}, base.end), base)


def alone(engine: Engine, job: Generation) -> list[int]:
    """The engine's own greedy answer."""
    row, forms = _with_prompt(engine, job.segments, job.prompt)
    return generate(engine, [row], forms, job.sampling.max_tokens)[0]


def labelled_alone(engine: Engine, job: Classification) -> torch.Tensor:
    """The engine's own probabilities."""
    rows = [_with_prompt(engine, row.segments, job.prompt) for row in job.rows]
    return torch.cat([engine.classify([row], forms, job.tree).exp() for row, forms in rows])


def _with_prompt(
    engine: Engine, segments: Sequence[tuple[int, ...]], prompt: Carried | None
) -> tuple[Encoded, Sequence[Form]]:
    """Without a prompt: one of no vectors, before the text."""
    if prompt is None:
        return Encoded(((), segments[0])), [Embedded(torch.zeros(0, engine.base.hidden))]
    return Encoded(tuple(segments)), prompt.forms


def spoken(base: Base, tokens: Sequence[int]) -> list[int]:
    """Without the end token."""
    return [t for t in tokens if t != base.end]
