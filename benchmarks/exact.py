"""How often a greedy text that is computed beside others differs from the same request served alone, and why.

In a mix a row's products are summed in another order than alone, so its logits may round otherwise. Where two runs part, the same
text stands before both, and each prefers its own token to the other's by its ``lead`` (a difference of two logits).

    truth    the same weights and the same prompt, rounded to bf16, computed in fp32
    error    how far a run's lead of its likeliest token over the next is from the truth's, the widest over all tokens of both runs
             while they agree and of the run alone after it, but for the one where they part: what bf16 does to this very text
    there    how far two of the likely tokens are moved against each other where the runs part, by bf16 as neither run computes it:
             the whole text at once, by the model's own code. Where a model makes a state a hundred times as large as others ("massive
             activations", Sun et al. 2024, https://arxiv.org/abs/2402.17762), a rounding decides whether it does, and the rest of
             the text says nothing of that
    a text that parts is explained where  |true lead| ≤ 2 max(error, there)  of its two tokens: two computations may err by as much
    own      the control, in which nothing is mixed: how many texts part from the run alone where the model's own code reads them at
             once, and how far apart the tokens are in truth. Both are one computation in bf16 against another

``noise`` is the widest difference of one token's log probability between the two runs while both agree.
"""

import math
import statistics
from collections.abc import Sequence
from functools import partial
from threading import Semaphore
from typing import Any

import torch
from measuring import verdict

from epigraph.base import Base
from epigraph.engine.plain import plain_states
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.serve.batcher import Batcher
from epigraph.serve.work import EndEvent, Event, Generation, TokenEvent
from epigraph.tasks.encode import Encoded

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


def compare(
    base: Base, truth: Base, jobs: Sequence[Generation], mixed: list[list[TokenEvent]], alone: list[list[TokenEvent]]
) -> Piece:
    """What became of these texts: how many there are, where they part, and error and noise where they do not."""
    parted, own, noise, errors = [], list[float](), 0.0, list[float]()
    for job, one, other in zip(jobs, mixed, alone, strict=True):
        agreed = next((n for n, (a, b) in enumerate(zip(one, other, strict=True)) if a.token != b.token), len(one))
        pairs = list(zip(one[:agreed], other[:agreed], strict=True))
        noise = max([noise, *(abs((a.logprob or 0.0) - (b.logprob or 0.0)) for a, b in pairs)])
        said = [event.token for event in other]
        logits, whole = (true_logits(base, model, job, said) for model in (truth, base))
        seen = [*enumerate(one[:agreed]), *enumerate(other)]
        errors.append(max(error_of(event, logits[at]) for at, event in seen if at != agreed))
        if agreed < len(one):
            found = parting(one[agreed], other[agreed], logits[agreed], whole[agreed])
            parted.append(found | {"of": kind_of(job), "at": agreed, "error": errors[-1]})
        own += [
            abs(float(true[token] - true[int(likely.argmax())]))
            for token, true, likely in zip(said, logits, whole, strict=True)
            if int(likely.argmax()) != token
        ][:1]
    return {"texts": len(jobs), "parted": parted, "own": own, "noise": noise, "errors": errors}


def parting(mixed: TokenEvent, alone: TokenEvent, true: torch.Tensor, rounded: torch.Tensor) -> Piece:
    """By how much each run prefers its own token, the truth one of them, and how far bf16 moves likely tokens there."""
    likely = [alone.token, mixed.token, *true.topk(LIKELY).indices.tolist()]
    off = (rounded - true)[likely]
    return {
        "lead": max(lead_of(mixed, alone), lead_of(alone, mixed)),
        "true lead": abs(float(true[alone.token] - true[mixed.token])),
        "there": float(off.max() - off.min()),
    }


def kind_of(job: Generation) -> str:
    """What stands in the request."""
    return "base" if job.prompt is None else "token" if isinstance(job.prompt.forms[0], Embedded) else "kv"


@torch.no_grad()
def true_logits(base: Base, truth: Base, job: Generation, said: list[int]) -> list[torch.Tensor]:
    """The logits from which each of these tokens was to be chosen."""
    forms = [as_read(form, base.dtype) for form in job.prompt.forms] if job.prompt else []
    states = plain_states(truth, Encoded(job.segments), forms, said[:-1])
    return list(truth.logits(states[-len(said) :]).float())


def as_read(form: Any, dtype: torch.dtype) -> Form:
    """The form with the numbers that the base reads."""
    if isinstance(form, Embedded):
        return Embedded(form.vectors.to(dtype))
    assert isinstance(form, KeyValue)
    return KeyValue(form.keys.to(dtype), form.values.to(dtype))


def error_of(event: TokenEvent, true: torch.Tensor) -> float:
    """How far a run's lead of its likeliest token over the next is from the true one; 0 where it told one only."""
    if len(event.top) < 2:
        return 0.0
    (first, one), (second, other) = event.top[:2]
    return abs((one - other) - float(true[first] - true[second]))


def lead_of(mine: TokenEvent, other: TokenEvent) -> float:
    """By how much a run prefers its own token to the other run's; infinite where that is not even among its likely ones."""
    likely = dict(mine.top)
    return likely[mine.token] - likely[other.token] if other.token in likely else math.inf


def summary(base: Base, pieces: Sequence[Piece]) -> dict[str, Any]:
    """All pieces together: the rate of texts that differ, and how many of them the rounding does not explain."""
    texts, parted = sum(piece["texts"] for piece in pieces), [one for piece in pieces for one in piece["parted"]]
    errors = [error for piece in pieces for error in piece["errors"]]
    bounds = [(one["true lead"], max(one["error"], one["there"])) for one in parted]
    own = [lead for piece in pieces for lead in piece["own"]]
    return {
        "dtype": base.precision.name,
        "texts": texts,
        "differ": len(parted),
        "rate": len(parted) / texts,
        "widest lead": max((one["lead"] for one in parted), default=0.0),
        "widest true lead": max((one["true lead"] for one in parted), default=0.0),
        "own code differs": len(own),
        "its widest true lead": max(own, default=0.0),
        "over once": sum(lead > max(bound, FP32) for lead, bound in bounds),
        "median error": statistics.median(errors),
        "widest error": max(errors),
        "unexplained": sum(lead > max(2 * bound, FP32) for lead, bound in bounds),
        "noise": max(piece["noise"] for piece in pieces),
    }


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """The target: none differs for another reason."""
    print(f"{found['differ']} of {found['texts']} greedy texts in {found['dtype']} are not those of the request alone")
    what = f"texts that part where the two tokens are in truth further apart than twice what {found['dtype']} errs"
    return verdict(what, found["unexplained"], most=0)
