"""Stock vLLM servers as the engine: templates, prompts and names stay here, embedded prompts go there.

    POST {url}/v1/completions    {"prompt_embeds": base64(torch.save([T + P, H])), …, "stream": true}
    [embed(segment 0) ; p ; embed(segment 1) ; …]       through the base's own embedding module, in its files' dtype

https://docs.vllm.ai/en/latest/features/prompt_embeds/ (servers started with --enable-prompt-embeds). A request goes to the
server with the fewest of ours, and on to the next where that one cannot be reached or is busy, as long as nothing of its answer
was passed on. Without a prompt, token ids are sent.
"""

import asyncio
import base64
import io
import json
import logging
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2
import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.base import Base
from epigraph.errors import Closing, ConfigError, EpigraphError, QueueFull, Unsupported
from epigraph.prompts import Embedded
from epigraph.serve.faults import Refused, UpstreamFailed
from epigraph.serve.log import trace_of
from epigraph.serve.rendering import Constrained
from epigraph.serve.servers import (
    BUSY,
    MOST_LINE,
    MOST_SAID,
    TOKEN_BYTES,
    Server,
    at_most,
    failure_of,
    first_of,
    in_turn,
    lines_of,
    refusal,
)
from epigraph.serve.sizes import bytes_of, check_room
from epigraph.serve.work import EndEvent, Event, Generation, Job, Listener, Reason, TokenEvent, Top

log = logging.getLogger(__name__)
CONNECT_SECONDS = 5.0
ENCODED = 3
"""Embedded texts are held as base64 (4/3 of their bytes) and in the body that is sent (as much again)."""
NEUTRAL = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "min_p": 0.0}
"""Said outright, since vLLM takes what is not said from the model's generation_config.json."""


@dataclass(frozen=True, kw_only=True)
class UpstreamLoad:
    """What is under way, and what has been."""

    running: int
    held_bytes: int
    servers: int
    finished: int
    retries: int


class Claim:
    """A request under way, which holds ``size`` bytes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self._loop = loop
        self.size = size
        self.task: asyncio.Future[EpigraphError] | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Close the connection: vLLM stops computing when its client leaves."""
        self.cancelled = True
        with suppress(RuntimeError):  # the loop is closed, and everything with it
            self._loop.call_soon_threadsafe(lambda: self.task.cancel() if self.task else None)


@dataclass
class Progress:
    """What has come of one choice, which may have so many tokens."""

    most: int
    tokens: int = 0
    ended: bool = False


