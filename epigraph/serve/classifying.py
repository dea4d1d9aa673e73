"""POST /v1/classify: texts to labels with probabilities; one job for all texts that one prompt answers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from anyio import to_thread

from epigraph.model import Prediction
from epigraph.serve.auto import Taken, as_named, routable
from epigraph.serve.faults import Refused, bad
from epigraph.serve.flow import Deadline, Flow
from epigraph.serve.keys import Key
from epigraph.serve.names import ROUTER
from epigraph.serve.rendering import Fields, fill_fields, length_of
from epigraph.serve.served import Served
from epigraph.serve.service import Service
from epigraph.serve.wire.classify import Classified, ClassifyRequest, Given, Labelled
from epigraph.serve.wire.shape import usage_of
from epigraph.serve.work import Classification, LabelEvent
from epigraph.tasks.row import Row


@dataclass(frozen=True)
class Part:
    """The texts (by number) of a request that one prompt answers, and their job."""

    served: Served
    numbers: Sequence[int]
    rows: Sequence[Row]
    job: Classification

    @property
    def tokens(self) -> int:
        """Of the texts and the template."""
        return sum(length_of(row) for row in self.job.rows[: len(self.rows)])


async def classify(service: Service, key: Key, request: ClassifyRequest) -> Classified:
    """The label of every text. Refused (400) for a prompt that has none, (501) where no probabilities are to be had."""
    request.check_extras()
    service.check_size(len(request.given))
    deadline = Deadline(service.config.timeout)
    async with deadline.bounds():
        return await _classified(service, key, request, deadline)


async def _classified(service: Service, key: Key, request: ClassifyRequest, deadline: Deadline) -> Classified:
    taken: Mapping[int, Taken] = {}
    if request.model == ROUTER:
        texts = [routable(*_said(given), raw=False) for given in request.given]
        taken = dict(enumerate(await service.signpost.routes(key, texts, deadline)))
        answering = [await service.load(one.prompt) if one.sure else None for one in taken.values()]
    else:
        served = await service.find(key, request.model)
        if served is None:
            raise _no_labels("the bare base")
        answering = [served] * len(request.given)
    parts = await to_thread.run_sync(_render, service, answering, request)
    found = await _answers(service, key, parts, deadline)
    tokens, virtual = sum(part.tokens for part in parts), sum(part.served.virtual * len(part.rows) for part in parts)
    service.meters.spend(tokens, virtual, 0)
    return Classified(
        id=f"classify-{uuid4().hex}",
        created=int(time.time()),
        model=request.model,
        data=[_labelled(n, found.get(n), taken.get(n)) for n in range(len(request.given))],
        usage=usage_of(tokens, 0, virtual),
    )


async def _answers(service: Service, key: Key, parts: Sequence[Part], deadline: Deadline) -> dict[int, Prediction]:
    found: dict[int, Prediction] = {}
    if parts:
        jobs = [replace(part.job, owner=key.name) for part in parts]
        service.check_room(jobs)
        flow = Flow(service.backend, jobs, deadline)
        await flow.start()
        async for number, event in flow.events():
            if isinstance(event, LabelEvent):
                part = parts[number]
                given = part.served.answers(part.rows, event.probabilities)
                found |= dict(zip(part.numbers, given, strict=True))
    return found


def _render(service: Service, answering: Sequence[Served | None], request: ClassifyRequest) -> list[Part]:
    """A part for each prompt that answers any of the texts."""
    groups: dict[int, tuple[Served, list[int], list[Row]]] = {}
    for number, (given, served) in enumerate(zip(request.given, answering, strict=True)):
        if served is None:
            continue
        _check(service, served)
        text, fields = _said(given)
        if request.model == ROUTER:
            fields = as_named(None, fields, served)[1]
        _, numbers, rows = groups.setdefault(id(served), (served, [], []))
        numbers.append(number)
        rows.append(fill_fields(served, text, fields or {}))
    return [
        Part(served, numbers, rows, service.renderer.rows(served, rows, truncate=request.truncate))
        for served, numbers, rows in groups.values()
    ]


def _said(given: Given) -> tuple[str | None, Fields | None]:
    return (given, None) if isinstance(given, str) else (None, given)


def _check(service: Service, served: Served) -> None:
    if served.task.writes:
        raise _no_labels(f"prompt {served.reference!r}")
    if not service.computes_here:
        raise Refused(
            501,
            "this server's engine (vLLM) gives no label probabilities.",
            "Ask /v1/completions for the label, or run epigraph serve without --engine vllm.",
            code="no_probabilities",
        )


def _no_labels(what: str) -> Refused:
    return bad(f"{what} has no labels.", "Ask /v1/completions, or a classification prompt.", param="model")


def _labelled(index: int, answer: Prediction | None, taken: Taken | None) -> Labelled:
    """One entry; a text that went to no prompt has no label. (The bare base has none to give.)"""
    route = None if taken is None else taken.said
    if answer is None:
        assert route is not None
        return Labelled(index=index, label=None, probabilities={}, route=route.model_copy(update={"prompt": None}))
    return Labelled(
        index=index,
        label=answer.label,
        probabilities=dict(answer.probabilities or {}),
        labels=None if answer.labels is None else list(answer.labels),
        choice=answer.choice,
        route=route,
    )
