"""A label trie as tensors: which positions to read, and from their logits the probability of every label.

log p(label) = Σ over its branching nodes   log softmax(children)[the child taken]
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from epigraph.base import Base
from epigraph.tasks.trie import ROOT, LabelTrie


@dataclass(frozen=True)
class Tree:
    """The trie for one base: rows of the head, fed tokens with their ancestors, decisions of every label."""

    trie: LabelTrie
    rows: Float[Tensor, "R H"]
    fed_tokens: tuple[int, ...]
    fed_depths: tuple[int, ...]
    ancestors: Bool[Tensor, "F F"]
    reads: tuple[int, ...]
    columns: Int[Tensor, "N M"]
    decisions: Int[Tensor, "C X"]

    @classmethod
    def build(cls, trie: LabelTrie, base: Base) -> "Tree":
        """Lay the trie out for this base."""
        number = {node: i for i, node in enumerate(trie.fed)}
        ancestors = torch.zeros(len(trie.fed), len(trie.fed), dtype=torch.bool)
        for node, i in number.items():
            ancestors[i, [number[a] for a in trie.ancestors(node) if a != ROOT]] = True
        return cls(
            trie=trie,
            rows=base.head_rows(trie.tokens),
            fed_tokens=tuple(trie.nodes[n].token for n in trie.fed),
            fed_depths=tuple(trie.nodes[n].depth for n in trie.fed),
            ancestors=ancestors.to(base.device),
            reads=tuple(-1 if n == ROOT else number[n] for n in trie.branching),
            columns=_columns(trie).to(base.device),
            decisions=_decisions(trie).to(base.device),
        )

    def children(self, logits: Float[Tensor, "*X R"], node: Int[Tensor, "*X"]) -> Float[Tensor, "*X M"]:
        """log softmax over the children of each position's node; −inf beyond its last child."""
        columns = self.columns[node]
        picked = torch.gather(logits, -1, columns.clamp(min=0)).masked_fill(columns < 0, float("-inf"))
        return torch.log_softmax(picked, -1)

    def labels(self, children: Float[Tensor, "B N M"]) -> Float[Tensor, "B C"]:
        """log probability of every label from the log softmax at every branching node."""
        flat = torch.cat([children.flatten(1), children.new_zeros(len(children), 1)], 1)
        scores: Tensor = flat[:, self.decisions].sum(-1)
        return scores


def log_odds(nodes: Float[Tensor, "B X M"], decisions: Sequence[tuple[int, int, int]]) -> Float[Tensor, "B C"]:
    """log p(yes) − log p(no) of every label, from the log softmax at every branching node; see ``Verdicts.decisions``."""
    node, yes, no = torch.tensor(decisions, device=nodes.device).T
    odds: Tensor = nodes[:, node, yes] - nodes[:, node, no]
    return odds


def _columns(trie: LabelTrie) -> Tensor:
    """For every branching node the columns of its children among ``trie.tokens``, −1 beyond the last."""
    column = {token: i for i, token in enumerate(trie.tokens)}
    widest = max(len(trie.nodes[n].children) for n in trie.branching)
    rows = [[column[t] for t in trie.nodes[n].children] for n in trie.branching]
    return torch.tensor([row + [-1] * (widest - len(row)) for row in rows])


def _decisions(trie: LabelTrie) -> Tensor:
    """For every label the flat index (node, child) of its decisions; the last index stands for "nothing to decide"."""
    number = {node: i for i, node in enumerate(trie.branching)}
    widest = max(len(trie.nodes[n].children) for n in trie.branching)
    nothing = len(trie.branching) * widest
    rows = [
        [number[node] * widest + list(trie.nodes[node].children).index(token) for node, token in trie.decisions(c)]
        for c in range(len(trie.labels))
    ]
    deepest = max(map(len, rows))
    return torch.tensor([row + [nothing] * (deepest - len(row)) for row in rows])