class Upstream:
    """Several vLLM servers behind one queue. ``seconds`` bounds a request, ``queue`` how many are under way, ``most_held`` the
    bytes that all of them hold."""

    def __init__(
        self,
        base: Base,
        urls: Sequence[str],
        *,
        queue: int,
        seconds: float,
        most_held: int = 1 << 30,
        transport: Any = None,
    ) -> None:
        self.base = base
        self.servers = [Server(url) for url in urls]
        self.queue = queue
        self.most_held, self.held = most_held, 0
        self.running = self.finished = self.retries = 0
        self._seconds = seconds
        self._transport = transport
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_tell)
        self._thread = threading.Thread(target=self._loop.run_forever, name="epigraph-upstream", daemon=True)
        self._claims: set[Claim] = set()
        self._closing = False
        self._lock = threading.Lock()
        self._client: httpx2.AsyncClient | None = None

    # ---- as a batcher ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Greet the servers. ConfigError if none of them answers."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    def close(self, *, drain: bool, timeout: float) -> None:
        """Take nothing more; finish (``drain``) or cancel what is under way, within ``timeout`` seconds. One that never began
        closes too."""
        with self._lock:
            self._closing = True
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._close(timeout if drain else 0.0), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def submit(self, job: Job, listener: Listener) -> Claim:
        """Send a job. QueueFull if too many are under way or hold too much, Unsupported for what vLLM cannot do."""
        claim = Claim(self._loop, self.size_of(job))
        self._enter(claim)
        try:
            body = self.body(job)
            with self._lock:
                if self._closing:
                    raise _closing()
                assert isinstance(job, Generation)
                self._loop.call_soon_threadsafe(self._begin, job, body, listener, claim)
        except BaseException:
            self._leave(claim)
            raise
        return claim

    def size_of(self, job: Job) -> int:
        """The bytes that a job holds until it is answered: its embedded text in base64, that in the body, and the rest."""
        if job.prompt is None or not isinstance(job, Generation):
            return bytes_of(job)
        positions = sum(map(len, job.segments)) + sum(f.length for f in job.prompt.forms if isinstance(f, Embedded))
        each: int = self.base.hidden * self.base.embedding.weight.element_size()
        return bytes_of(job) + ENCODED * positions * each

    def _enter(self, claim: Claim) -> None:
        with self._lock:
            if self._closing:
                raise _closing()
            if self.running >= self.queue:
                raise QueueFull(f"{self.queue} requests are under way already.", "Ask again in a moment.")
            check_room(claim.size, self.held, self.most_held)
            self.running += 1
            self.held += claim.size
            self._claims.add(claim)

    def _leave(self, claim: Claim) -> None:
        with self._lock:
            self.running -= 1
            self.held -= claim.size
            self._claims.discard(claim)

    @property
    def load(self) -> UpstreamLoad:
        """What there is to do."""
        return UpstreamLoad(
            running=self.running,
            held_bytes=self.held,
            servers=len(self.servers),
            finished=self.finished,
            retries=self.retries,
        )

    # ---- what is sent ------------------------------------------------------------------------------------------------

    def body(self, job: Job) -> dict[str, Any]:
        """The request for vLLM. Unsupported for keys and values, probabilities and echoes, each with the way out."""
        if not isinstance(job, Generation):
            raise Unsupported("vLLM gives no label probabilities.", "Run epigraph serve without --engine vllm.")
        if job.sampling.echo:
            raise Unsupported("vLLM echoes no embedded prompt.", "Leave echo out, or serve without --engine vllm.")
        body = sampling_fields(job)
        if job.prompt is None:
            return body | {"prompt": list(job.segments[0])}
        return body | {"prompt_embeds": encode(self.embed(job))}

    def embed(self, job: Generation) -> Float[Tensor, "T H"]:
        """The text's tokens and the prompt's vectors as the first layer reads them."""
        assert job.prompt is not None
        parts = [self._tokens(job.segments[0])]
        for form, segment in zip(job.prompt.forms, job.segments[1:], strict=True):
            if not isinstance(form, Embedded):
                raise Unsupported(
                    f"prompt {job.prompt.name!r} consists of keys and values, which vLLM servers cannot take.",
                    "Tune it with epigraph tune --portable (kind token), or serve it without --engine vllm.",
                )
            parts += [form.vectors.to(self.base.embedding.weight.dtype), self._tokens(segment)]
        return torch.cat(parts)

    def _tokens(self, ids: Sequence[int]) -> Float[Tensor, "T H"]:
        return self.base.embed(torch.tensor(list(ids), dtype=torch.long))

    # ---- one request -------------------------------------------------------------------------------------------------

    def _begin(self, job: Generation, body: Mapping[str, Any], listener: Listener, claim: Claim) -> None:
        progress = [Progress(job.sampling.max_tokens) for _ in range(job.sampling.n)]
        claim.task = self._loop.create_task(self._run(body, progress, listener))
        claim.task.add_done_callback(lambda task: self._end(task, progress, listener, claim))
        if claim.cancelled:
            claim.task.cancel()

    async def _run(self, body: Mapping[str, Any], progress: Sequence[Progress], listener: Listener) -> EpigraphError:
        """Take the answer to its end; what to say of the choices that did not reach theirs."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._answer(body, progress, listener)
        except EpigraphError as refused:
            return refused
        except TimeoutError:
            return Refused(504, f"the answer took more than {self._seconds:g} seconds.", code="timeout")
        except Exception as failed:
            log.warning("a vLLM server's answer cannot be read (%s)", type(failed).__name__)
            return UpstreamFailed(f"the vLLM server's answer cannot be read ({type(failed).__name__}).")
        if not all(one.ended for one in progress):
            log.warning("a vLLM server ended its answer too early")
        return UpstreamFailed("the vLLM server ended its answer too early.")

    def _end(
        self, task: asyncio.Future[EpigraphError], progress: Sequence[Progress], listener: Listener, claim: Claim
    ) -> None:
        """Make room and tell the listener. Not a part of the task: one that is cancelled before its first step never runs."""
        self._leave(claim)
        self.finished += 1
        error = None if task.cancelled() else task.result()
        for choice, one in enumerate(progress):
            if not one.ended:
                listener(EndEvent(choice, "error" if error else "cancelled", None, 0, one.tokens, error))

    async def _answer(self, body: Mapping[str, Any], progress: Sequence[Progress], listener: Listener) -> None:
        """Try the servers in turn until one begins to answer; then pass on what it says."""
        failure = UpstreamFailed("no vLLM server can be reached.")
        for server in in_turn(self.servers, self._loop.time()):
            server.running += 1
            passed_on = False
            try:
                async for event in self._events(server, body, progress):
                    passed_on = True
                    listener(event)
                server.succeed()
                return
            except (httpx2.TransportError, UpstreamFailed) as error:
                failure = failure_of(error)
                self._note(server, failure)
                if passed_on or not (isinstance(error, httpx2.TransportError) or failure.status in BUSY):
                    raise failure from error
            finally:
                server.running -= 1
            self.retries += 1
        raise failure

    def _note(self, server: Server, failure: UpstreamFailed) -> None:
        server.fail(self._loop.time(), failure.retry_after if failure.status in BUSY else None)
        log.warning("%s failed: %s", server.url, failure.message)

    async def _events(self, server: Server, body: Mapping[str, Any], progress: Sequence[Progress]) -> AsyncIterator[Event]:
        if not server.model:
            await self._greet(server)
        async for chunk in self._chunks(server, {**body, "model": server.model}):
            for event in events_of(chunk, progress):
                yield event

    async def _chunks(self, server: Server, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        assert self._client is not None
        async with self._client.stream("POST", f"{server.url}/v1/completions", json=dict(body)) as answer:
            if answer.status_code != 200:
                said = await first_of(answer.aiter_raw(), MOST_SAID)
                raise refusal(answer.status_code, said.decode(errors="replace"), answer.headers)
            most = MOST_LINE + TOKEN_BYTES * body["n"] * (1 + body["max_tokens"])
            async for line in lines_of(at_most(answer.aiter_raw(), most)):
                if not line.startswith(b"data:") or (data := line[5:].strip()) == b"[DONE]":
                    continue
                chunk: dict[str, Any] = json.loads(data)
                if "error" in chunk:
                    raise refusal(500, data.decode(errors="replace"))
                yield chunk

    # ---- the servers -------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        timeout = httpx2.Timeout(self._seconds, connect=CONNECT_SECONDS)
        limits = httpx2.Limits(max_connections=self.queue)
        plain = {"accept-encoding": "identity"}  # what is compressed may be of any size
        self._client = httpx2.AsyncClient(transport=self._transport, timeout=timeout, limits=limits, headers=plain)
        faults = await asyncio.gather(*(self._greet(server) for server in self.servers), return_exceptions=True)
        for server, fault in zip(self.servers, faults, strict=True):
            if fault is not None:
                server.fail(self._loop.time())
        if all(isinstance(fault, Exception) for fault in faults):
            await self._client.aclose()
            raise ConfigError(
                f"no vLLM server answers at {', '.join(server.url for server in self.servers)}: {faults[0]}.",
                "Start one: vllm serve MODEL --enable-prompt-embeds --port 8100",
            )

    async def _greet(self, server: Server) -> None:
        """Ask what the server calls its model. ConnectError if it does not answer as one."""
        assert self._client is not None
        try:
            async with self._client.stream("GET", f"{server.url}/v1/models", timeout=CONNECT_SECONDS) as answer:
                said = await first_of(answer.aiter_raw(), MOST_SAID)
            server.model = str(json.loads(said)["data"][0]["id"])
        except httpx2.TransportError as error:
            raise httpx2.ConnectError(f"{server.url} does not answer ({type(error).__name__})") from error
        except (ValueError, LookupError, TypeError) as error:
            raise httpx2.ConnectError(f"{server.url} is no OpenAI-compatible server") from error

    async def _close(self, seconds: float) -> None:
        tasks = [claim.task for claim in self._claims if claim.task]
        if tasks and seconds:
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()


def _closing() -> Closing:
    return Closing("the server is closing and takes no more requests.", "Ask again when it is back.")


def _tell(_loop: asyncio.AbstractEventLoop, told: Mapping[str, Any]) -> None:
    """What went wrong in the loop where nobody waited for it, without the words, which may be a user's."""
    error = told.get("exception")
    log.error("a fault beside all requests: %s", trace_of(error) if isinstance(error, Exception) else told.get("message"))


