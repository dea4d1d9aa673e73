"""The trie of the labels' tokens: classification with labels of any number of tokens.

    p(label | x) = ∏ over the branching nodes on the label's path   softmax over the node's children [the child taken]

A node with one child decides nothing and costs nothing. A label that begins another label ("calendar",
"calendar_update") gets an end child, so that the leaves always sum to one. The loss of a row is the sum of the
cross-entropies at the branching nodes of the right label's path; prediction scores all branching nodes at once and takes
the exact best leaf.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from epigraph.errors import TaskError

ROOT = 0


@dataclass(frozen=True)
class Node:
    """A node: the token that leads here, its parent, its depth (root: 0), its children as token → node number."""

    token: int
    parent: int
    depth: int
    children: dict[int, int]


@dataclass(frozen=True)
class LabelTrie:
    """The tokens of every label as a tree; ``end`` is the token that closes a label which begins another one."""

    labels: tuple[str, ...]
    paths: tuple[tuple[int, ...], ...]
    nodes: tuple[Node, ...]

    @classmethod
    def build(cls, tokens: Mapping[str, Sequence[int]], end: int) -> "LabelTrie":
        """The trie of ``tokens`` (label → token ids). TaskError if two labels have the same tokens or one has none."""
        labels = tuple(tokens)
        sequences = [tuple(tokens[label]) for label in labels]
        _check_distinct(labels, sequences)
        begins = {s[:n] for s in sequences for n in range(1, len(s))}
        nodes = [Node(-1, -1, 0, {})]
        paths = tuple(_insert(nodes, (*s, end) if s in begins else s) for s in sequences)
        return cls(labels, paths, tuple(nodes))

    @cached_property
    def branching(self) -> tuple[int, ...]:
        """Nodes with more than one child, in order of depth."""
        found = [i for i, node in enumerate(self.nodes) if len(node.children) > 1]
        return tuple(sorted(found, key=lambda i: (self.nodes[i].depth, i)))

    @cached_property
    def fed(self) -> tuple[int, ...]:
        """The nodes whose tokens the base must read to score every branching node: parents before children, no root."""
        needed = {ancestor for node in self.branching for ancestor in self.ancestors(node)}
        return tuple(sorted(needed - {ROOT}, key=lambda i: (self.nodes[i].depth, i)))

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        """Every token that is a child of a branching node: the only rows of the head that are multiplied."""
        return tuple(sorted({token for i in self.branching for token in self.nodes[i].children}))

    def ancestors(self, node: int) -> list[int]:
        """The node itself and all above it."""
        chain = []
        while node >= 0:
            chain.append(node)
            node = self.nodes[node].parent
        return chain

    def decisions(self, label: int) -> list[tuple[int, int]]:
        """The (branching node, child token) pairs on the path of the label with this number."""
        path = self.paths[label]
        return [
            (node, self.nodes[child].token)
            for node, child in zip((ROOT, *path[:-1]), path, strict=True)
            if len(self.nodes[node].children) > 1
        ]

    def spoken(self, label: int) -> list[int]:
        """The tokens of a label up to its last branching node: what must be read to compute its loss."""
        last = max(node for node, _ in self.decisions(label)) if self.decisions(label) else ROOT
        return [self.nodes[i].token for i in reversed(self.ancestors(last)) if i != ROOT]

    def index(self, label: str) -> int:
        """The number of a label, -1 if it is not among the labels."""
        return self._numbers.get(label, -1)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}


def _insert(nodes: list[Node], tokens: Sequence[int]) -> tuple[int, ...]:
    path, at = [], ROOT
    for token in tokens:
        if token not in nodes[at].children:
            nodes[at].children[token] = len(nodes)
            nodes.append(Node(token, at, nodes[at].depth + 1, {}))
        at = nodes[at].children[token]
        path.append(at)
    return tuple(path)


def _check_distinct(labels: Sequence[str], sequences: Sequence[tuple[int, ...]]) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for label, tokens in zip(labels, sequences, strict=True):
        if not tokens:
            raise TaskError(f"label {label!r} has no words.", "Give it words under [labels] in the task TOML.")
        if tokens in seen:
            raise TaskError(
                f"labels {seen[tokens]!r} and {label!r} have the same words for this base.",
                "Give them different words under [labels] in the task TOML.",
            )
        seen[tokens] = label
    if len(labels) < 2:
        raise TaskError(f"a classification needs two labels or more; found {', '.join(labels) or 'none'}.")
