"""``model: "auto"``: the library's router says which prompt each text belongs to, with its confidence.

    text ─ Reading ─► frozen query ─ router ─► prompt, confidence        below the threshold: the bare base answers, or nobody

The states that are read for it are kept like any text's, so the prompt that answers finds them there. Candidates are the
router's prompts that are in the library still and that the key may use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from anyio import to_thread

from epigraph.base import Base
from epigraph.errors import NotFound
from epigraph.library import Library
from epigraph.library.names import split_reference
from epigraph.routing import Route, Router, fitting_names, query_rows, read_router, routed_text
from epigraph.routing.shelf import NOTE, router_folder
from epigraph.serve.backend import Backend
from epigraph.serve.faults import Refused, bad
from epigraph.serve.flow import Deadline, Flow
from epigraph.serve.keys import Key
from epigraph.serve.names import BARE, ROUTER, unknown_model
from epigraph.serve.rendering import Fields
from epigraph.serve.served import Served
from epigraph.serve.wire.shape import RouteTaken
from epigraph.serve.work import QueryEvent, Reading

Stamp = tuple[int, int, int]
Given = str | list[int] | None


@dataclass(frozen=True)
class Taken:
    """Where a text goes: a prompt's reference if the router is ``sure``, else "base", or "" for nobody."""

    prompt: str
    route: Route
    sure: bool
    least: float

    @property
    def model(self) -> str:
        """What the answer calls its model."""
        return self.prompt or ROUTER

    @property
    def said(self) -> RouteTaken:
        """As it is sent."""
        route = self.route
        return RouteTaken(prompt=self.prompt or None, confidence=route.confidence, probabilities=dict(route.probabilities))

    @property
    def refusal(self) -> Refused:
        """What the client is told where nobody answers."""
        return Refused(
            404,
            f"no prompt fits the text: the likeliest is that of task {self.route.task!r}, with a confidence of "
            f"{self.route.confidence:.3f}; {self.least:g} is needed.",
            "Name a prompt; GET /v1/models lists them.",
            code="no_route",
            param="model",
        )


class Signpost:
    """The library's router, live: read anew when it changes. Without a ``backend`` nobody reads texts here."""

    def __init__(self, library: Library, base: Base, backend: Backend | None, *, least: float, otherwise: str) -> None:
        self.library, self.base, self.backend = library, base, backend
        self.least, self.otherwise = least, otherwise
        self._read: tuple[Stamp, Router] | None = None
        self._kept: tuple[Router, tuple[str, ...], Router] | None = None

    def candidates(self, key: Key) -> Router | None:
        """The router of what this key may use; None where there is none."""
        router = self._router() if self.backend is not None else None
        if router is None:
            return None
        there = set(self.library.names())
        left = tuple(
            name
            for name, said in router.tasks.items()
            if split_reference(said.prompt)[0] in there and key.may_use(said.prompt)
        )
        if len(left) == len(router.tasks) or not left:
            return router if left else None
        kept = self._kept
        if kept is None or kept[0] is not router or kept[1] != left:
            fewer = router
            for name in set(router.tasks) - set(left):
                fewer = fewer.without(name)
            kept = self._kept = (router, left, fewer)
        return kept[2]

    def _router(self) -> Router | None:
        path = router_folder(self.library.root, self.base.fingerprint) / NOTE
        try:
            found = path.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
            if self._read is None or self._read[0] != stamp:
                self._read = stamp, read_router(self.library.root, self.base.fingerprint)
        except (OSError, NotFound):
            return None
        return self._read[1]

    async def routes(self, key: Key, texts: Sequence[str], deadline: Deadline) -> list[Taken]:
        """Where each text goes. Refused (404) without a router, (400) where another engine computes."""
        if self.backend is None:
            raise bad(
                "model 'auto' was asked, but this server's engine (vLLM) gives no states to route by.",
                "Name a prompt.",
                param="model",
                code="unsupported",
            )
        router = await to_thread.run_sync(self.candidates, key)
        if router is None:
            raise unknown_model(ROUTER, "The library has no router for this base (epigraph library route NAME --data …).")
        rows = await to_thread.run_sync(query_rows, self.base, texts)
        queries = await self._queries(Reading(texts=tuple(row.segments[0] for row in rows), owner=key.name), deadline)
        return [self._taken(router, route) for route in await to_thread.run_sync(router.route, queries)]

    async def _queries(self, job: Reading, deadline: Deadline) -> np.ndarray:
        assert self.backend is not None
        flow = Flow(self.backend, [job], deadline)
        await flow.start()
        found: list[np.ndarray] = []
        async for _, event in flow.events():
            if isinstance(event, QueryEvent):
                found.append(event.queries.double().numpy())
        return found[0]

    def _taken(self, router: Router, route: Route) -> Taken:
        if route.confidence >= self.least:
            return Taken(router.tasks[route.task].prompt, route, sure=True, least=self.least)
        return Taken(BARE if self.otherwise == BARE else "", route, sure=False, least=self.least)


def routable(text: Given, fields: Fields | None, *, raw: bool) -> str:
    """What a router reads: the text, or the fields, a line each. Refused (400) for what is no text of a task."""
    if raw or isinstance(text, list):
        raise bad("model 'auto' answers task requests; this one is raw.", "Name a prompt, or the base.", param="model")
    if text is not None:
        return text
    texts = {name: value for name, value in (fields or {}).items() if isinstance(value, str)}
    if not texts:
        raise bad("there is no text to choose a prompt by.", "Give a text, or fields.", param="prompt")
    return routed_text(texts)


def as_named(text: Given, fields: Fields | None, served: Served | None) -> tuple[Given, Fields | None]:
    """The text and fields as what answers calls them: the task's own names; for the bare base, one text."""
    if not fields:
        return text, fields
    if served is None:
        return routable(text, fields, raw=False), None
    return text, cast("Fields", fitting_names(cast("Mapping[str, str]", fields), served.task.template.fields))