def encode(vectors: Float[Tensor, "T H"]) -> str:
    """As vLLM reads them: torch's own file format in base64. It is written here, never read."""
    buffer = io.BytesIO()
    torch.save(vectors.contiguous().clone(), buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def sampling_fields(job: Generation) -> dict[str, Any]:
    """How the answer is drawn, in vLLM's words."""
    sampling = job.sampling
    fields: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": max(0, sampling.top_k),
        "n": sampling.n,
        "stop": list(sampling.stop),
        "stop_token_ids": list(sampling.stop_tokens),
        "ignore_eos": sampling.ignore_end,
        **NEUTRAL,
        "seed": sampling.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    if sampling.logprobs is not None:
        fields |= {"logprobs": sampling.logprobs, "return_tokens_as_token_ids": True}
    if isinstance(job, Constrained):
        fields["structured_outputs"] = {"choice": list(job.words)}
    return {name: value for name, value in fields.items() if value is not None}


def events_of(chunk: Mapping[str, Any], progress: Sequence[Progress]) -> list[Event]:
    """A chunk of vLLM's stream as our events. UpstreamFailed for more than was asked for."""
    events: list[Event] = []
    for said in chunk.get("choices", ()):
        choice = int(said["index"])
        one = progress[choice] if 0 <= choice < len(progress) else None
        if one is None or one.ended:
            raise UpstreamFailed("the vLLM server answers what was not asked.")
        tokens = token_events(choice, said)
        one.tokens += len(said.get("token_ids") or tokens)
        if one.tokens > one.most:
            raise UpstreamFailed(f"the vLLM server answers more than the {one.most} tokens that were asked for.")
        events += tokens
        if said.get("finish_reason"):
            one.ended = True
            reason: Reason = "length" if said["finish_reason"] == "length" else "stop"
            events.append(EndEvent(choice, reason, said.get("stop_reason"), 0, one.tokens))
    return events


def token_events(choice: int, said: Mapping[str, Any]) -> list[Event]:
    """The tokens of one choice in a chunk; its text comes with the last of them."""
    logprobs = said.get("logprobs") or {}
    ids = said.get("token_ids") or [_id(token) for token in logprobs.get("tokens", ())]
    text = str(said.get("text") or "")
    if not ids:
        return [TokenEvent(choice, 0, text)] if text else []
    values = logprobs.get("token_logprobs") or [None] * len(ids)
    tops: Sequence[Mapping[str, float] | None] = logprobs.get("top_logprobs") or [None] * len(ids)
    return [
        TokenEvent(choice, token, text if number == len(ids) - 1 else "", value, _top(top))
        for number, (token, value, top) in enumerate(zip(ids, values, tops, strict=False))
    ]


def _top(said: Mapping[str, float] | None) -> Top:
    return tuple((_id(token), float(value)) for token, value in (said or {}).items())


def _id(token: str) -> int:
    return int(token.removeprefix("token_id:"))
