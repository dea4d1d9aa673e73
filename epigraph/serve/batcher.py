"""Continuous batching: one thread owns the engine and computes, step by step, whatever requests are there.

    submit ─► arrived ─► schedule: waiting ─► running ─► events to the listener
                 step: plan what fits, one pass of the base, choose tokens, report, free

Any mix of prompts, forms, places and the bare base shares a step; requests join and leave between steps. A result is that of
the request served alone, up to rounding. A fault in one request (a prompt whose states overflow, a pass that fails) ends that
request; the others are computed again without it.
"""

import logging
from collections.abc import Callable, Sequence
from threading import Condition, Thread
from typing import Any, TypeVar

import torch
from torch import Tensor

from epigraph.engine import Engine
from epigraph.engine.decoding import ConcatenatingDecoder, decoder_for
from epigraph.engine.frozen import default_budget
from epigraph.engine.shelves import Shelves
from epigraph.engine.workers import release_workers
from epigraph.errors import Closing, EpigraphError, QueueFull, TaskError, Unsupported
from epigraph.serve.alone import classify_next
from epigraph.serve.beginnings import Beginning
from epigraph.serve.cache import Cache
from epigraph.serve.generating import Choice, Described
from epigraph.serve.labelling import Labelling, LabelRow, answers_of, not_numbers, segments_of, takes
from epigraph.serve.log import trace_of
from epigraph.serve.prompts import Prompts, Ready
from epigraph.serve.request import Request, Ticket, ended
from epigraph.serve.sampling import choose, describe
from epigraph.serve.schedule import Planned, Reader, Schedule
from epigraph.serve.sizes import bytes_of, check_room
from epigraph.serve.work import BatcherSettings, Generation, Job, Listener, Load, Reading

log = logging.getLogger(__name__)
Work = list[Choice] | Labelling
T = TypeVar("T")
R = TypeVar("R")


