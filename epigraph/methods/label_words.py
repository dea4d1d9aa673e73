"""Words for labels, found in what the base itself would say after texts of each label.

    s(token, c) = mean over rows of c of log p(token | row) − mean over all other rows of log p(token | row)

Source: Schick, Schmid & Schütze 2020 (PETAL), section 4, https://arxiv.org/abs/2010.13641: the likelihood ratio over the
tokens that the base finds likely at all. Differs: whole words only, and no two labels share one.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.engine import Engine
from epigraph.engine.stream import Tail
from epigraph.methods.solver import PromptedBase
from epigraph.tasks.row import Row

ROWS_A_LABEL = 16
LIKELY = 500
MOST_LABELS = 20
_WORD = re.compile(r" [^\W\d_]{3,}")


@torch.no_grad()
def mine_words(solver: PromptedBase, train: Sequence[Row]) -> Mapping[str, str]:
    """Label → the word that tells it apart best; empty where a label has none, or there are more than 20 labels."""
    task, engine = solver.task, solver.engine
    by_label = {label: [row for row in train if row.target == label][:ROWS_A_LABEL] for label in task.labels}
    if len(by_label) > MOST_LABELS or not all(by_label.values()):
        return {}
    means = torch.stack([next_tokens(solver, rows).mean(0) for rows in by_label.values()])  # [C, V]
    likely = means.mean(0).topk(min(LIKELY, means.shape[1])).indices.tolist()
    words = {token: text for token in likely if _WORD.fullmatch(text := _text(engine, token))}
    if len(words) < len(by_label):
        return {}
    tokens = torch.tensor(list(words))
    others = (means.sum(0) - means) / max(1, len(means) - 1)
    telling = (means - others)[:, tokens]
    return _assign(list(by_label), telling, [words[token].strip() for token in tokens.tolist()])


def next_tokens(solver: PromptedBase, rows: Sequence[Row]) -> Float[Tensor, "N V"]:
    """Log probabilities of every token of the vocabulary after each row."""
    engine, encoded = solver.engine, solver.encode(rows)
    found: list[Tensor] = [torch.empty(0)] * len(encoded)
    for chosen in engine.batches(encoded):
        done = engine.forward([encoded[i] for i in chosen], solver.forms, Tail([()] * len(chosen)))
        ends = done.stream.ends.to(engine.base.device) - 1
        logits = engine.trunk.logits(done.at(torch.arange(len(chosen), device=ends.device), ends))
        for place, logit in zip(chosen, logits.log_softmax(-1).cpu(), strict=True):
            found[place] = logit
    return torch.stack(found)


def _assign(labels: Sequence[str], telling: Float[Tensor, "C W"], words: Sequence[str]) -> dict[str, str]:
    """Each label its most telling word; the surest label chooses first."""
    left, found = telling.clone(), dict[str, str]()
    for _ in labels:
        label, word = divmod(int(left.argmax()), len(words))
        found[labels[label]] = words[word]
        left[label], left[:, word] = -torch.inf, -torch.inf
    return {label: found[label] for label in labels}


def _text(engine: Engine, token: int) -> str:
    """A token's own text, its leading space included."""
    return engine.base.detokenize([*engine.base.tokenize("a"), token])[1:]
