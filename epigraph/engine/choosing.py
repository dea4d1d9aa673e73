"""Choices of a row's own, scored in one pass: they hang side by side on the row's text, which is read once.

    score(c) = (1/|c|) · Σ over its tokens of log p(token | text, prompt, the choice's tokens before it)        in nats

    frozen            own stream                            tail: a chain a choice, which sees no other
    [segment 0]       [prompt] [segment 1] …                [choice 1] [choice 2] …

Source: the likelihood a token of Brown et al. 2020, section 2.4 (https://arxiv.org/abs/2005.14165). A base that is run by
plain concatenation reads the row anew for every choice.
"""

from collections.abc import Sequence
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor

from epigraph.engine.assembly import Asked
from epigraph.engine.engine import Engine, Pass
from epigraph.engine.stream import Tail
from epigraph.prompts import AnyForm
from epigraph.tasks.encode import Encoded

STATES_AT_ONCE = 256  # whose logits over the whole vocabulary are held at once where no gradient is wanted
LOGITS_BYTES = 1 << 29  # of logits in one step with gradient


def choice_scores(engine: Engine, rows: Sequence[Encoded], prompts: Asked) -> Float[Tensor, "B X"]:
    """The score of every choice of every row, −inf beyond a row's last."""
    if engine.plain:
        return _scores_plainly(engine, rows, prompts)
    tail = Tail(
        [list(chain.from_iterable(c[:-1] for c in row.choices)) for row in rows],
        chains=[[number for number, c in enumerate(row.choices) for _ in c[:-1]] for row in rows],
    )
    done = engine.forward_side_by_side(rows, prompts, tail)
    ends = done.stream.ends.tolist()
    places = []
    for b, row in enumerate(rows):
        at = ends[b]
        for number, tokens in enumerate(row.choices):
            columns = [ends[b] - 1, *range(at, at + len(tokens) - 1)]
            places += [(b, column, number, token) for column, token in zip(columns, tokens, strict=True)]
            at += len(tokens) - 1
    return _means(engine, done, torch.tensor(places), _counts(rows))


def _scores_plainly(engine: Engine, rows: Sequence[Encoded], prompts: Asked) -> Float[Tensor, "B X"]:
    each, counts = len(rows) // len(prompts), _counts(rows)
    found = []
    for s, forms in enumerate(prompts):
        own = range(s * each, (s + 1) * each)
        pairs = [(b - own.start, number, tokens) for b in own for number, tokens in enumerate(rows[b].choices)]
        done = engine.forward([rows[own[b]] for b, _, _ in pairs], forms, Tail([tokens[:-1] for _, _, tokens in pairs]))
        ends = done.stream.ends.tolist()
        places = [(i, ends[i] - 1 + k, i, t) for i, (_, _, tokens) in enumerate(pairs) for k, t in enumerate(tokens)]
        one_each = torch.tensor(places)
        one_each[:, 2] = 0
        means = _means(engine, done, one_each, torch.tensor([[len(tokens)] for _, _, tokens in pairs]))[:, 0]
        part = torch.full((each, counts.shape[1]), float("-inf"), device=means.device)
        row, number = (torch.tensor([pair[i] for pair in pairs], device=means.device) for i in (0, 1))
        found.append(part.index_put((row, number), means))
    return torch.cat(found)


def _counts(rows: Sequence[Encoded]) -> Int[Tensor, "B X"]:
    """The tokens of every choice, 0 beyond a row's last."""
    widest = max(len(row.choices) for row in rows)
    return torch.tensor([[len(c) for c in row.choices] + [0] * (widest - len(row.choices)) for row in rows])


def _means(engine: Engine, done: Pass, places: Int[Tensor, "N 4"], counts: Int[Tensor, "B X"]) -> Float[Tensor, "B X"]:
    """The mean log probability of every choice; ``places`` are rows, columns, choices and the tokens said there."""
    device = engine.base.device
    seen, which = torch.unique(places[:, :2], dim=0, return_inverse=True)  # the first tokens of a row share a state
    token = places[:, 3]
    said = torch.cat(_log_probabilities(engine, done, seen.to(device), which.to(device), token.to(device)))
    order = torch.argsort(which, stable=True).to(device)
    flat = (places[:, 0] * counts.shape[1] + places[:, 2]).to(device)[order]
    sums = torch.zeros(counts.numel(), device=device).index_add(0, flat, said).view(counts.shape)
    counts = counts.to(device)
    return (sums / counts.clamp(min=1)).masked_fill(counts == 0, float("-inf"))


def _log_probabilities(
    engine: Engine, done: Pass, seen: Tensor, which: Int[Tensor, "N"], token: Int[Tensor, "N"]
) -> list[Float[Tensor, "M"]]:
    """log p of each token at its state, in the order of the states; a part of them at a time."""
    step = len(seen) if torch.is_grad_enabled() else STATES_AT_ONCE
    order = torch.argsort(which, stable=True)
    which, token = which[order], token[order]
    found = []
    for start in range(0, len(seen), step):
        part = seen[start : start + step]
        inside = (which >= start) & (which < start + step)
        logits = engine.trunk.logits(done.at(part[:, 0], part[:, 1]))
        picked = logits[which[inside] - start, token[inside]]
        found.append(picked - torch.logsumexp(logits, -1)[which[inside] - start])
    return found


@torch.no_grad()
def choose(engine: Engine, rows: Sequence[Encoded], forms: Sequence[AnyForm]) -> Float[Tensor, "N X"]:
    """``choice_scores`` of any number of rows, batch by batch, without gradient."""
    widest = max((len(row.choices) for row in rows), default=0)
    found = torch.full((len(rows), widest), float("-inf"))
    for chosen in engine.batches(rows):
        scores = choice_scores(engine, [rows[i] for i in chosen], [forms]).cpu()
        found[torch.tensor(chosen), : scores.shape[1]] = scores
    return found


def rows_at_once(engine: Engine, rows: Sequence[Encoded], prompts: int) -> int:
    """How many of such rows of each prompt one pass with gradient may take, its logits over the vocabulary included."""
    tokens = max(sum(map(len, row.choices)) for row in rows)
    logits = tokens * int(engine.base.head.weight.shape[0]) * 4 * prompts
    copies = max(len(row.choices) for row in rows) if engine.plain else 1
    return max(1, min(engine.rows_a_step(rows, prompts * copies), LOGITS_BYTES // logits))
