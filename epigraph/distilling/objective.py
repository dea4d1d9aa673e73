"""What distilling lowers and watches: the divergence of the student's distribution from the teacher's, from texts alone.

    labels       KL(t ‖ s) = Σ_c t(c) (log t(c) − log s(c)),   the leaves of the label trie, mean over texts
                 + w · Σ_i ‖s_i − t_i‖² / (texts · mean ‖t − t̄‖²),         where the teacher's states are known; w: ``states``
    generation   Σ_k t_k (log t_k − log s_k) + t_r (log t_r − log s_r) at each place of the teacher's greedy answer, mean over
                 places; k: the teacher's K likeliest tokens, r: all other tokens together

Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531, and for prompts Eyuboglu et al. 2025 (Cartridges), section 3,
https://arxiv.org/abs/2506.06266. Differs: labels instead of the vocabulary where the task has labels; the tokens that are not
kept are one, so that what is lowered is a divergence still (never below 0, and 0 where both agree). An answer of which only
the text is known, since the teacher has another vocabulary, is learned as it is: −log s(token). Two labels say one number of a text; the
state that they are read from says H (context distillation by states: Caccia et al. 2025, section 3, https://arxiv.org/abs/2503.08727;
theirs are of all layers and places). Where to stop is chosen by the divergence alone.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from epigraph.distilling.taught import Taught, unpacked
from epigraph.engine.assembly import Asked
from epigraph.engine.stream import Tail
from epigraph.methods.solver import PromptedBase
from epigraph.methods.watched import Watched
from epigraph.prompts import AnyForm
from epigraph.tasks.encode import Encoded, answer_text
from epigraph.tasks.row import Row

METRIC = "minus_divergence"
LEAST_REST = 1e-6


class LabelImitation:
    """Of a teacher that chooses labels. ``lengths``, ``losses`` and the rest are the loop's contract; ``states`` weighs the teacher's
    states, where it tells them."""

    metric = METRIC

    def __init__(
        self,
        solver: PromptedBase,
        train: Sequence[tuple[Row, Taught]],
        validation: Sequence[tuple[Row, Taught]],
        *,
        states: float = 0.0,
    ) -> None:
        self.solver = solver
        self.rows, self.held = solver.encode([row for row, _ in train]), solver.encode([row for row, _ in validation])
        device = solver.engine.base.device
        self.taught = torch.tensor([taught.logs for _, taught in train], device=device)
        self.told = torch.tensor([taught.logs for _, taught in validation])
        self.lengths = [row.length for row in self.rows]
        self.states = None
        if states and all(taught.states for _, taught in train):
            self.states = _States(torch.from_numpy(unpacked([taught for _, taught in train])).to(device), states)

    def weight(self, rows: Sequence[int]) -> float:
        """All texts count alike."""
        return float(len(rows))

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:
        """How many texts of each prompt fit into one pass, the tree included."""
        return self.solver.engine.rows_a_step([self.rows[i] for i in rows], prompts, len(self.solver.tree.fed_tokens))

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Asked) -> list[Tensor]:
        """For each prompt the mean divergence over its texts, in nats, and what its states are off."""
        numbers = [i for each in chosen for i in each]
        engine, tree, rows = self.solver.engine, self.solver.tree, [self.rows[i] for i in numbers]
        which = torch.tensor(numbers, device=self.taught.device)
        if self.states is None:
            return self._means(divergence(self.taught[which], tree.labels(engine.node_scores(rows, prompts, tree))), prompts)
        states = engine.node_states(rows, prompts, tree)
        found = divergence(self.taught[which], tree.labels(engine.scores_of(states, tree)))
        return self._means(found + self.states.off(states.float().flatten(1), which), prompts)

    @staticmethod
    def _means(found: Float[Tensor, "B"], prompts: Asked) -> list[Tensor]:
        return [part.mean() for part in found.chunk(len(prompts))]

    def watch(self, forms: Sequence[AnyForm]) -> Watched:
        """The mean divergence on the texts set aside, turned so that higher is better."""
        logs = self.solver.engine.classify(self.held, forms, self.solver.tree)
        found = -float(divergence(self.told, logs).mean())
        return Watched(found, found)


class _States:
    """The teacher's states [N, X · H], and their weight in units of their own variance."""

    def __init__(self, told: Float[Tensor, "N Y"], weight: float) -> None:
        self.told = told
        self.scale = weight / float((told - told.mean(0)).pow(2).sum(1).mean().clamp(min=1e-12))

    def off(self, states: Float[Tensor, "B Y"], which: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
        """The weighted squared distance of these states from those of the texts ``which``."""
        return self.scale * (states - self.told[which]).pow(2).sum(1)


class AnswerImitation:
    """Of a teacher that writes."""

    metric = METRIC

    def __init__(
        self,
        solver: PromptedBase,
        train: Sequence[tuple[Row, Taught]],
        validation: Sequence[tuple[Row, Taught]],
    ) -> None:
        self.solver = solver
        self.rows, self.held = ([self._encode(row, taught) for row, taught in part] for part in (train, validation))
        self.taught, self.told = [taught for _, taught in train], [taught for _, taught in validation]
        self.lengths = [row.length for row in self.rows]

    def _encode(self, row: Row, taught: Taught) -> Encoded:
        (encoded,) = self.solver.encode([row])
        return replace(encoded, answer=taught.ids or tuple(self._spelled(taught.text)))

    def _spelled(self, text: str) -> list[int]:
        """The student's own tokens for a text."""
        base = self.solver.engine.base
        said = answer_text(self.solver.template, text)
        return [*base.tokenize(said)[: self.solver.output_tokens - 1], base.end]

    def weight(self, rows: Sequence[int]) -> float:
        """The texts' places."""
        return float(sum(len(self.rows[i].answer) for i in rows))

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:
        """How many texts of each prompt fit into one pass."""
        return self.solver.engine.rows_a_step([self.rows[i] for i in rows], prompts)

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Asked) -> list[Tensor]:
        """For each prompt the mean over all places of its texts' answers, in nats."""
        numbers = [i for each in chosen for i in each]
        found, row = self._each([self.rows[i] for i in numbers], [self.taught[i] for i in numbers], prompts)
        owner = row // len(chosen[0])
        return [found[owner == s].mean() for s in range(len(prompts))]

    def _each(
        self, rows: Sequence[Encoded], taught: Sequence[Taught], prompts: Asked
    ) -> tuple[Float[Tensor, "X"], Int[Tensor, "X"]]:
        """The divergence at every place, and the row it belongs to."""
        logs, row = answer_logs(self.solver, rows, prompts)
        ids = torch.tensor([token for r in rows for token in r.answer], device=logs.device)
        found = -logs.gather(1, ids[:, None])[:, 0]
        places = torch.tensor([bool(t.top) for t, r in zip(taught, rows, strict=True) for _ in r.answer], device=logs.device)
        if bool(places.any()):
            top = torch.tensor([list(one) for t in taught for one in t.top], device=logs.device)
            theirs = torch.tensor([list(one) for t in taught for one in t.top_logs], device=logs.device)
            found = found.masked_scatter(places, coarse_divergence(theirs, logs[places].gather(1, top)))
        return found, row

    @torch.no_grad()
    def watch(self, forms: Sequence[AnyForm]) -> Watched:
        """The mean over all places of the answers set aside, turned so that higher is better."""
        total, places = 0.0, 0
        for batch in self.solver.engine.batches(self.held):
            found, _ = self._each([self.held[i] for i in batch], [self.told[i] for i in batch], [forms])
            total, places = total + float(found.sum()), places + len(found)
        return Watched(-total / max(1, places), -total / max(1, places))


