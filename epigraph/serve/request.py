"""A request while it is served: who listens, whether it was cancelled, whether it is over."""

import logging
from collections.abc import Callable

from epigraph.errors import EpigraphError
from epigraph.serve.log import trace_of
from epigraph.serve.sizes import bytes_of
from epigraph.serve.work import EndEvent, Event, Generation, Job, Listener, Reason

log = logging.getLogger(__name__)


class Request:
    """One job with its listener."""

    def __init__(self, job: Job, listener: Listener) -> None:
        self.job = job
        self.size = bytes_of(job)
        self.listener = listener
        self.cancelled = False
        self.begun = False
        self.open = set(range(job.sampling.n if isinstance(job, Generation) else 1))

    @property
    def over(self) -> bool:
        """Whether every choice has ended."""
        return not self.open

    def tell(self, event: Event) -> None:
        """Give the listener an event. One that raises hears nothing more, and its request is cancelled."""
        try:
            self.listener(event)
        except Exception as error:
            log.error("a listener failed; its request is cancelled: %s", trace_of(error))
            self.listener, self.cancelled = _ignore, True

    def end(self, event: EndEvent) -> None:
        """End a choice; no event follows for it."""
        if event.choice in self.open:
            self.open.discard(event.choice)
            self.tell(event)


def _ignore(event: Event) -> None:
    """Nobody listens any more."""


class Ticket:
    """A request that was taken."""

    def __init__(self, request: Request, wake: Callable[[], None]) -> None:
        self._request = request
        self._wake = wake

    def cancel(self) -> None:
        """Stop computing at the next step; what has not ended ends as "cancelled"."""
        self._request.cancelled = True
        self._wake()

    @property
    def over(self) -> bool:
        """Whether every choice has ended."""
        return self._request.over


def ended(
    choice: int, reason: Reason, *, error: EpigraphError | None = None, prompt: int = 0, completion: int = 0
) -> EndEvent:
    """An end of which no more is known."""
    return EndEvent(choice, reason, None, prompt, completion, error)
