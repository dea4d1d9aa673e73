"""What a request holds from when it is taken until it is answered, in bytes: an estimate from above.

    generation        n · 8000 + T · (40 + 16 n) + (n · max_tokens + T where echoed) · 300 · (1 + logprobs)      T tokens of input
    classification    members · Σ over its rows (3000 + 56 T) + 2 Σ F²                                  F tokens of a row's choices

A choice has a generator of random numbers. A token is a number and its places in lists; one that is told with its log
probability is an object on its way to the client, and so is every likely one beside it. The engine's room for keys and values
has bounds of its own.
"""

from epigraph.errors import QueueFull, TaskError
from epigraph.serve.work import Classification, Generation, Job

CHOICE, ROW, TOKEN, PLACE, TOLD = 8000, 3000, 40, 16, 300


def bytes_of(job: Job) -> int:
    """How many a job takes."""
    if isinstance(job, Generation):
        sampling, tokens = job.sampling, sum(map(len, job.segments))
        told = sampling.n * sampling.max_tokens + (tokens if sampling.echo and sampling.logprobs is not None else 0)
        each = TOKEN if sampling.logprobs is None else TOLD * (1 + sampling.logprobs)
        return sampling.n * CHOICE + tokens * (TOKEN + PLACE * sampling.n) + told * each
    if isinstance(job, Classification):
        members = job.prompt.members if job.prompt is not None else 1
        behind = (sum(len(choice) - 1 for choice in row.choices) for row in job.rows)
        tokens = sum(len(segment) for row in job.rows for segment in row.segments)
        return members * (len(job.rows) * ROW + tokens * (TOKEN + PLACE)) + 2 * sum(fed**2 for fed in behind)
    return len(job.texts) * ROW + sum(map(len, job.texts)) * (TOKEN + PLACE)


def check_room(size: int, held: int, most: int) -> None:
    """Whether so many bytes may be held besides those that are. TaskError where they never may, QueueFull where not now."""
    if size > most:
        raise TaskError(
            f"the request would hold {size / 1e6:,.0f} MB until it is answered; this server lets all of them hold {most / 1e6:,.0f}.",
            "Ask for fewer tokens, choices or log probabilities, or send less at once.",
        )
    if held + size > most:
        raise QueueFull(f"requests hold {held / 1e6:,.0f} of {most / 1e6:,.0f} MB already.", "Ask again in a moment.")
