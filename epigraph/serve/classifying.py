"""POST /v1/classify: texts to labels with probabilities, all in one job."""

import time
from collections.abc import Sequence
from uuid import uuid4

from anyio import to_thread

from epigraph.serve.faults import Refused, bad
from epigraph.serve.flow import Flow
from epigraph.serve.keys import Key
from epigraph.serve.served import Served
from epigraph.serve.service import Service
from epigraph.serve.wire.classify import Classified, ClassifyRequest, Labelled
from epigraph.serve.wire.shape import usage_of
from epigraph.serve.work import LabelEvent
from epigraph.tasks.encode import Encoded


async def classify(service: Service, key: Key, request: ClassifyRequest) -> Classified:
    """The label of every text. Refused (400) for a prompt that has none, (501) where no probabilities are to be had."""
    request.check_extras()
    service.check_size(len(request.given))
    served = await service.find(key, request.model)
    _check(service, served)
    assert served is not None
    rows = await to_thread.run_sync(_render, service, served, request)
    flow = Flow(service.backend, [service.renderer.rows(served, rows)], seconds=service.config.timeout)
    await flow.start()
    data: list[Labelled] = []
    async for _, event in flow.events():
        if isinstance(event, LabelEvent):
            data = _labelled(served, event.probabilities)
    tokens, virtual = sum(row.length for row in rows), served.virtual * len(rows)
    service.meters.spend(tokens, virtual, 0)
    return Classified(
        id=f"classify-{uuid4().hex}",
        created=int(time.time()),
        model=request.model,
        data=data,
        usage=usage_of(tokens, 0, virtual),
    )


def _check(service: Service, served: Served | None) -> None:
    if served is None or served.trie is None:
        what = "the bare base" if served is None else f"prompt {served.reference!r}"
        raise bad(f"{what} has no labels.", "Ask /v1/completions, or a classification prompt.", param="model")
    if not service.computes_here:
        raise Refused(
            501,
            "this server's engine (vLLM) gives no label probabilities.",
            "Ask /v1/completions for the label, or run epigraph serve without --engine vllm.",
            code="no_probabilities",
        )


def _render(service: Service, served: Served, request: ClassifyRequest) -> list[Encoded]:
    rows = []
    for given in request.given:
        text, fields = (given, {}) if isinstance(given, str) else (None, given)
        rows.append(service.renderer.row(served, text, fields, truncate=request.truncate))
    return rows


def _labelled(served: Served, probabilities: Sequence[Sequence[float]]) -> list[Labelled]:
    assert served.trie is not None
    labels = served.trie.labels
    found = []
    for index, row in enumerate(probabilities):
        shares = dict(zip(labels, row, strict=True))
        found.append(Labelled(index=index, label=max(shares, key=shares.__getitem__), probabilities=shares))
    return found
