"""By how much one answer is given, for every kind of task: F of one row, for any vectors of its tokens and any forms.

    one label, a choice   F = log p(answer) − log p(next best)
    several labels        F = ± (log-odds of the likeliest label − log-odds of the threshold), + where it is given
    written               F = log p(first token) − log p(second best token)

The answer is that of ``predict``: read off as ``methods/judge.py`` does (of labels with an order the median, where the metric asks for
it), from probabilities calibrated as the card says.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from epigraph.engine.inspection import Look, Seen, inspect, label_tail, tree_scores
from epigraph.engine.stream import SLOT, Tail
from epigraph.explaining.case import Case
from epigraph.explaining.judged import said
from epigraph.methods import judge
from epigraph.prompts import Form, KeyValue
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row


class Margin:
    """The answer to one row, what it is held against, and F."""

    def __init__(self, case: Case, row: Row) -> None:
        self.case, self.row = case, row
        (self.encoded,) = case.method.encode([row])
        self.bias = torch.zeros(())
        with torch.no_grad():
            self.seen = self._pass(1, case.forms, Look())
            self.bias = self._calibration(self._raw(self.seen)[0])
            scores = self._scores(self.seen)[0]
        self.best, self.second, self.sign = self._places(scores)
        self.answer, self.instead = self._words()
        self.whole = float(self.of(self.seen)[0])
        self.end = int(self.seen.stream.ends[0])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The labels or the row's choices; none where answers are written."""
        return self.row.choices or self.case.labels

    @cached_property
    def found(self) -> judge.Answers:
        """What ``predict`` answers."""
        return judge.answer(self.case.method, [self.row])

    @property
    def probabilities(self) -> dict[str, float]:
        """The probability of every label or choice, as ``predict`` gives it."""
        if self.found.probabilities is None:
            return {}
        return {name: float(p) for name, p in zip(self.names, self.found.probabilities[0], strict=False)}

    def of(self, seen: Seen) -> Tensor:
        """F of every row of a pass."""
        scores = self._scores(seen)
        if self._sets:
            return self.sign * (scores[:, self.best] - _logit(self.case.task.threshold))
        return scores[:, self.best] - scores[:, self.second]

    def at(self, forms: Sequence[Form], look: Look, copies: int = 1) -> Tensor:
        """F under these forms and this look."""
        return self.of(self._pass(copies, forms, look))

    def parts(self) -> list[tuple[str, bool]]:
        """What stands in every column, then every vector of keys and values; and whether it is of the prompt."""
        decode, number = self.case.engine.base.tokenizer.decode, 0
        found = []
        for token in self.seen.stream.ids[0, : self.end].tolist():
            number += token == SLOT
            found.append((f"vector {number}", True) if token == SLOT else (decode([token]), False))
        keyed = sum(f.length for f in self.case.forms if isinstance(f, KeyValue))
        return found + [(f"vector {i + 1}", True) for i in range(keyed)]

    @cached_property
    def said(self) -> Bool[Tensor, "Q"]:
        """Which columns the row says itself: no vector, and no token that the template puts before or behind what the row says."""
        blank = self.case.method.encoder.encode(replace(self.row, fields=dict.fromkeys(self.row.fields, "")))
        of_row = torch.cat([_differs(a, b) for a, b in zip(self.encoded.segments, blank.segments, strict=True)])
        found = torch.zeros(self.seen.stream.ids.shape[1], dtype=torch.bool)
        tokens = self.seen.stream.ids[0, : self.end] != SLOT
        found[: self.end][tokens] = of_row
        return found

    @property
    def _sets(self) -> bool:
        return self.case.task.knows_labels and not self.case.has_labels

    def _pass(self, copies: int, forms: Sequence[Form], look: Look) -> Seen:
        return inspect(self.case.engine, [self.encoded] * copies, forms, self._tail(copies), look)

    def _tail(self, copies: int) -> Tail:
        if self.case.task.knows_labels:
            return label_tail(self.case.method.tree, copies)
        choices = self.encoded.choices
        if not choices:
            return Tail([()] * copies)
        fed = list(chain.from_iterable(c[:-1] for c in choices))
        return Tail([fed] * copies, chains=[[n for n, c in enumerate(choices) for _ in c[:-1]]] * copies)

    def _scores(self, seen: Seen) -> Tensor:
        """Log probabilities of labels, choices or first tokens, or log-odds of labels each by itself; calibrated, up to a constant."""
        raw = self._raw(seen)
        return raw + self.bias.to(raw.device, raw.dtype)

    def _raw(self, seen: Seen) -> Tensor:
        engine, method = self.case.engine, self.case.method
        if self._sets:
            return method.log_odds(_nodes(self.case, seen))
        if self.case.has_labels:
            return tree_scores(engine, seen.hidden, seen.stream.ends, method.tree)
        if self.encoded.choices:
            return torch.log_softmax(_choice_means(self.case, self.encoded, seen), -1)
        at = torch.arange(len(seen.hidden), device=seen.hidden.device)
        return torch.log_softmax(engine.trunk.logits(seen.hidden[at, (seen.stream.ends - 1).to(at.device)]), -1)

    def _calibration(self, raw: Tensor) -> Tensor:
        """What the card's calibration adds: the same for this row whatever its forms are."""
        if self.case.method.shift is None or self.found.probabilities is None:
            return torch.zeros(())
        p = torch.tensor(np.asarray(self.found.probabilities[0][: len(raw)], dtype=np.float64)).clamp(1e-12, 1 - 1e-12)
        shifted = torch.logit(p) if self._sets else p.log()
        return (shifted - raw.double().cpu()).to(raw.dtype)

    def _places(self, scores: Tensor) -> tuple[int, int, float]:
        """The columns of the answer and of the likeliest other one; of several labels the likeliest, and whether it is given."""
        order = [int(i) for i in scores.argsort(descending=True)]
        if self._sets:
            return order[0], order[0], 1.0 if self.names[order[0]] in self.found.given[0] else -1.0
        best = self.names.index(said(self.found.given[0])) if self.names else order[0]
        return best, next((i for i in order if i != best), best), 1.0

    def _words(self) -> tuple[str, str]:
        if self._sets:
            both = self.names[self.best], f"not {self.names[self.best]}"
            return both if self.sign > 0 else (both[1], both[0])
        decode = self.case.engine.base.tokenizer.decode
        best, second = (self.names[i] if self.names else decode([i]) for i in (self.best, self.second))
        return best, second


