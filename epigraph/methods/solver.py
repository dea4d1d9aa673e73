"""What solves a task: anything that gives every row of a task its label probabilities or its output.

A prompted base is one; a hard prompt is the same thing with the vectors of its words as the form, so both are scored by
the same code over the same trie of labels.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.engine import Engine, Tree, before_stop, choose, generate
from epigraph.engine.tree import log_odds
from epigraph.engine.voting import vote
from epigraph.errors import ConfigError
from epigraph.methods.shift import CONTENT_FREE, CONTEXTUAL, Shift, content_free, normalise
from epigraph.prompts import AnyForm, Dependent, Embedded, Form
from epigraph.tasks.encode import Encoded, Encoder, answer_text, build_trie, opening
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tasks.template import Template
from epigraph.tasks.verdicts import Verdicts

DEFAULT_OUTPUT_TOKENS = 64
Probabilities = Float[np.ndarray, "N C"]


@runtime_checkable
class Scorable(Protocol):
    """What evaluation asks of a method: the task it solves, and its answers.

    Columns of probabilities are the task's labels, where a row has several each a probability of its own; or the row's own
    choices, 0 beyond its last.
    """

    @property
    def task(self) -> Task: ...
    def probabilities(self, rows: Sequence[Row]) -> Probabilities: ...
    def outputs(self, rows: Sequence[Row]) -> list[str]: ...


class PromptedBase:
    """A base with the forms of a prompt in the template of a task.

    ``members`` prompts vote where there are more than one: then ``forms`` holds theirs, one prompt after another.
    """

    def __init__(
        self,
        engine: Engine,
        task: Task,
        forms: Sequence[AnyForm],
        *,
        template: Template | None = None,
        bos: bool = True,
        output_tokens: int = DEFAULT_OUTPUT_TOKENS,
        members: int = 1,
    ) -> None:
        self.engine = engine
        self.task = task
        self.forms = list(forms)
        self.template = template or task.template
        self.output_tokens = output_tokens
        self.shift: Shift | None = None
        self.members = members
        if len(self.forms) != members * self.template.blocks:
            raise ConfigError(f"the template has {self.template.blocks} prompt blocks, the prompt {len(self.forms)}.")
        if any(isinstance(form, Dependent) for form in self.forms) and not any(
            p.is_field for p in self.template.segments[0]
        ):
            raise ConfigError(
                f"the prompt depends on the input, but in template {self.template.text!r} no field stands before it.",
                "Put the prompt after the input: --place last.",
            )
        self.encoder = Encoder(self.template, engine.base, self._room(), bos=bos, chat=task.chat)

    def _room(self) -> int:
        """Tokens left for the segments beside prompt and answer."""
        prompt = max(sum(form.length for form in forms) for forms in self.prompts)
        answer = max(self.tree.fed_depths, default=0) + 1 if self.task.knows_labels else self.output_tokens
        room = self.engine.base.context - prompt - answer
        if room <= 0:
            raise ConfigError(
                f"a prompt of {prompt} vectors leaves no room: {self.engine.base.name} reads {self.engine.base.context} tokens.",
                "Ask for a smaller --length.",
            )
        return room

    @property
    def prompts(self) -> list[list[AnyForm]]:
        """The forms of every member."""
        blocks = self.template.blocks
        return [self.forms[i : i + blocks] for i in range(0, len(self.forms), blocks)]

    @cached_property
    def tree(self) -> Tree:
        """The labels' trie, or that of the verdicts on them, as this base spells them after this template."""
        base = self.engine.base
        trie = (
            build_trie(self.task.labels, self.template, base, chat=self.task.chat)
            if self.task.has_labels
            else self.verdicts.trie
        )
        return Tree.build(trie, base)

    @cached_property
    def verdicts(self) -> Verdicts:
        """The questions that decide each label by itself."""
        return Verdicts.build(self.task.labels, self.template, self.engine.base, chat=self.task.chat)

    def with_forms(self, forms: Sequence[AnyForm]) -> "PromptedBase":
        """The same with the forms of another prompt; all else is shared."""
        other = copy(self)
        other.forms = list(forms)
        return other

    def on(self, engine: Engine) -> "PromptedBase":
        """The same on another engine of the same base, such as one that computes in another dtype."""
        other = copy(self)
        other.engine = engine
        other.__dict__.pop("tree", None)  # holds rows of the head, in that base's dtype
        return other

    def with_shift(self, shift: Shift | None) -> "PromptedBase":
        """The same with other calibration; all else is shared."""
        other = copy(self)
        other.shift = shift
        return other

    def with_threshold(self, threshold: float) -> "PromptedBase":
        """The same where labels of several are given from another probability on."""
        other = copy(self)
        other.task = replace(self.task, threshold=threshold)
        return other

    def encode(self, rows: Sequence[Row], *, answers: bool = False) -> list[Encoded]:
        """The rows as token ids, with their choices; with ``answers`` a row's target, ended, is what to learn."""
        encoded = [self.encoder.encode(row, self._answer(row) if answers else ()) for row in rows]
        return [replace(e, choices=self._choices(row)) if row.choices else e for e, row in zip(encoded, rows, strict=True)]

    def _answer(self, row: Row) -> list[int]:
        base = self.engine.base
        return [*base.tokenize(self._spoken(row))[: self.output_tokens - 1], base.end]

    def _spoken(self, row: Row) -> str:
        """The target as the base says it: what stands behind a stop word can't be said."""
        target = row.target or ""
        said = before_stop(target, self.task.stop)
        return answer_text(self.template, target if said == target else said.rstrip(), self._closing)

    @property
    def _closing(self) -> str:
        """What the chat format puts between the template and the answer."""
        return self.engine.base.chat_frame()[1] if self.task.chat else ""

    def _choices(self, row: Row) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(ids[: self.output_tokens]) for ids in self._whole_choices(row))

    def _whole_choices(self, row: Row) -> list[list[int]]:
        return [self.engine.base.tokenize(answer_text(self.template, text, self._closing)) for text in row.choices]

    def cut(self, rows: Sequence[Row]) -> dict[str, int]:
        """How many rows have a target or a choice of which a part is never learned or read, by the reason why."""
        most, tokenize = self.output_tokens, self.engine.base.tokenize
        long, stopped = f"longer than {most} tokens", "with a stop word in it"
        found = {long: 0, stopped: 0}
        for row in rows:
            if self.task.writes and row.target is not None:
                found[long] += len(tokenize(self._spoken(row))) > most - 1
                found[stopped] += before_stop(row.target, self.task.stop) != row.target
            found[long] += any(len(ids) > most for ids in self._whole_choices(row))
        return {reason: count for reason, count in found.items() if count}

    def probabilities(self, rows: Sequence[Row]) -> Probabilities:
        """The probability of every label (in the order of ``task.labels``) or choice for every row."""
        found = self.encoded_probabilities(self.encode(rows))
        if self.shift is None or self.shift.how != CONTEXTUAL or not len(rows) or self.task.knows_labels:
            return found
        bare = [self.encoded_probabilities(self.encode(content_free(rows, text))) for text in CONTENT_FREE]
        return normalise(found / np.maximum(np.mean(bare, axis=0), np.finfo(np.float64).tiny))

    def encoded_probabilities(self, rows: Sequence[Encoded]) -> Probabilities:
        """The same for rows already encoded (choices without calibration, which asks for their texts)."""
        if self.task.has_labels:
            return self.label_probabilities(rows)
        return self.set_probabilities(rows) if self.task.knows_labels else self.choice_probabilities(rows)

    def label_probabilities(self, rows: Sequence[Encoded]) -> Probabilities:
        """Probabilities of labels that sum to one."""
        engine, tree = self.engine, self.tree
        scores = vote(engine, rows, self.prompts, tree) if self.members > 1 else engine.classify(rows, self.forms, tree)
        found: Probabilities = scores.exp().numpy()
        return found if self.shift is None else self.shift.labels(found)

    def set_probabilities(self, rows: Sequence[Encoded]) -> Probabilities:
        """Probabilities of labels each by itself, the mean of all members'."""
        odds = torch.stack([self.log_odds(self.engine.decide(rows, forms, self.tree)) for forms in self.prompts])
        found: Probabilities = torch.sigmoid(odds).mean(0).numpy()
        return found if self.shift is None else self.shift.sets(found)

    def log_odds(self, nodes: Float[Tensor, "B X M"]) -> Float[Tensor, "B C"]:
        """log p(yes) − log p(no) of every label, from the log softmax at every branching node."""
        return log_odds(nodes, self.verdicts.decisions)

    def choice_probabilities(self, rows: Sequence[Encoded]) -> Probabilities:
        """Probabilities of a row's own choices, the mean of all members'."""
        scores = torch.stack([choose(self.engine, rows, forms) for forms in self.prompts])
        found: Probabilities = torch.softmax(scores, -1).mean(0).numpy()
        return found

    def outputs(self, rows: Sequence[Row]) -> list[str]:
        """The generated text of every row."""
        return self.encoded_outputs(self.encode(rows))

    def encoded_outputs(self, rows: Sequence[Encoded]) -> list[str]:
        """The same for rows already encoded."""
        found = generate(self.engine, rows, self.forms, self.output_tokens, self.task.stop)
        return [before_stop(self.engine.base.detokenize(ids), self.task.stop).strip() for ids in found]


def text_forms(engine: Engine, text: str, *, bos: bool, chat: bool = False) -> list[Form]:
    """A hard prompt as the form it is: the vectors of its tokens, behind the opening where ``bos`` says so."""
    base = engine.base
    ids = base.tokenize_plainly(text) if chat else base.tokenize(text)
    begin = opening(base, chat=chat) if bos else []
    return [Embedded(engine.embedded_text([*begin, *ids]).vectors)]