def answer_logs(
    solver: PromptedBase, rows: Sequence[Encoded], prompts: Asked
) -> tuple[Float[Tensor, "X V"], Int[Tensor, "X"]]:
    """log p of every token at every place of the rows' answers, and the row of each place."""
    done = solver.engine.forward_side_by_side(rows, prompts, Tail([row.answer[:-1] for row in rows]))
    ends = done.stream.ends
    places = [(b, int(ends[b]) - 1 + i) for b, row in enumerate(rows) for i in range(len(row.answer))]
    row, column = torch.tensor(places, device=solver.engine.base.device).T
    return torch.log_softmax(solver.engine.trunk.logits(done.at(row, column)), -1), row


def divergence(theirs: Float[Tensor, "B C"], ours: Float[Tensor, "B C"]) -> Float[Tensor, "B"]:
    """KL(theirs ‖ ours) of distributions given by their logarithms."""
    return (theirs.exp() * (theirs - ours)).sum(1)


def coarse_divergence(theirs: Float[Tensor, "X K"], ours: Float[Tensor, "X K"]) -> Float[Tensor, "X"]:
    """The same where K tokens are known and all others are one."""
    rest = [(1 - logs.exp().sum(1)).clamp(min=LEAST_REST) for logs in (theirs, ours)]
    return divergence(theirs, ours) + rest[0] * (rest[0].log() - rest[1].log())