def _differs(ids: Sequence[int], blank: Sequence[int]) -> Bool[Tensor, "N"]:
    """Which tokens of a segment stand between what it has in common with a blank one, at its beginning and at its end."""
    before, behind = _alike(ids, blank), _alike(ids[::-1], blank[::-1])
    place = torch.arange(len(ids))
    return (place >= before) & (place < len(ids) - min(behind, len(blank) - min(before, len(blank))))


def _alike(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens are the same from the beginning on."""
    pairs = enumerate(zip(ids, others, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(ids), len(others)))


def _logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))


def _nodes(case: Case, seen: Seen) -> Tensor:
    """log softmax over the children of every branching node of the verdicts [B, X, M]."""
    tree, hidden = case.method.tree, seen.hidden
    columns = (seen.stream.ends[:, None] + torch.tensor(tree.reads)[None]).to(hidden.device)
    row = torch.arange(len(hidden), device=hidden.device)[:, None].expand_as(columns)
    logits = case.engine.trunk.logits(hidden[row.reshape(-1), columns.reshape(-1)], tree.trie.tokens, tree.rows)
    node = torch.arange(len(tree.reads), device=hidden.device)[None].expand(len(hidden), -1)
    return tree.children(logits.view(len(hidden), len(tree.reads), -1), node)


def _choice_means(case: Case, row: Encoded, seen: Seen) -> Tensor:
    """The mean log probability a token of every choice [B, X]; all rows of the pass are copies of one."""
    end, at, found = int(seen.stream.ends[0]), int(seen.stream.ends[0]), []
    for tokens in row.choices:
        columns = [end - 1, *range(at, at + len(tokens) - 1)]
        at += len(tokens) - 1
        states = seen.hidden[:, columns]
        logits = case.engine.trunk.logits(states.reshape(-1, states.shape[-1])).view(*states.shape[:2], -1)
        chosen = torch.log_softmax(logits, -1)[:, range(len(tokens)), list(tokens)]
        found.append(chosen.mean(1))
    return torch.stack(found, 1)
