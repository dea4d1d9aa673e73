"""What the server asks of whatever computes: the batcher of this process, or servers elsewhere."""

from typing import Any, Protocol, runtime_checkable

from epigraph.serve.work import Job, Listener


@runtime_checkable
class Ticket(Protocol):
    """A job under way."""

    def cancel(self) -> None: ...


@runtime_checkable
class Backend(Protocol):
    """Takes jobs and reports their events to a listener, from a thread of its own."""

    def start(self) -> None: ...

    def close(self, *, drain: bool, timeout: float) -> None: ...

    def submit(self, job: Job, listener: Listener) -> Ticket:
        """Queue a job. QueueFull where too many wait, or hold too much."""
        ...

    def size_of(self, job: Job) -> int:
        """The bytes that a job holds until it is answered."""
        ...

    @property
    def load(self) -> Any:
        """A dataclass of numbers: what waits, runs, is cached."""
        ...
