"""The OpenAPI description: what each route answers, and every fault that it can really give, with the body of an error.

It describes any server: 401 needs keys (``--keys``), 501 and 502 servers of vLLM behind this one. The tests hold it both ways:
each fault named here is provoked at its route, and no test sees one that is not named.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from epigraph.serve.wire.models import State
from epigraph.serve.wire.shape import FaultBody

Responses = dict[int | str, dict[str, Any]]
SAID = {
    400: "the request cannot be answered as asked",
    401: "no API key, or none that is known",
    403: "the key may not do this, or a server without keys was asked by a name that is not this machine's",
    404: "there is no such model, or model auto found none that fits",
    408: "the body came too slowly",
    413: "the request is too large",
    429: "too many requests, or too much is held by them; Retry-After says when to try again",
    500: "the server failed, or the prompt is damaged in its library",
    501: "this server's engine gives no probabilities",
    502: "a server behind this one failed",
    503: "the server is shutting down, or one behind it is busy",
    504: "the answer took too long",
}


def faults(*statuses: int) -> Responses:
    """These faults as a route declares them."""
    return {status: {"model": FaultBody, "description": SAID[status]} for status in sorted(statuses)}


PUBLIC = (400, 403)  # whoever asks by a wrong name
ADMITTED = (*PUBLIC, 401, 429, 500, 503)
LOOKED_UP = (*ADMITTED, 413)  # a body that nobody asked for is weighed as well
READ = (*LOOKED_UP, 408)
ANSWERED = (*READ, 404, 504)

HEALTH = faults(*PUBLIC)
READY: Responses = HEALTH | {503: {"model": State, "description": "it is closing"}}
METRICS: Responses = faults(*ADMITTED) | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
MODELS = TOKENIZER = faults(*LOOKED_UP)
MODEL = faults(*LOOKED_UP, 404)
TOKENS = UPLOAD = faults(*READ)
CLASSIFY = faults(*ANSWERED, 501)
WRITTEN: Responses = faults(*ANSWERED, 502) | {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "the answer, or a stream of it"}
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, made once; faulty fields are answered 400 like all else, so FastAPI's 422 goes."""
    if app.openapi_schema:
        return app.openapi_schema
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for operations in found["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    app.openapi_schema = found
    return found
