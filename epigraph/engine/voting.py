"""Several prompts vote on the labels of the same rows, side by side in one pass.

    p(label | row) = 1/S Σ_s p_s(label | row)

Source: Lester et al. 2021, section 6, https://arxiv.org/abs/2104.08691: one base serves all members of an ensemble, each row
repeated for each. Differs: probabilities are averaged instead of votes counted, so that two members that doubt do not win
over one that is sure, and the result has probabilities too.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.engine.assembly import Asked
from epigraph.engine.engine import Engine
from epigraph.engine.tree import Tree
from epigraph.tasks.encode import Encoded


@torch.no_grad()
def vote(engine: Engine, rows: Sequence[Encoded], prompts: Asked, tree: Tree) -> Float[Tensor, "N C"]:
    """Log probabilities of every label for every row, averaged over the prompts."""
    S = len(prompts)
    if engine.plain:
        return _mean(torch.stack([engine.classify(rows, forms, tree) for forms in prompts]))
    found = torch.empty(len(rows), len(tree.trie.labels))
    for batch in engine.batches(rows, len(tree.fed_tokens)):
        each = max(1, len(batch) // S)
        for chosen in (batch[i : i + each] for i in range(0, len(batch), each)):
            scores = tree.labels(engine.node_scores([rows[i] for i in chosen] * S, prompts, tree))
            found[chosen] = _mean(scores.cpu().view(S, len(chosen), -1))
    return found


def _mean(scores: Float[Tensor, "S N C"]) -> Float[Tensor, "N C"]:
    return torch.logsumexp(scores.float(), 0) - math.log(len(scores))
