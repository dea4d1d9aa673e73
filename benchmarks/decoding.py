"""How much of the bare base's throughput is left when every request brings a prompt of its own?

    ratio = requests a second with prompts / requests a second of the bare base on the same engine, same texts, same batch

    python benchmarks/decoding.py                  # at most 15 minutes; stopped, the same command goes on
    python benchmarks/decoding.py --connections 32 --prompts 1 512 --jobs generate

The batcher in this process, no HTTP: as many requests as there are connections are always in flight; the next is submitted when
one ends. Texts are fresh random tokens, so nothing of them is reused; prompts stand after them, and go round. ``base`` has no
prompt; ``base + P`` has as many more input tokens as a prompt has vectors; ``stock`` is transformers' own ``generate`` over the
same texts as one batch, which starts and ends together; ``few-shot`` has 500 tokens before every text, the same ones, read once.

``exact``: greedy texts of a mix of prompts and the bare base against each request served alone, in bf16 whatever the rates were
measured in: the share that differs, and whether the rounding explains each difference (``exact.py``).

Targets at 32 connections: 512 ``kv`` prompts at least 0.9 of ``base``, 512 ``token`` prompts at least 0.9 of ``base + P``; of the
texts that differ, none between tokens that are further apart than the rounding, which is measured too.
"""

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Event, Lock
from typing import Any

import exact
import torch
from kept import Kept, TimeUp, go_on
from measuring import fresh_engine, median_ratio, open_base, parser, show, verdict, write

from epigraph.base import Base, load_base
from epigraph.base.load import wrap_model
from epigraph.base.toy import toy_base, toy_tokenizer
from epigraph.engine import Engine, Tree
from epigraph.engine.plain import stock_attention
from epigraph.prompts import Embedded, KeyValue
from epigraph.serve.batcher import Batcher
from epigraph.serve.work import BatcherSettings, Carried, Classification, EndEvent, Generation, Sampling
from epigraph.serve.work import Event as Told
from epigraph.tasks.encode import Encoded
from epigraph.tasks.trie import LabelTrie

LENGTH = 8  # vectors of a prompt
FEW_SHOT = 500
PIECE = 32  # texts that are compared at once, and kept
Way = tuple[str, str, int, int]  # what is asked for, of what, connections, prompts


def main() -> None:
    """Measure, print, write."""
    asked = arguments()
    base = open_base(asked)
    kept = Kept(asked.out / "decoding-ways.jsonl", asked, more=("texts",), base=base.fingerprint, dtype=base.precision.name)
    ways = ways_to_measure(asked)
    try:
        seconds = measure(kept, base, ways, asked)
        apart = exactness(kept, in_bf16(base, quick=asked.quick), asked)
    except TimeUp:
        go_on(kept, asked.minutes)
        return
    rows = [
        {
            "job": job,
            "of": what,
            "connections": connections,
            "prompts": prompts,
            "requests/s": 1 / statistics.median(seconds[way]),
            "of base": median_ratio(seconds[job, "base", connections, 0], seconds[way]),
        }
        for way in ways
        for job, what, connections, prompts in [way]
    ]
    show(f"{asked.tokens} input tokens, {asked.answer} generated", rows)
    show("greedy texts in a mix against those of the request alone", [apart])
    found = [*verdicts(asked, seconds), exact.judged(apart)]
    write(asked, base, "decoding", {"rows": rows, "exact": apart, "verdicts": found})


def measure(kept: Kept, base: Base, ways: list[Way], asked: argparse.Namespace) -> dict[Way, list[float]]:
    """Every way's rounds, all ways in turn; the first round warms up and is not among them."""
    found: dict[Way, list[float]] = {way: [] for way in ways}
    with opened(base, asked) as bench:
        for turn, way in itertools.product(range(asked.rounds + 1), ways):
            seconds = kept.once(f"{way} round {turn}", partial(bench.seconds_a_request, way))
            if turn:
                found[way].append(seconds)
            print(f"round {turn} of {asked.rounds}: {way}: {1 / seconds:.2f} a second", flush=True)
    return found