class Batcher:
    """Takes requests from any thread; listeners are called from its own and must be quick."""

    def __init__(self, engine: Engine, settings: BatcherSettings | None = None) -> None:
        self.engine = engine
        self.settings = settings or BatcherSettings()
        self.prompts = Prompts(engine.base, Cache(self.settings.prompt_bytes))
        self.texts: Cache[Any] = Cache(self.settings.text_bytes)
        self.decoder = decoder_for(engine)
        asked = self.settings.cache_bytes
        room = default_budget(engine.base.device) // 2 if asked is None else asked
        rows = self.settings.max_rows
        self.rooms = Shelves(engine.base, room, rows), Shelves(engine.base, room // 4, rows)
        self.schedule = Schedule(self.decoder, self.settings, self.rooms, self._kept)
        self._wake = Condition()
        self._arrived: list[tuple[Request, Work]] = []
        self._requests: set[Request] = set()
        self._closing = self._stopping = False
        self._thread: Thread | None = None
        self._steps = self._computed = self._generated = self._labelled = self._finished = self._taken = 0

    # ---- from any thread ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to compute, in a thread that needs the processors: the caller's workers are released."""
        assert self._thread is None, "a batcher is started once"
        release_workers()
        self._thread = Thread(target=self._work, name="epigraph-batcher", daemon=True)
        self._thread.start()

    def close(self, *, drain: bool, timeout: float) -> None:
        """Take nothing more; finish what is there within ``timeout`` seconds if ``drain``, cancel the rest."""
        with self._wake:
            self._closing = True
            if drain and self._thread is not None:
                self._wake.wait_for(lambda: not self._requests, timeout)
            for request in self._requests:
                request.cancelled = True
            self._stopping = True
            self._wake.notify_all()
        if self._thread is None:  # nobody has computed, nobody will
            self._receive()
            self._sweep()
        else:
            self._thread.join()

    def submit(self, job: Job, listener: Listener) -> Ticket:
        """Take a request. QueueFull if too many wait or hold too much; TaskError, BaseMismatch, Corrupt or Unsupported if it
        cannot be served.
        """
        request = Request(job, listener)
        self._check_queue(request.size)
        work = self._prepare(request)
        with self._wake:
            self._check_queue(request.size)
            self._taken += 1
            if isinstance(work, list):
                for choice in work:
                    choice.order = self._taken
            self._requests.add(request)
            self._arrived.append((request, work))
            self._wake.notify_all()
        return Ticket(request, self._notify)

    @property
    def load(self) -> Load:
        """What is held and was counted."""
        prompts, texts, schedule = self.prompts.cache, self.texts, self.schedule
        return Load(
            waiting=self._waiting,
            running=len(schedule.running),
            labelling=len(schedule.reading),
            held_bytes=self._held,
            running_bytes=sum(room.bytes for room in self.rooms),
            cached_bytes=prompts.bytes + texts.bytes,
            prompt_hits=prompts.hits,
            prompt_misses=prompts.misses,
            prompt_evictions=prompts.evictions,
            text_hits=texts.hits,
            text_misses=texts.misses,
            text_evictions=texts.evictions,
            steps=self._steps,
            tokens_computed=self._computed,
            tokens_reused=schedule.reused,
            tokens_generated=self._generated,
            rows_labelled=self._labelled,
            preempted=schedule.preempted,
            finished=self._finished,
        )

    @property
    def _waiting(self) -> int:
        return sum(not request.begun for request in tuple(self._requests))

    @property
    def _held(self) -> int:
        return sum(request.size for request in tuple(self._requests) if not request.over)

    def size_of(self, job: Job) -> int:
        """The bytes that a job holds until it is answered."""
        return bytes_of(job)

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _check_queue(self, size: int) -> None:
        if self._closing:
            raise Closing("the server is closing and takes no more requests.", "Ask again when it is back.")
        if self._waiting >= self.settings.queue_length:
            raise QueueFull(f"{self.settings.queue_length} requests are waiting already.", "Ask again in a moment.")
        check_room(size, self._held, self.settings.held_bytes)

    def _prepare(self, request: Request) -> Work:
        """The request ready to be computed; refused here if it never can be."""
        job = request.job
        ready = self.prompts.prepare(job.prompt, plain=bool(self.engine.plain))
        for segments in segments_of(job):
            self._check_segments(segments, ready)
        work: Work
        if isinstance(job, Generation):
            if len(ready.members) > 1:
                raise Unsupported(
                    f"{len(ready.members)} prompts that vote on a label were asked to write a text.",
                    "Send a task request; it answers the label.",
                )
            work = [Choice(request, number, ready, self.engine.base) for number in range(job.sampling.n)]
            self._check_length(work[0].row.end, job.sampling.max_tokens, work[0].row.virtual, work[0].most, self.rooms[0])
            work[0].siblings = work[1:]
        else:
            if isinstance(job, Reading) and self.engine.plain:
                raise Unsupported(
                    f"a router reads frozen states, but {self.engine.base.name} has none: {self.engine.plain}."
                )
            for longest, virtual, most in takes(job, ready):
                self._check_length(longest, 0, virtual, most, self.rooms[1])
            work = Labelling(request, ready)
        return work

    def _check_segments(self, segments: Sequence[Sequence[int]], ready: Ready) -> None:
        if len(segments) != len(ready.forms) + 1:
            raise TaskError(
                f"{len(segments)} segments of text were given for {len(ready.forms)} prompt blocks; one more is needed."
            )
        if ready.dependent is not None and not segments[0]:
            raise TaskError("the prompt depends on the text before it, and there is none.", "Put it after the text.")
        known = self.engine.base.embedding.weight.shape[0]
        wrong = next((t for segment in segments for t in segment if not 0 <= t < known), None)
        if wrong is not None:
            raise TaskError(f"token {wrong} was given; {self.engine.base.name} has tokens 0 to {known - 1}.")

    def _check_length(self, tokens: int, answer: int, virtual: int, most: int, room: Shelves) -> None:
        base = self.engine.base
        if tokens + answer > base.context:
            own = f"{tokens - virtual} input tokens, {virtual} of the prompt and {answer} of the answer"
            raise TaskError(
                f"{own} were asked for; {base.name} reads {base.context}.", "Shorten the input or ask for fewer tokens."
            )
        if self.decoder.keeps and not room.fits(most):
            raise TaskError(
                f"{most} tokens never fit into {room.budget / 1e6:.0f} MB for keys and values.",
                "Shorten the input, ask for fewer tokens, or give the server more memory.",
            )

    # ---- the thread that computes ------------------------------------------------------------------------------------

    def _work(self) -> None:
        with torch.no_grad():
            while self._wait():
                try:
                    self._receive()
                    self._sweep()
                    self._step()
                except Exception as error:  # our own fault: who was in it hears of it, and the server goes on
                    log.error("a step failed: %s", trace_of(error))
                    self._abandon(EpigraphError(f"the server failed ({type(error).__name__}).", "Its log says more."))
                self._sweep()

    def _wait(self) -> bool:
        """Until there is something to do; whether there still will be."""
        with self._wake:
            while not (self._arrived or self.schedule.busy or self._stopping):
                self._wake.wait()
            return bool(self._arrived or self.schedule.busy or self._requests or not self._stopping)

    def _receive(self) -> None:
        with self._wake:
            arrived, self._arrived = self._arrived, []
        for _, work in arrived:
            if isinstance(work, Labelling):
                self._receive_labelling(work)
            elif self._needs_nothing(work[0]):
                work[0].tell_echo()
                for choice in work:
                    choice.end("length")
            else:
                self.schedule.waiting.append(work[0])

    @staticmethod
    def _needs_nothing(choice: Choice) -> bool:
        return choice.sampling.max_tokens == 0 and (choice.echo is None or not choice.row.next(1))

    def _receive_labelling(self, work: Labelling) -> None:
        if work.waiting:
            self.schedule.labellings.append(work)
        else:
            work.finish()

    def _sweep(self) -> None:
        """End what was cancelled, and free what is held by requests that are over."""
        with self._wake:
            if not any(request.over or request.cancelled for request in self._requests):
                return
        for choice in self.schedule.choices():
            if choice.request.cancelled and not choice.over:
                choice.end("cancelled")
        for job in self.schedule.jobs():
            if job.request.cancelled:
                job.end("cancelled")
        self.schedule.drop()
        with self._wake:
            gone = [request for request in self._requests if request.over]
            self._requests.difference_update(gone)
            self._finished += len(gone)
            self._wake.notify_all()

    def _abandon(self, error: EpigraphError) -> None:
        """End whatever is being computed or waits for it, also what a step that broke off had in no list."""
        with self._wake:
            coming = {request for request, _ in self._arrived}
            taken = [request for request in self._requests if request not in coming]
        for choice in self.schedule.choices():
            if not choice.over:
                choice.end("error", error=error)
        for job in self.schedule.jobs():
            job.end("error", error)
        for request in taken:
            for number in tuple(request.open):
                request.end(ended(number, "error", error=error))
        self.schedule.drop()

    def _step(self) -> None:
        if isinstance(self.decoder, ConcatenatingDecoder):
            classify_next(self.engine, self.schedule.labellings)
        planned = self.schedule.plan()
        if not planned:
            return
        self._steps += 1
        good = []
        for (reader, part), states in zip(planned, self._compute(planned), strict=True):
            fault = states if isinstance(states, EpigraphError) else self._read(reader, part.elements, states)
            if fault is not None:
                self._fail(reader, fault)
            elif reader.row.complete:
                assert isinstance(states, Tensor)
                good.append((reader, states[-1]))
        self._label([reader for reader, _ in good if isinstance(reader, LabelRow)])
        self._generate([(reader, state) for reader, state in good if isinstance(reader, Choice)])

    def _read(self, reader: Reader, elements: Sequence[int], states: Tensor) -> EpigraphError | None:
        """Take the states of these elements; the fault that only this reader ran into, if any."""
        try:
            self._computed += len(elements)
            reader.row.advance(elements)
            reader.read(elements, states)
            if not isinstance(self.decoder, ConcatenatingDecoder):
                reader.beginning.gather(elements, states)
                reader.beginning.keep(self.decoder, self._kept(reader.beginning), elements)
        except Exception as error:
            return _failed(error)
        return None

    def _compute(self, planned: Sequence[Planned]) -> list[Tensor | EpigraphError]:
        """The states of every part, or why there are none: together, or each alone where that fails."""
        found = together_or_alone(lambda some: list(self.decoder.step([part for _, part in some])), planned)
        computed = [states for states in found if isinstance(states, Tensor)]
        if computed and bool(torch.isfinite(torch.cat(computed)).all()):
            return found
        return [
            states
            if isinstance(states, EpigraphError) or bool(torch.isfinite(states).all())
            else not_numbers(reader.request)
            for (reader, _), states in zip(planned, found, strict=True)
        ]

    def _fail(self, reader: Reader, error: EpigraphError) -> None:
        if isinstance(reader, LabelRow):
            reader.labelling.end("error", error)
        else:
            for choice in (reader, *reader.siblings):
                choice.end("error", error=error)
        self.schedule.leave(reader)

    def _label(self, rows: Sequence[LabelRow]) -> None:
        def answer(some: Sequence[LabelRow]) -> list[Tensor | EpigraphError]:
            found = dict(answers_of(self.engine.trunk, some))
            return [found[row] for row in some]

        for row, found in zip(rows, together_or_alone(answer, rows), strict=True):
            self.schedule.leave(row)
            if isinstance(found, EpigraphError):
                row.labelling.end("error", found)
                continue
            self._labelled += 1
            try:
                row.labelling.take(row, found)
                if row.labelling.complete:
                    row.labelling.finish()
            except Exception as error:
                row.labelling.end("error", _failed(error))

    def _generate(self, read: Sequence[tuple[Choice, Tensor]]) -> None:
        """Choose a token for every sequence that is read to its end, and for those that begin with it."""
        ready = []
        for choice, state in read:
            choice.tell_echo()
            if choice.sampling.max_tokens == 0:
                for each in (choice, *choice.siblings):
                    each.end("length")
                self.schedule.leave(choice)
                continue
            ready += [(each, state) for each in (choice, *self._fork(choice))]
        for (choice, _), chosen in zip(ready, together_or_alone(self._choose, ready), strict=True):
            self._take(choice, chosen)
            if choice.over:
                self.schedule.leave(choice)

    def _take(self, choice: Choice, chosen: tuple[int, Described | None] | EpigraphError) -> None:
        if isinstance(chosen, EpigraphError):
            choice.end("error", error=chosen)
            return
        try:
            choice.take(*chosen)
            self._generated += 1
        except Exception as error:
            choice.end("error", error=_failed(error))

    def _choose(self, ready: Sequence[tuple[Choice, Tensor]]) -> list[tuple[int, Described | None]]:
        """The next token of every choice, and what is told of it."""
        logits = self.engine.trunk.logits(torch.stack([state for _, state in ready]))
        tokens = choose(logits, [choice.sampler for choice, _ in ready])
        told = [n for n, (choice, _) in enumerate(ready) if choice.alternatives is not None]
        described: dict[int, Described] = {}
        if told:
            shown = [ready[n][0].alternatives or 0 for n in told]
            described = dict(zip(told, describe(logits[told], [tokens[n] for n in told], shown), strict=True))
        return [(token, described.get(n)) for n, token in enumerate(tokens)]

    def _fork(self, choice: Choice) -> list[Choice]:
        """The choices that wait for this one's input, as many as there is room for; the others read it themselves."""
        siblings, choice.siblings = choice.siblings, []
        forked = []
        for number, sibling in enumerate(siblings):
            if not self.schedule.admit(sibling):
                self.schedule.waiting.extendleft(reversed(siblings[number:]))
                break
            if isinstance(self.decoder, ConcatenatingDecoder):
                sibling.row.done = sibling.row.end
            else:
                if sibling.row.held is not None:
                    sibling.row.settle([form for _, form in choice.row.blocks])
                self.decoder.copy(sibling.row, choice.row)
            forked.append(sibling)
        return forked

    def _kept(self, beginning: Beginning) -> Cache[Any]:
        """Where states of such a beginning are kept."""
        return self.prompts.cache if beginning.is_prompt else self.texts


def together_or_alone(compute: Callable[[Sequence[T]], Sequence[R]], parts: Sequence[T]) -> list[R | EpigraphError]:
    """What is computed of every part: of all together or, where that fails, of each alone, so that a fault is one part's."""
    try:
        return [*compute(parts)] if parts else []
    except Exception as error:
        if len(parts) == 1:
            return [_failed(error)]
        log.warning("a step failed (%s); its parts are computed alone", type(error).__name__)
        return [found for part in parts for found in together_or_alone(compute, [part])]


def _failed(error: Exception) -> EpigraphError:
    """What a request hears of a fault that it alone ran into."""
    log.error("a request could not be computed: %s", trace_of(error))
    return EpigraphError(f"this request could not be computed ({type(error).__name__}).", "The server's log says more.")
