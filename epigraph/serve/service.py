"""What the routes share: the base, the library, the backend, the keys, and the way of a request through them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from anyio import CapacityLimiter, to_thread

from epigraph.base import Base
from epigraph.errors import Corrupt, NotFound
from epigraph.library import Library
from epigraph.serve.answers import Answers, Delta, prompt_tokens
from epigraph.serve.auto import Signpost, Taken
from epigraph.serve.backend import Backend
from epigraph.serve.faults import bad
from epigraph.serve.flow import Deadline, Flow
from epigraph.serve.keys import ANYBODY, Key, Keyring
from epigraph.serve.log import Log
from epigraph.serve.meters import Meters, numbers
from epigraph.serve.names import BARE, ROUTER, read_model, unknown_model
from epigraph.serve.pieces import Pieces
from epigraph.serve.rendering import Rendered, Renderer, check_echo
from epigraph.serve.served import Served, Trees, prepare
from epigraph.serve.settings import ServeConfig
from epigraph.serve.shelf import Shelf
from epigraph.serve.sizes import check_room
from epigraph.serve.wire.shape import RouteTaken, Usage, usage_of
from epigraph.serve.work import Job

LOADS = 8
"""Prompts that are loaded at once."""
Render = Callable[[Sequence[Served | None], Renderer], list[Rendered]]
"""From what answers each prompt to its job."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request for answers: how many prompts it has, how many answers each (``choices``), how many logprobs a token.

    ``texts`` are what a router reads of each prompt; Refused (400) where there is no text.
    """

    prefix: str
    model: str
    prompts: int
    choices: int
    shows: int | None
    texts: Callable[[], list[str]]
    render: Render


@dataclass
class Exchange:
    """One request as it is answered: what was rendered, and what has been said so far."""

    id: str
    model: str
    created: int
    rendered: Sequence[Rendered]
    choices: int
    answers: Answers
    flow: Flow
    meters: Meters
    started: float = field(default_factory=time.perf_counter)
    completion: int = 0
    reused: int = 0
    routes: list[RouteTaken] | None = None

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        prompt, virtual = prompt_tokens(self.rendered)
        return usage_of(prompt, self.completion, virtual, cached=min(prompt, self.reused))

    @property
    def total(self) -> int:
        """How many answers there will be."""
        return len(self.rendered) * self.choices

    @property
    def facts(self) -> dict[str, int]:
        """What the log says of it."""
        prompt, virtual = prompt_tokens(self.rendered)
        return {"prompt_tokens": prompt, "virtual_tokens": virtual, "completion_tokens": self.completion}

    async def deltas(self) -> AsyncIterator[Delta]:
        """The pieces, counted as they pass."""
        pieces, first = self.answers.deltas(self.flow), True
        try:
            async for delta in pieces:
                if first:
                    self.meters.first.observe(time.perf_counter() - self.started)
                    first = False
                self.completion += delta.tokens
                self.reused += delta.reused
                yield delta
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]
            self.meters.spend(*prompt_tokens(self.rendered), self.completion)


class Service:
    """A server without its HTTP. ``computes_here`` is False where vLLM servers compute: then labels have no probabilities."""

    def __init__(
        self,
        base: Base,
        library: Path,
        backend: Backend,
        config: ServeConfig,
        *,
        computes_here: bool = True,
        log: Log | None = None,
    ) -> None:
        self.base = base
        self.backend = backend
        self.config = config
        self.computes_here = computes_here
        self.library = Library(library)
        self.trees = Trees(base)
        self.shelf = Shelf(self.library, self._prepare, fingerprint=base.fingerprint, budget=config.kept_bytes)
        self.pieces = Pieces(base)
        self.renderer = Renderer(base, self.pieces, ceiling=config.tokens, computes_here=computes_here)
        self.signpost = Signpost(
            self.library,
            base,
            backend if computes_here else None,
            least=config.min_route,
            otherwise=config.otherwise,
        )
        self.log = log or Log(texts=config.texts)
        self.keyring = Keyring(Path(config.keys), self._keys_are_faulty) if config.keys else None
        self.meters = Meters(self._numbers)
        self.created = int(time.time())
        self.opened = self.closing = self.closed = False
        self._loads = CapacityLimiter(LOADS)
        self.inside = 0
        """Requests that are being answered."""

    def _prepare(self, stored: Any) -> Served:
        return prepare(stored, self.base, computes_here=self.computes_here, trees=self.trees)

    def _keys_are_faulty(self, error: Exception) -> None:
        self.log.write("keys_faulty", error=str(error), done="the keys from before still hold")

    def _numbers(self) -> dict[str, float]:
        held = {"prompt_bytes": float(self.shelf.size), "prompt_loads": float(self.shelf.loads)}
        return held | numbers(self.backend.load)

    def admit(self, authorization: str | None) -> Key:
        """Who asks. Refused (401) for a stranger, (429) for one who has asked too often."""
        if self.keyring is None:
            return ANYBODY
        key = self.keyring.find(authorization)
        self.keyring.spend(key)
        return key

    async def find(self, key: Key, model: str) -> Served | None:
        """What ``model`` names; None for the bare base. Loaded in a thread, so that nobody waits who need not."""
        reference = read_model(model, self.base.name)
        key.check(reference)
        return None if reference is None else await self.load(reference)

    async def load(self, reference: str) -> Served:
        """A prompt of the library. Refused (404) if there is none.

        Loads have threads of their own: many at once would else leave none for prompts that are there already.
        """
        try:
            held = await to_thread.run_sync(self.shelf.held, reference)
            if isinstance(held, Served):
                return held
            if held is not None:  # waited for without a thread of the loads', which others need
                with suppress(NotFound, Corrupt):  # perhaps of a version that was replaced meanwhile
                    return await asyncio.shield(asyncio.wrap_future(held))
            return await to_thread.run_sync(self.shelf.get, reference, limiter=self._loads)
        except NotFound as error:
            raise unknown_model(reference) from error

    async def sent(self, key: Key, taken: Taken) -> Served | None:
        """What a router sent a text to; None for the bare base. Refused (404) for nobody, (403) where the key may not."""
        if taken.sure:
            return await self.load(taken.prompt)
        if taken.prompt == BARE:
            key.check(None)
            return None
        raise taken.refusal

    async def begin(self, key: Key, asked: Question) -> Exchange:
        """Render a request and hand its jobs to the backend. Refused with a status of its own where that cannot be."""
        self.check_size(asked.prompts, asked.choices)
        deadline = Deadline(self.config.timeout)
        async with deadline.bounds():
            return await self._begin(key, asked, deadline)

    async def _begin(self, key: Key, asked: Question, deadline: Deadline) -> Exchange:
        routes: list[RouteTaken] | None = None
        model = asked.model
        if model == ROUTER:
            taken = await self.signpost.routes(key, asked.texts(), deadline)
            answering = [await self.sent(key, one) for one in taken]
            routes = [one.said for one in taken]
            model = taken[0].model if len({one.model for one in taken}) == 1 else ROUTER
        else:
            answering = [await self.find(key, model)] * asked.prompts
        rendered = await to_thread.run_sync(asked.render, answering, self.renderer)
        check_echo(rendered)
        jobs = [replace(one.job, owner=key.name) for one in rendered]
        self.check_room(jobs)
        flow = Flow(self.backend, jobs, deadline)
        await flow.start()
        return Exchange(
            id=f"{asked.prefix}-{uuid4().hex}",
            model=model,
            routes=routes,
            created=int(time.time()),
            rendered=rendered,
            choices=asked.choices,
            answers=Answers(rendered=rendered, pieces=self.pieces, choices=asked.choices, shows=asked.shows),
            flow=flow,
            meters=self.meters,
        )

    def check_size(self, prompts: int, choices: int = 1) -> None:
        """Refused (400) for more answers in one request than the server gives."""
        if prompts * choices > self.config.batch:
            raise bad(
                f"{prompts} prompts × n = {choices} make {prompts * choices} answers; this server gives "
                f"{self.config.batch} at once.",
                "Send several requests.",
                param="n",
                code="batch_too_large",
            )

    def check_room(self, jobs: Sequence[Job]) -> None:
        """Refused (400) for a request whose jobs together may never be held."""
        check_room(sum(map(self.backend.size_of, jobs)), 0, self.config.held_bytes)

    def open(self) -> None:
        """Start what computes, if it has not been."""
        if not self.opened:
            self.opened = True
            self.backend.start()

    def close(self, *, grace: float | None = None) -> None:
        """Finish what runs within the grace (seconds; None: that of the settings), and end the rest, once."""
        self.closing = True
        if not self.closed:
            self.closed = True
            with suppress(RuntimeError):
                self.backend.close(drain=True, timeout=self.config.grace if grace is None else grace)
