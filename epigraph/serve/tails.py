"""What hangs behind a row that is to be classified, and what the states there say: labels, sets of labels, its own choices.

    labels     p(c)  by the label tree                                    verdicts   p(c) = σ(log p(yes) − log p(no)), each label alone
    choices    softmax over c of (1/|c|) Σ log p(token | row, the choice's tokens before it)

The engine computes the same for whole batches (``engine/tree.py``, ``engine/choosing.py``); here rows come one by one, each with
a past of its own. ``alone`` is for bases that are run by plain concatenation.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from epigraph.engine import Engine, Tree
from epigraph.engine.choosing import choose
from epigraph.engine.tree import log_odds
from epigraph.engine.trunk import Trunk
from epigraph.prompts import Form
from epigraph.tasks.encode import Encoded

BEFORE = -1  # in ``reads``: the row's last token


@runtime_checkable
class Tail(Protocol):
    """Tokens that are fed behind a row (as a ``Hanging``), the places that are read (``reads``), and what they say."""

    @property
    def fed_tokens(self) -> Sequence[int]: ...
    @property
    def fed_depths(self) -> tuple[int, ...]: ...
    @property
    def ancestors(self) -> Bool[Tensor, "F F"]: ...
    @property
    def reads(self) -> Sequence[int]: ...
    @property
    def group(self) -> Hashable:
        """Rows of one group are answered together."""
        ...

    def probabilities(self, trunk: Trunk, states: Float[Tensor, "B R H"]) -> Float[Tensor, "B C"]:
        """From the states at ``reads``."""
        ...

    def alone(self, engine: Engine, row: Encoded, forms: Sequence[Form]) -> Float[Tensor, " C"]:
        """The same for one row, read anew."""
        ...


@dataclass(frozen=True)
class LabelTail:
    """The label tree; with ``verdicts`` (see ``tasks/verdicts.py``) every label is judged by itself."""

    tree: Tree
    verdicts: tuple[tuple[int, int, int], ...] = ()

    @property
    def fed_tokens(self) -> Sequence[int]:
        """The tree's."""
        return self.tree.fed_tokens

    @property
    def fed_depths(self) -> tuple[int, ...]:
        """The tree's."""
        return self.tree.fed_depths

    @property
    def ancestors(self) -> Bool[Tensor, "F F"]:
        """The tree's."""
        return self.tree.ancestors

    @property
    def reads(self) -> Sequence[int]:
        """The branching nodes."""
        return self.tree.reads

    @property
    def group(self) -> Hashable:
        """Rows of one tree, read off alike."""
        return id(self.tree), self.verdicts

    def probabilities(self, trunk: Trunk, states: Float[Tensor, "B R H"]) -> Float[Tensor, "B C"]:
        """From the logits of the tree's own rows of the head."""
        tree, B = self.tree, len(states)
        logits = trunk.logits(states.flatten(0, 1), tree.trie.tokens, tree.rows).view(B, len(tree.reads), -1)
        node = torch.arange(len(tree.reads), device=logits.device)[None].expand(B, -1)
        return self._of_nodes(tree.children(logits, node))

    def alone(self, engine: Engine, row: Encoded, forms: Sequence[Form]) -> Float[Tensor, " C"]:
        """By the engine."""
        nodes = engine.decide([row], forms, self.tree).to(self.tree.decisions.device)
        return self._of_nodes(nodes)[0]

    def _of_nodes(self, nodes: Float[Tensor, "B X M"]) -> Float[Tensor, "B C"]:
        return torch.sigmoid(log_odds(nodes, self.verdicts)) if self.verdicts else self.tree.labels(nodes).exp()


@dataclass(frozen=True)
class ChoiceTail:
    """A row's own choices: a chain each, which sees no other."""

    choices: tuple[tuple[int, ...], ...]

    @cached_property
    def fed_tokens(self) -> tuple[int, ...]:
        """All but each one's last."""
        return tuple(token for choice in self.choices for token in choice[:-1])

    @cached_property
    def fed_depths(self) -> tuple[int, ...]:
        """From 1 on in each."""
        return tuple(depth for choice in self.choices for depth in range(1, len(choice)))

    @cached_property
    def ancestors(self) -> Bool[Tensor, "F F"]:
        """A token sees itself and those of its own choice before it."""
        chain = torch.tensor([number for number, choice in enumerate(self.choices) for _ in choice[:-1]])
        same: Tensor = chain[:, None] == chain[None]
        return same.tril()

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """For every token of every choice, the place before it."""
        found, start = [], 0
        for choice in self.choices:
            found += [BEFORE, *range(start, start + len(choice) - 1)]
            start += len(choice) - 1
        return tuple(found)

    @property
    def group(self) -> Hashable:
        """Each row is its own."""
        return id(self)

    def probabilities(self, trunk: Trunk, states: Float[Tensor, "B R H"]) -> Float[Tensor, "B C"]:
        """From logits over the whole vocabulary."""
        assert len(states) == 1, "a row's choices are its own"
        said = torch.tensor([token for choice in self.choices for token in choice], device=states.device)
        logits = trunk.logits(states[0]).float()
        found = logits.gather(1, said[:, None])[:, 0] - torch.logsumexp(logits, -1)
        means = [part.mean() for part in torch.split(found, [len(choice) for choice in self.choices])]
        return torch.softmax(torch.stack(means), 0)[None]

    def alone(self, engine: Engine, row: Encoded, forms: Sequence[Form]) -> Float[Tensor, " C"]:
        """By the engine."""
        return torch.softmax(choose(engine, [row], forms)[0], -1)
