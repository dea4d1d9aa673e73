"""Generation from a prompted base: the first pass reads what follows the frozen text, then one token a step.

past ← past + own keys and values;   token ← argmax logits(last state), or what ``pick`` takes

A base that is run by plain concatenation has no past: it reads the whole text again for every token.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from epigraph.engine.attention import Blocks, PaddedPast
from epigraph.engine.engine import Engine, Pass
from epigraph.engine.stream import Tail
from epigraph.engine.trunk import stack_captured
from epigraph.prompts import AnyForm
from epigraph.tasks.encode import Encoded

Pick = Callable[[Float[Tensor, "B V"]], Int[Tensor, "B"]]
"""From the logits of a batch to a token each."""


def likeliest(logits: Float[Tensor, "B V"]) -> Int[Tensor, "B"]:
    """Greedy: the token with the largest logit."""
    return logits.argmax(-1)


@torch.no_grad()
def generate(
    engine: Engine,
    rows: Sequence[Encoded],
    forms: Sequence[AnyForm],
    limit: int,
    stop: Sequence[str] = (),
    pick: Pick = likeliest,
) -> list[list[int]]:
    """The likeliest token at every step (or what ``pick`` takes), up to the end token or ``limit`` tokens; without it.

    A row also ends with the token that completes one of the texts ``stop``, which may begin and end within tokens: what
    stands before it is ``before_stop`` of the text.
    """
    found: list[list[int]] = [[] for _ in rows]
    generate_batch = _generate_plainly if engine.plain else _generate_batch
    for chosen in engine.batches(rows, limit):
        answers = generate_batch(engine, [rows[i] for i in chosen], forms, limit, stop, pick)
        for i, tokens in zip(chosen, answers, strict=True):
            found[i] = tokens
    return found


def before_stop(text: str, stop: Sequence[str]) -> str:
    """The text up to the first of these words."""
    return text[: min((at for at in map(text.find, stop) if at >= 0), default=len(text))]


def _is_stopped(engine: Engine, tokens: Sequence[int], stop: Sequence[str]) -> bool:
    if not stop:
        return False
    text = engine.base.detokenize(tokens)
    return any(word in text for word in stop)


def _generate_batch(
    engine: Engine, rows: Sequence[Encoded], forms: Sequence[AnyForm], limit: int, stop: Sequence[str], pick: Pick
) -> list[list[int]]:
    return go_on(engine, engine.forward(rows, forms, Tail([()] * len(rows)), capture=True), limit, stop, pick)


def go_on(engine: Engine, done: Pass, limit: int, stop: Sequence[str] = (), pick: Pick = likeliest) -> list[list[int]]:
    """The likeliest tokens (or what ``pick`` takes) after a pass without tails whose keys and values were captured."""
    base, B = engine.base, len(done.hidden)
    last = (done.stream.ends - 1).to(base.device)
    token = pick(engine.trunk.logits(done.at(torch.arange(B, device=base.device), last)))
    growing = _Growing(engine, done, limit)
    answers: list[list[int]] = [[] for _ in range(B)]
    running = [True] * B
    for _ in range(limit):
        for b, t in enumerate(token.tolist()):
            running[b] = running[b] and t != base.end
            if running[b]:
                answers[b].append(t)
                running[b] = not _is_stopped(engine, answers[b], stop)
        if not any(running):
            break
        token = pick(engine.trunk.logits(growing.step(token)))
    return answers


def _generate_plainly(
    engine: Engine, rows: Sequence[Encoded], forms: Sequence[AnyForm], limit: int, stop: Sequence[str], pick: Pick
) -> list[list[int]]:
    answers: list[list[int]] = [[] for _ in rows]
    running = list(range(len(rows)))
    for _ in range(limit):
        so_far = [answers[b] for b in running]
        done = engine.forward([rows[b] for b in running], forms, Tail(so_far))
        last = done.stream.ends - 1 + torch.tensor([len(tokens) for tokens in so_far])
        device = engine.base.device
        hidden = done.at(torch.arange(len(running), device=device), last.to(device))
        found = pick(engine.trunk.logits(hidden)).tolist()
        going = [(b, token) for b, token in zip(running, found, strict=True) if token != engine.base.end]
        for b, token in going:
            answers[b].append(token)
        running = [b for b, _ in going if not _is_stopped(engine, answers[b], stop)]
        if not running:
            break
    return answers


class _Growing:
    """Frozen text, own stream and generated tokens of a batch as one growing past."""

    def __init__(self, engine: Engine, done: Pass, limit: int) -> None:
        self.base, self.trunk = engine.base, engine.trunk
        keys, values = stack_captured(done.blocks)  # [L, B, A, Q, D]
        stream, before, device = done.stream, done.blocks.past, self.base.device
        columns = torch.arange(stream.ids.shape[1], device=device)[None]
        ends = stream.ends.to(device)
        L, B, A, Q, D = keys.shape
        assert before is None or isinstance(before, PaddedPast)
        T = before.keys.shape[3] if before else 0
        self.used = T + Q
        room = (L, B, A, self.used + limit, D)
        self.past = PaddedPast(
            torch.zeros(B, self.used + limit, dtype=torch.long, device=device),
            torch.zeros(B, self.used + limit, dtype=torch.bool, device=device),
            keys.new_zeros(room),
            values.new_zeros(room),
        )
        if before:
            self._write(slice(0, T), before.keys, before.values, before.positions, before.valid)
        seen = columns < ends[:, None]
        if done.blocks.unseen is not None:
            seen = seen & ~done.blocks.unseen
        self._write(slice(T, self.used), keys, values, done.blocks.positions, seen)
        self.shared = done.blocks.shared
        if self.shared is not None:
            self.shared.visible = None
        last = (ends - 1)[:, None]
        self.position = torch.gather(done.blocks.positions, 1, last) + 1

    def _write(self, where: slice, keys: Tensor, values: Tensor, positions: Tensor, valid: Tensor) -> None:
        self.past.keys[:, :, :, where] = keys
        self.past.values[:, :, :, where] = values
        self.past.positions[:, where] = positions
        self.past.valid[:, where] = valid

    def step(self, token: Tensor) -> Tensor:
        """Read one token a row; its last state [B, H]."""
        seen = slice(0, self.used)
        past = PaddedPast(
            self.past.positions[:, seen],
            self.past.valid[:, seen],
            self.past.keys[:, :, :, seen],
            self.past.values[:, :, :, seen],
        )
        itself = torch.ones(1, 1, 1, dtype=torch.bool, device=token.device)
        blocks = Blocks(self.position, itself, past=past, shared=self.shared, captured={})
        hidden = self.trunk.run(self.base.embed(token[:, None]), blocks)
        keys, values = stack_captured(blocks)
        valid = torch.ones_like(self.position, dtype=torch.bool)
        self._write(slice(self.used, self.used + 1), keys, values, self.position, valid)
        self.used += 1
        self.position = self.position + 1
        return hidden[:, 0]
