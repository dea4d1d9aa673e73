"""How often a greedy text that is computed beside others differs from the same request served alone, and why.

In a mix a row's products are summed in another order than alone, so its logits may round otherwise. Where two runs part, the same
text stands before both, and each prefers its own token to the other's by its ``lead`` (a difference of two logits). The rounding
explains it if that is at most ``STEPS`` steps of the dtype at the size of the logits (16 to 32: 1/8 in bf16): either token's
logit may be a step off. ``noise`` is seen, not assumed: the widest difference of one token's log probability while both agree.
"""

import math
from collections.abc import Sequence
from functools import partial
from threading import Semaphore
from typing import Any

import torch
from measuring import verdict

from epigraph.base import Base
from epigraph.engine.plain import plain_states
from epigraph.serve.batcher import Batcher
from epigraph.serve.work import EndEvent, Event, Generation, TokenEvent
from epigraph.tasks.encode import Encoded

STEPS = 2
LIKELY = 20  # tokens of each run whose log probabilities are seen
FP32 = 1e-4  # what is asked of fp32, whose steps are finer than sums in another order
Piece = dict[str, Any]


def said(batcher: Batcher, jobs: Sequence[Generation], at_once: int) -> list[list[TokenEvent]]:
    """The tokens of every job, with so many in flight."""
    heard: list[list[TokenEvent]] = [[] for _ in jobs]
    room = Semaphore(at_once)

    def hear(number: int, event: Event) -> None:
        if isinstance(event, TokenEvent):
            heard[number].append(event)
        elif isinstance(event, EndEvent):
            assert event.error is None, event.error
            room.release()

    for number, job in enumerate(jobs):
        room.acquire()
        batcher.submit(job, partial(hear, number))
    for _ in range(at_once):  # until the last have ended
        room.acquire()
    return heard


def compare(base: Base, jobs: Sequence[Generation], mixed: list[list[TokenEvent]], alone: list[list[TokenEvent]]) -> Piece:
    """What became of these texts: how many there are, where they part, and the noise where they do not."""
    parted, noise = [], 0.0
    for job, one, other in zip(jobs, mixed, alone, strict=True):
        agreed = next((n for n, (a, b) in enumerate(zip(one, other, strict=True)) if a.token != b.token), len(one))
        pairs = zip(one[:agreed], other[:agreed], strict=True)
        noise = max([noise, *(abs((a.logprob or 0.0) - (b.logprob or 0.0)) for a, b in pairs)])
        if agreed < len(one):
            lead = max(lead_of(one[agreed], other[agreed]), lead_of(other[agreed], one[agreed]))
            step = step_of(base, job, [event.token for event in one[:agreed]])
            parted.append({"token": agreed, "lead": lead, "step": step})
    return {"texts": len(jobs), "parted": parted, "noise": noise}


def lead_of(mine: TokenEvent, other: TokenEvent) -> float:
    """By how much a run prefers its own token to the other run's; infinite where that is not even among its likely ones."""
    likely = dict(mine.top)
    return likely[mine.token] - likely[other.token] if other.token in likely else math.inf


@torch.no_grad()
def step_of(base: Base, job: Generation, before: list[int]) -> float:
    """How far neighbouring numbers of the dtype are apart at the size of the likeliest token's logit there."""
    states = plain_states(base, Encoded(job.segments), job.prompt.forms if job.prompt else (), before)
    size = float(base.logits(states[-1:]).max().abs())
    return float(torch.finfo(base.precision.dtype).eps) * 2.0 ** math.floor(math.log2(max(size, 1e-30)))


def summary(base: Base, pieces: Sequence[Piece]) -> dict[str, Any]:
    """All pieces together: the rate of texts that differ, and how many of them the rounding does not explain."""
    texts, parted = sum(piece["texts"] for piece in pieces), [one for piece in pieces for one in piece["parted"]]
    unexplained = [one for one in parted if one["lead"] > max(STEPS * one["step"], FP32)]
    return {
        "dtype": base.precision.name,
        "texts": texts,
        "differ": len(parted),
        "rate": len(parted) / texts,
        "widest lead": max((one["lead"] for one in parted), default=0.0),
        "in steps": max((one["lead"] / one["step"] for one in parted), default=0.0),
        "unexplained": len(unexplained),
        "noise": max(piece["noise"] for piece in pieces),
    }


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """The target: none differs for another reason."""
    print(f"{found['differ']} of {found['texts']} greedy texts in {found['dtype']} are not those of the request alone")
    what = f"texts that part where the two tokens are more than {STEPS} steps of {found['dtype']} apart"
    return verdict(what, found["unexplained"], most=0)
