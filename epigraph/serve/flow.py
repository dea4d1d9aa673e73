"""The events of a request's jobs, brought from the backend's threads into the event loop, in order.

Whoever leaves the loop over a flow early (the client is gone, time is up, an error) cancels what still runs.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from anyio import to_thread

from epigraph.serve.backend import Backend, Ticket
from epigraph.serve.faults import Refused, refusal_at_end
from epigraph.serve.work import EndEvent, Event, Generation, Job


class Deadline:
    """How long a request may take, all its jobs together, from now on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = asyncio.get_running_loop().time() + seconds

    @asynccontextmanager
    async def bounds(self) -> AsyncIterator[None]:
        """What is waited for inside. Refused (504) when time is up."""
        try:
            async with asyncio.timeout_at(self.at):
                yield
        except TimeoutError:
            what = f"the answer took more than {self.seconds:g} seconds."
            raise Refused(504, what, "Ask for fewer tokens.", code="timeout") from None


class Flow:
    """Jobs under way, until the deadline."""

    def __init__(self, backend: Backend, jobs: Sequence[Job], deadline: Deadline) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._deadline = deadline
        self._left = sum(job.sampling.n if isinstance(job, Generation) else 1 for job in jobs)
        self._tickets: list[Ticket] = []
        self._backend = backend
        self._jobs = list(jobs)
        self._gone = False
        self._handing = threading.Lock()

    async def start(self) -> None:
        """Hand over the jobs, in a thread: a prompt that comes for the first time is got ready there.

        Raises:
            QueueFull: too many wait; none of these jobs is left behind.
            TaskError, BaseMismatch, Corrupt, Unsupported: one of them cannot be served.
        """
        try:
            await to_thread.run_sync(self._submit)
        except BaseException:
            self.cancel()
            raise

    def _submit(self) -> None:
        for number, job in enumerate(self._jobs):
            ticket = self._backend.submit(job, partial(self._post, number))
            with self._handing:
                self._tickets.append(ticket)
                gone = self._gone
            if gone:  # while this one was handed over
                ticket.cancel()
                return

    def _post(self, number: int, event: Event) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, (number, event))

    def cancel(self) -> None:
        """Stop computing what is not finished, and what a thread is still handing over."""
        if not self._left:
            return
        with self._handing:
            self._gone = True
            tickets = list(self._tickets)
        for ticket in tickets:
            ticket.cancel()

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """Every event with the number of its job, until all have ended.

        Raises:
            Refused: a job failed or was cancelled, or time is up.
        """
        try:
            while self._left:
                number, event = await self._next()
                if isinstance(event, EndEvent) and event.reason in ("error", "cancelled"):
                    raise refusal_at_end(event)
                self._left -= isinstance(event, EndEvent)
                yield number, event
        finally:
            self.cancel()

    async def _next(self) -> tuple[int, Event]:
        async with self._deadline.bounds():
            return await self._events.get()