def exactness(kept: Kept, base: Base, asked: argparse.Namespace) -> dict[str, Any]:
    """How many greedy texts differ when others are computed beside them."""
    with opened(base, asked) as bench:
        pieces = range(-(-asked.texts // PIECE))
        found = [kept.once(f"greedy and own, {PIECE} texts, piece {n}", partial(bench.mixed_and_alone, n)) for n in pieces]
    return exact.summary(base, found)


def in_bf16(base: Base, *, quick: bool) -> Base:
    """The same base in bf16."""
    if base.precision.dtype is torch.bfloat16:
        return base
    if quick:
        return wrap_model(toy_base().model.to(torch.bfloat16), toy_tokenizer(), name="toy-bf16")
    return load_base(dtype="bfloat16")


@contextmanager
def opened(base: Base, asked: argparse.Namespace) -> "Iterator[Bench]":
    """The prompts and batchers on a base, until it is left."""
    with fresh_engine(base, keep=False) as engine:
        bench = Bench(engine, asked)
        try:
            yield bench
        finally:
            bench.close()


def ways_to_measure(asked: argparse.Namespace) -> list[Way]:
    """Everything that is compared, prompts beside what they are compared with."""
    found: list[Way] = []
    for job, connections in itertools.product(asked.jobs, asked.connections):
        for what, kind in (("base", "kv"), ("base + P", "token")):
            found += [(job, what, connections, 0), *((job, kind, connections, n) for n in asked.prompts)]
        found += [(job, what, connections, 0) for what in ["few-shot"] + (["stock"] if job == "generate" else [])]
    return found


def verdicts(asked: argparse.Namespace, seconds: dict[Way, list[float]]) -> list[dict[str, Any]]:
    """The targets, at the most connections and prompts that were measured."""
    connections, prompts = max(asked.connections), max(n for n in asked.prompts if n <= 512)
    found = []
    for job in asked.jobs:
        for kind, reference in (("kv", "base"), ("token", "base + P")):
            ratio = median_ratio(seconds[job, reference, connections, 0], seconds[job, kind, connections, prompts])
            what = f"{job}: {prompts} {kind} prompts of {reference}, {connections} connections"
            found.append(verdict(what, ratio, least=0.9))
    return found


class Bench:
    """The prompts, the texts, and one timed run."""

    def __init__(self, engine: Engine, asked: argparse.Namespace) -> None:
        self.engine = engine
        self.base = engine.base
        self.asked = asked
        self.random = random.Random(0)
        self.vocabulary = min(len(self.base.tokenizer), self.base.embedding.weight.shape[0])
        self.carried = {
            kind: [make_prompt(self.base, kind, seed) for seed in range(max(asked.prompts))] for kind in ("kv", "token")
        }
        self.batchers: dict[tuple[int, bool], Batcher] = {}
        self.truth: Base | None = None
        self.shots = self.text(asked.few_shot)
        words = {"yes": self.base.tokenize(" yes"), "no": self.base.tokenize(" no")}
        self.tree = Tree.build(LabelTrie.build(words, self.base.end), self.base)

    def text(self, tokens: int) -> tuple[int, ...]:
        """Random tokens, never the same twice."""
        return tuple(self.random.randrange(self.vocabulary) for _ in range(tokens))

    def seconds_a_request(self, way: Way) -> float:
        """One run."""
        job, what, connections, prompts = way
        count = max(self.asked.requests, connections)
        if what == "stock":
            return self.stock(connections)
        start = self.random.randrange(max(1, prompts))
        jobs = [self.job(job, what, (start + i) % max(1, prompts)) for i in range(count)]
        return run(self.batcher(connections), jobs, connections) / count

    def batcher(self, connections: int, *, forget: bool = False) -> Batcher:
        """One for all runs of so many connections, as a server has it."""
        if (connections, forget) not in self.batchers:
            settings = BatcherSettings(max_rows=connections)
            found = Batcher(self.engine, replace(settings, text_bytes=0) if forget else settings)
            self.batchers[connections, forget] = found
            found.start()
        return self.batchers[connections, forget]

    def close(self) -> None:
        """End their threads."""
        for batcher in self.batchers.values():
            batcher.close(drain=True, timeout=60.0)

    def job(self, job: str, what: str, number: int) -> Generation | Classification:
        """A request with a fresh text."""
        text, cue = self.text(self.asked.tokens), self.text(1)
        prompt = self.carried[what][number] if what in self.carried else None
        before = self.shots if what == "few-shot" else ()
        extra = self.text(LENGTH) if what == "base + P" else ()
        segments = (text, cue) if prompt else (before + text + extra + cue,)
        if job == "classify":
            return Classification(rows=(Encoded(segments),), prompt=prompt, tree=self.tree)
        sampling = Sampling(temperature=0.0, max_tokens=self.asked.answer, ignore_end=True)
        return Generation(segments=segments, prompt=prompt, sampling=sampling)

    def mixed_and_alone(self, number: int) -> exact.Piece:
        """Some greedy texts with others computed beside them, and alone; no states are kept from the one for the other."""
        self.random.seed(f"piece {number}")  # the same texts, whatever was measured before
        kinds = itertools.islice(itertools.cycle(("base", "kv", "token")), PIECE)
        first = number * PIECE
        jobs = [self.job("generate", kind, (first + n) % len(self.carried["kv"])) for n, kind in enumerate(kinds)]
        asked = [replace(j, sampling=replace(j.sampling, logprobs=exact.LIKELY)) for j in jobs if isinstance(j, Generation)]
        batcher = self.batcher(max(self.asked.connections), forget=True)
        mixed, alone = (exact.said(batcher, asked, at_once) for at_once in (max(self.asked.connections), 1))
        self.truth = self.truth or self.base.in_fp32()
        return exact.compare(self.base, self.truth, asked, mixed, alone)

    @torch.no_grad()
    def stock(self, batch: int) -> float:
        """Transformers' own generation of one batch; seconds a request."""
        ids = torch.tensor([self.text(self.asked.tokens + 1) for _ in range(batch)], device=self.base.device)
        answer = self.asked.answer
        with stock_attention(self.base, "sdpa"):
            started = time.perf_counter()
            self.base.model.generate(
                ids, attention_mask=torch.ones_like(ids), min_new_tokens=answer, max_new_tokens=answer, do_sample=False
            )
            return (time.perf_counter() - started) / batch


def run(batcher: Batcher, jobs: list[Generation | Classification], connections: int) -> float:
    """Seconds for all jobs with so many in flight."""
    waiting, lock, done = iter(jobs), Lock(), Event()
    left = len(jobs)

    def submit() -> None:
        with lock:
            job = next(waiting, None)
        if job is not None:
            batcher.submit(job, heard)

    def heard(event: Told) -> None:
        nonlocal left
        if isinstance(event, EndEvent):
            assert event.error is None, event.error
            left -= 1
            submit()
            if not left:
                done.set()

    started = time.perf_counter()
    for _ in range(connections):
        submit()
    done.wait()
    return time.perf_counter() - started


def make_prompt(base: Base, kind: str, seed: int) -> Carried:
    """A prompt of random numbers."""
    drawn: Callable[..., torch.Tensor] = partial(torch.randn, generator=torch.Generator().manual_seed(seed))
    if kind == "token":
        return Carried(name=f"t{seed}", content=f"t{seed}", forms=(Embedded(drawn(LENGTH, base.hidden) * base.table_rms),))
    shape = (base.layers, base.heads, LENGTH, base.head_size)
    return Carried(name=f"k{seed}", content=f"k{seed}", forms=(KeyValue(drawn(shape), drawn(shape)),))


def arguments() -> argparse.Namespace:
    """What was asked."""
    found = parser(__doc__, rounds=2)
    found.add_argument("--minutes", type=float, default=15.0, help="after which nothing begins; the same command goes on")
    found.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    found.add_argument("--prompts", type=int, nargs="+", default=[1, 8, 64, 512])
    found.add_argument("--jobs", nargs="+", default=["generate", "classify"], choices=["generate", "classify"])
    found.add_argument("--requests", type=int, default=64, help="a run; as many as connections at least")
    found.add_argument("--tokens", type=int, default=25, help="of every text; 25 is a sentence of SST-2")
    found.add_argument("--answer", type=int, default=32, help="tokens generated")
    found.add_argument("--texts", type=int, default=6 * PIECE, help="served in a mix and alone; more of them go on")
    found.add_argument("--few-shot", type=int, default=FEW_SHOT, dest="few_shot")
    asked = found.parse_args()
    if asked.quick:
        asked.connections, asked.prompts, asked.requests, asked.answer, asked.few_shot = [1, 4], [1, 8], 8, 4, 64
        asked.texts = PIECE
    return asked


if __name__ == "__main__":
    main()
