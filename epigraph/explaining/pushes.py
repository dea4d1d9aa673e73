"""What it pushes: the base's next-token distribution with the prompt against without, and where in depth that happens.

    push(v)  = mean over rows of   log p(v | row, prompt) − log p(v | row)
    mass_l,h = mean over rows of   Σ_{j in prompt} a_l,h(answer position, j)
    lens_l   = head(norm(state after layer l at the answer position))        nostalgebraist 2020, "logit lens"

Tokens are listed by their part of the divergence, p · push, since a rare token's log-probability moves much for nothing. The lens of
an early layer is a reading by the last layer's head: it shows when the decision can be read off, not when it was made.
Source of the lens: https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from epigraph.engine.inspection import Look, Seen, final_norm, inspect
from epigraph.engine.stream import Tail
from epigraph.explaining.case import Case, pick
from epigraph.metrics import Interval
from epigraph.prompts import Form
from epigraph.prompts.shown import without
from epigraph.tasks.encode import Encoded
from epigraph.tasks.trie import ROOT

TOKENS = 12
SETTLED = 0.9


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """A token: the mean change of its log-probability (nats), and its mean probability with and without the prompt."""

    token: str
    change: float
    with_prompt: float
    without_prompt: float


@dataclass(frozen=True, kw_only=True)
class Pushes:
    """What the prompt does to the output. ``mass`` is [layer][head]; ``lens_*`` the share of rows whose final answer can be read
    off after each layer; ``settled`` the first layer (from 1) after which 90% can be and stay so, 0 where none."""

    divergence: Interval
    up: tuple[Pushed, ...]
    down: tuple[Pushed, ...]
    mass: tuple[tuple[float, ...], ...]
    share_of_positions: float
    lens_with: tuple[float, ...]
    lens_without: tuple[float, ...]
    settled: int
    rows: int
    how: str


@torch.no_grad()
def measure_push(case: Case, most_rows: int = 48, most_looked: int = 16) -> Pushes:
    """Compare the output with and without the prompt, and look into the pass."""
    among = pick(case, most_rows)
    rows = [case.encoded[i] for i in among]
    forms = case.forms
    nothing = [without(form, []) for form in forms]
    prompted, bare = _log_probabilities(case, rows, forms), _log_probabilities(case, rows, nothing)
    change = (prompted - bare).mean(0)
    p, q = prompted.exp().mean(0), bare.exp().mean(0)
    divergence = (prompted.exp() * (prompted - bare)).sum(1).numpy()
    looked = rows[:most_looked]
    mass, part = _mass(case, looked, forms)
    with_prompt, without_prompt = _lens(case, looked, forms), _lens(case, looked, nothing)
    return Pushes(
        divergence=_mean(divergence, case.config.seed),
        up=_listed(case, (p * change).topk(TOKENS).indices, change, p, q),
        down=_listed(case, (q * change).topk(TOKENS, largest=False).indices, change, p, q),
        mass=mass,
        share_of_positions=part,
        lens_with=with_prompt,
        lens_without=without_prompt,
        settled=_settled(with_prompt),
        rows=len(rows),
        how=f"The next token after {len(rows)} rows of {case.source}, with the prompt and with nothing in its place; attention and "
        f"depth on {len(looked)} of them.",
    )


def _log_probabilities(case: Case, rows: Sequence[Encoded], forms: Sequence[Form]) -> Tensor:
    """log p over the vocabulary at the answer position [N, V]."""
    engine = case.engine
    found = [torch.empty(0)] * len(rows)
    for chosen in engine.batches(rows):
        done = engine.forward([rows[i] for i in chosen], forms, Tail([()] * len(chosen)))
        at = torch.arange(len(chosen), device=engine.base.device)
        logits = engine.trunk.logits(done.at(at, (done.stream.ends - 1).to(at.device)))
        for i, line in zip(chosen, torch.log_softmax(logits, -1).cpu(), strict=True):
            found[i] = line
    return torch.stack(found)


def _listed(case: Case, tokens: Tensor, change: Tensor, p: Tensor, q: Tensor) -> tuple[Pushed, ...]:
    return tuple(
        Pushed(
            token=case.engine.base.tokenizer.decode([int(t)]),
            change=float(change[t]),
            with_prompt=float(p[t]),
            without_prompt=float(q[t]),
        )
        for t in tokens.tolist()
    )


def _look(case: Case, row: Encoded, forms: Sequence[Form], look: Look) -> Seen:
    return inspect(case.engine, [row], forms, Tail([()]), look)


def _mass(case: Case, rows: Sequence[Encoded], forms: Sequence[Form]) -> tuple[tuple[tuple[float, ...], ...], float]:
    """Attention mass on the prompt by layer and head, and the prompt's share of what could be read."""
    total: Tensor | None = None
    length, parts = sum(form.length for form in forms), []
    for row in rows:
        seen = _look(case, row, forms, Look(weights=True))
        prompt, end = seen.prompt_columns(forms)[0], int(seen.stream.ends[0]) - 1
        found = torch.stack(
            [w[0, :, end, :][:, prompt.to(w.device)].sum(-1).float().cpu() for _, w in sorted(seen.weights.items())]
        )
        total = found if total is None else total + found
        parts.append(length / max(1, row.length + length))
    assert total is not None
    mass = tuple(tuple(float(m) for m in line) for line in total / len(rows))
    return mass, float(np.mean(parts))


def _lens(case: Case, rows: Sequence[Encoded], forms: Sequence[Form]) -> tuple[float, ...]:
    """The share of rows whose final answer is read off after each layer."""
    norm, trunk = final_norm(case.engine.base), case.engine.trunk
    tokens = first_tokens(case)
    agreed = []
    for row in rows:
        seen = _look(case, row, forms, Look(states=True))
        end = int(seen.stream.ends[0]) - 1
        states = norm(torch.stack([state[0, end] for state in seen.states[1:]]))
        read = trunk.logits(states, tokens).argmax(-1)
        agreed.append((read == read[-1]).float().cpu())
    return tuple(float(x) for x in torch.stack(agreed).mean(0))


def first_tokens(case: Case) -> list[int] | None:
    """The tokens between which the first decision falls; None where it does not fall at the answer position."""
    trie = case.method.tree.trie if case.has_labels else None
    if trie is None or trie.branching[0] != ROOT:
        return None
    return list(trie.nodes[trie.branching[0]].children)


def _settled(lens: Sequence[float]) -> int:
    below = [layer for layer, agreed in enumerate(lens) if agreed < SETTLED]
    first = below[-1] + 2 if below else 1
    return first if first <= len(lens) else 0


def _mean(values: np.ndarray, seed: int) -> Interval:
    """A mean of any size with its 95% percentile interval over rows."""
    draws = np.random.default_rng(seed).integers(0, len(values), (1000, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high))
