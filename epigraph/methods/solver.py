"""What solves a task: anything that gives every row of a task its label probabilities or its output.

A prompted base is one; a hard prompt is the same thing with the vectors of its words as the form, so both are scored by
the same code over the same trie of labels.
"""

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from epigraph.engine import Engine, Tree, generate
from epigraph.errors import ConfigError
from epigraph.prompts import Embedded, Form
from epigraph.tasks.encode import Encoded, Encoder, answer_text, build_trie
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tasks.template import Template

DEFAULT_OUTPUT_TOKENS = 64
Probabilities = Float[np.ndarray, "N C"]


@runtime_checkable
class Scorable(Protocol):
    """What evaluation asks of a method: the task it solves, and its answers."""

    @property
    def task(self) -> Task: ...
    def probabilities(self, rows: Sequence[Row]) -> Probabilities: ...
    def outputs(self, rows: Sequence[Row]) -> list[str]: ...


class PromptedBase:
    """A base with the forms of a prompt in the template of a task."""

    def __init__(
        self,
        engine: Engine,
        task: Task,
        forms: Sequence[Form],
        *,
        template: Template | None = None,
        bos: bool = True,
        output_tokens: int = DEFAULT_OUTPUT_TOKENS,
    ) -> None:
        self.engine = engine
        self.task = task
        self.forms = list(forms)
        self.template = template or task.template
        self.output_tokens = output_tokens
        if len(self.forms) != self.template.blocks:
            raise ConfigError(f"the template has {self.template.blocks} prompt blocks, the prompt {len(self.forms)}.")
        self.encoder = Encoder(self.template, engine.base, self._room(), bos=bos)

    def _room(self) -> int:
        """Tokens left for the segments beside prompt and answer."""
        prompt = sum(form.length for form in self.forms)
        answer = max(self.tree.fed_depths, default=0) + 1 if self.task.has_labels else self.output_tokens
        room = self.engine.base.context - prompt - answer
        if room <= 0:
            raise ConfigError(
                f"a prompt of {prompt} vectors leaves no room: {self.engine.base.name} reads {self.engine.base.context} tokens.",
                "Ask for a smaller --length.",
            )
        return room

    @cached_property
    def tree(self) -> Tree:
        """The labels' trie as this base spells them after this template."""
        return Tree.build(build_trie(self.task.labels, self.template, self.engine.base), self.engine.base)

    def with_forms(self, forms: Sequence[Form]) -> "PromptedBase":
        """The same with the forms of another prompt; all else is shared."""
        other = copy(self)
        other.forms = list(forms)
        return other

    def encode(self, rows: Sequence[Row], *, answers: bool = False) -> list[Encoded]:
        """The rows as token ids; with ``answers`` a generation row's target, ended, is what to learn."""
        return [self.encoder.encode(row, self._answer(row) if answers else ()) for row in rows]

    def _answer(self, row: Row) -> list[int]:
        base = self.engine.base
        tokens = base.tokenize(answer_text(self.template, row.target or ""))[: self.output_tokens - 1]
        return [*tokens, base.end]

    def probabilities(self, rows: Sequence[Row]) -> Probabilities:
        """The probability of every label (in the order of ``task.labels``) for every row."""
        return self.label_probabilities(self.encode(rows))

    def label_probabilities(self, rows: Sequence[Encoded]) -> Probabilities:
        """The same for rows already encoded."""
        found: Probabilities = self.engine.classify(rows, self.forms, self.tree).exp().numpy()
        return found

    def outputs(self, rows: Sequence[Row]) -> list[str]:
        """The generated text of every row."""
        return self.encoded_outputs(self.encode(rows))

    def encoded_outputs(self, rows: Sequence[Encoded]) -> list[str]:
        """The same for rows already encoded."""
        found = generate(self.engine, rows, self.forms, self.output_tokens)
        return [self.engine.base.detokenize(ids).strip() for ids in found]


def text_forms(engine: Engine, text: str, *, bos: bool) -> list[Form]:
    """A hard prompt as the form it is: the vectors of its tokens."""
    ids = engine.base.tokenize(text)
    begin = [engine.base.bos] if bos and engine.base.bos is not None else []
    return [Embedded(engine.embedded_text([*begin, *ids]).vectors)]
