"""How many requests a second the server answers, by prompts in rotation and connections, and how long each takes.

    python benchmarks/serving.py --short            # what the targets are about, three rounds: meant to end within 15 minutes on 2 cores
    python benchmarks/serving.py                    # all of it, one round: 15 minutes at a time; the same command goes on
    python benchmarks/serving.py --rounds 3         # goes on as well
    python benchmarks/serving.py --quick            # a toy base, to try the script

The server is a process of its own (`epigraph serve`) and this one its client, over loopback. Each cell is measured for
``--seconds`` after its prompts were asked once, and those that are compared stand near each other in a round, since what such
a machine does in a second changes within minutes: servers with other caches stay up beside the usual one, idle. Workloads: labels
of short texts, and 32 tokens of text. Texts never come twice, so nothing of them is reused but what their template begins with.
Compared with

    bare       a prompt of no vectors: the base itself, same template, same labels
    bare+P     the same with P tokens more of text: what a `token` prompt may cost
    few-shot   no vectors, 500 tokens of examples before the text: their states reused (its best), and not (--forget)
    peft       stock PEFT that switches among 64 prompts, one request at a time, without HTTP: requests for other prompts
               cannot share its batch

Every target is printed with what was asked and what was measured, all at the most connections: 512 `kv` prompts of the bare base,
512 `token` prompts of bare+P, prompts beyond the cache's size (it holds an eighth of them, so loads are included) of those within,
few-shot, peft. Of few-shot with its states reused nothing is asked: it is told.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import torch
from kept import Kept, TimeUp, go_on
from measuring import median_ratio, parser, show, verdict, write

from epigraph.base import Base, load_base
from epigraph.base.load import load_embedding
from epigraph.base.toy import toy_base
from epigraph.library import Card, Library
from epigraph.model import facts
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.tasks.task import Task

P = 8
USUAL, TIGHT, FORGETFUL, PEFT = "usual", "tight", "forgetful", "peft"  # who is asked
MOST_TOKEN = 512  # prompts of kind token; the target says no more of them
LABELS = ("good", "bad", "neither")
WORDS = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
]
WRITTEN = 32  # tokens of a generation
CLASSIFY, GENERATE = "classify", "generate"
Cell = dict[str, Any]
Server = AbstractContextManager[str]
RATES = "rates"  # of every round, in a cell


# ---- the library -------------------------------------------------------------------------------------------------------


def task_for(workload: str, beginning: str = "") -> Task:
    """Short texts with labels, or to be gone on from."""
    braced = beginning.replace("{", "{{").replace("}", "}}")
    if workload == CLASSIFY:
        template = f"{braced}{{text}}\nLabel{{prompt}}:"
        return Task.from_rows(["a", "b", "c"], LABELS, template=template)
    return Task.from_rows(["a", "b"], ["c", "d"], kind="generation", template=f"{braced}{{text}}\nOutput{{prompt}}:")


def forms(base: Base, kind: str, seed: int, length: int = P) -> list[Form]:
    """Random vectors of about the size of trained ones: speed does not depend on what they say."""
    rng = torch.Generator().manual_seed(seed)
    if kind == "token":
        return [Embedded(base.table_rms * torch.randn(length, base.hidden, generator=rng))]
    shape = (base.layers, base.heads, length, base.head_size)
    return [KeyValue(torch.randn(shape, generator=rng), torch.randn(shape, generator=rng))]


def fill(base: Base, root: Path, most: int) -> None:
    """Every prompt that the cells ask for: classify-kv-0 … and so on."""
    library, said = Library(root), facts(base)
    shots = few_shot(base)
    for workload in (CLASSIFY, GENERATE):
        plain, long = task_for(workload), task_for(workload, shots)
        for kind in ("kv", "token"):
            card = Card(name="x", kind=kind, place="last", trained_parameters=1, base=said, task=plain.to_dict())
            for number in range(most if kind == "kv" else min(most, MOST_TOKEN)):
                library.add(f"{workload}-{kind}-{number}", forms(base, kind, number), card)
        card = Card(name="x", kind="kv", place="last", trained_parameters=0, base=said, task=plain.to_dict())
        library.add(f"{workload}-bare", forms(base, "kv", 0, 0), card)
        library.add(f"{workload}-few", forms(base, "kv", 0, 0), replace(card, task=long.to_dict()))


def few_shot(base: Base) -> str:
    """About 500 tokens of examples."""
    rng, text = random.Random(1), ""
    while len(base.tokenize(text)) < min(500, base.context // 2):
        text += f"{' '.join(rng.choices(WORDS, k=12))}\nLabel: {rng.choice(LABELS)}\n\n"
    return text


# ---- the server, in its own process ------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(folder: Path, library: Path, dtype: str, *flags: str) -> Iterator[str]:
    """A server; its address."""
    command = [sys.executable, "-m", "epigraph", "serve", "--port", "0", "--json", "--base", str(folder), "--dtype", dtype]
    with (library.parent / "server.log").open("ab") as log:
        server = subprocess.Popen(
            [*command, "--library", str(library), *flags], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                raise SystemExit(f"the server did not start; see {log.name}")
            yield json.loads(line)["url"]
        finally:
            server.terminate()
            server.wait()


# ---- the client ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a cell asks: prompts in rotation, by this many connections."""

    workload: str
    kind: str
    prompts: int
    connections: int
    extra_words: int = 0
    server: str = USUAL

    @property
    def shown(self) -> str:
        """What is asked, and of which server."""
        words = f"+{self.extra_words}" if self.extra_words else ""
        return self.kind + words + {TIGHT: ", cache of 1/8", FORGETFUL: ", not reused"}.get(self.server, "")

    @property
    def names(self) -> list[str]:
        if self.kind in ("bare", "few"):
            return [f"{self.workload}-{self.kind}"]
        return [f"{self.workload}-{self.kind}-{number}" for number in range(self.prompts)]


_texts = itertools.count(100_000)  # as many digits in all


def text(extra: int = 0) -> str:
    """Some 16 words, never the same twice."""
    number = next(_texts)
    rng = random.Random(number)
    return f"{number} " + " ".join(rng.choices(WORDS, k=15 + extra))


def question(load: Load, name: str) -> tuple[str, dict[str, Any]]:
    """One request."""
    said = text(load.extra_words)
    if load.workload == CLASSIFY:
        return "/classify", {"model": name, "input": said}
    body = {"model": name, "prompt": said, "max_tokens": WRITTEN, "ignore_eos": True, "temperature": 0}
    return "/completions", body


async def drive(url: str, load: Load, seconds: float, known: set[str]) -> Cell:
    """Ask for ``seconds`` after each prompt was asked once (``known`` are those that were); what came of it."""
    names = itertools.cycle(load.names)
    took: list[float] = []
    limits = httpx2.Limits(max_connections=load.connections)
    async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=600) as client:

        async def ask(name: str, *, short: bool = False) -> float:
            path, body = question(load, name)
            body |= {"max_tokens": 1} if short and "max_tokens" in body else {}
            started = time.perf_counter()
            answer = await client.post(f"{url}{path}", json=body)
            answer.raise_for_status()
            return time.perf_counter() - started

        async def visit(turn: Iterator[str]) -> None:
            for name in turn:
                await ask(name, short=True)

        async def keep_asking(until: float) -> None:
            while time.perf_counter() < until:
                took.append(await ask(next(names)))

        first = iter([name for name in load.names if name not in known])
        known |= set(load.names)
        await asyncio.gather(*(visit(first) for _ in range(load.connections)))
        started = time.perf_counter()
        await asyncio.gather(*(keep_asking(started + seconds) for _ in range(load.connections)))
        passed = time.perf_counter() - started
    ranked = sorted(took)
    quantiles = {f"p{q} ms": 1000 * ranked[min(len(ranked) - 1, q * len(ranked) // 100)] for q in (50, 95, 99)}
    return {
        "workload": load.workload,
        "kind": load.shown,
        "prompts": load.prompts,
        "connections": load.connections,
        "requests a second": len(took) / passed,
        **quantiles,
    }


class Rivals:
    """The servers, each started when it is first asked and then kept up, and stock PEFT."""

    def __init__(self, asked: argparse.Namespace, folder: Path, servers: Mapping[str, Callable[[], Server]]) -> None:
        self.asked, self.folder, self.servers = asked, folder, servers
        self.stack = contextlib.ExitStack()
        self.urls: dict[str, str] = {}
        self.known: dict[str, set[str]] = {}

    def cell(self, load: Load) -> Cell:
        """One cell, measured now."""
        if load.server == PEFT:
            rate = peft_apart(self.folder, self.asked, load.workload)
            of = {"workload": load.workload, "kind": PEFT, "prompts": load.prompts, "connections": load.connections}
            return {**of, "requests a second": rate}
        if load.server not in self.urls:
            self.urls[load.server] = self.stack.enter_context(self.servers[load.server]())
        known = self.known.setdefault(load.server, set())
        return asyncio.run(drive(self.urls[load.server], load, self.asked.seconds, known))


def measure(kept: Kept, loads: Sequence[Load], rivals: Rivals, rounds: int) -> list[Cell]:
    """Every cell, all of them in turn ``rounds`` times; the round of median rate, and the rates of all rounds."""
    found: dict[Load, list[Cell]] = {load: [] for load in loads}
    with rivals.stack:
        for turn, load in itertools.product(range(rounds), loads):
            name = f"{load} round {turn}"
            found[load].append(kept.once(name, partial(rivals.cell, load)))
            print(f"{name}: {rate_of(found[load][-1]):.2f} a second", flush=True)
    return [{**sorted(cells, key=rate_of)[len(cells) // 2], RATES: [*map(rate_of, cells)]} for cells in found.values()]


def rate_of(cell: Cell) -> float:
    return float(cell["requests a second"])


# ---- stock PEFT ----------------------------------------------------------------------------------------------------------


def peft_rate(folder: Path, dtype: str, workload: str, seconds: float, prompts: int = 64) -> float:
    """Requests a second of stock PEFT that switches among prompts, one request at a time."""
    from peft import PromptTuningConfig, TaskType, get_peft_model

    base = load_base(folder, dtype=dtype)
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=P)
    model = get_peft_model(base.model, config, adapter_name="0").eval()
    for number in range(1, prompts):
        model.add_adapter(str(number), config)
    labels = torch.tensor([base.tokenize(f" {label}")[0] for label in LABELS])
    cue = "\nLabel:" if workload == CLASSIFY else "\nOutput:"
    done, started = 0, time.perf_counter()
    with torch.inference_mode():
        while time.perf_counter() - started < seconds:
            model.set_adapter(str(done % prompts))
            ids = torch.tensor([base.tokenize(text() + cue)])
            mask = torch.ones_like(ids)
            if workload == CLASSIFY:
                int(model(input_ids=ids, attention_mask=mask).logits[0, -1, labels].argmax())
            else:
                model.generate(
                    input_ids=ids, attention_mask=mask, max_new_tokens=WRITTEN, min_new_tokens=WRITTEN, do_sample=False
                )
            done += 1
    return done / (time.perf_counter() - started)


def peft_apart(folder: Path, asked: argparse.Namespace, workload: str) -> float:
    """The same in a process of its own, as the server is."""
    arguments = ["--peft", workload, "--folder", str(folder), "--seconds", str(asked.seconds), "--dtype", asked.dtype]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.splitlines()[-1])


# ---- all of it -----------------------------------------------------------------------------------------------------------


def plan(asked: argparse.Namespace) -> list[Load]:
    """All cells of a round, prompts beside what they are compared with; the most connections first, since each prompt is asked once
    before, by as many. What only the targets are about is asked by the most connections alone."""
    loads = []
    widest, most = max(asked.connections), max(asked.prompts)
    for workload, connections in itertools.product((CLASSIFY, GENERATE), sorted(asked.connections, reverse=True)):
        load = partial(Load, workload=workload, connections=connections)
        apart = connections == widest
        loads.append(load(kind="bare", prompts=1))
        loads += [load(kind="kv", prompts=n) for n in asked.prompts]
        loads += [load(kind="kv", prompts=most, server=TIGHT), load(kind=PEFT, prompts=64, server=PEFT)] if apart else []
        loads.append(load(kind="bare", prompts=1, extra_words=P))
        loads += [load(kind="token", prompts=n) for n in asked.prompts if n <= MOST_TOKEN]
        loads.append(load(kind="few", prompts=1))
        loads += [load(kind="few", prompts=1, server=FORGETFUL)] if apart else []
    return loads


def run(asked: argparse.Namespace, root: Path) -> None:
    """Build, serve, ask, compare."""
    folder = toy_folder(root / "base") if asked.quick else load_base(dtype=asked.dtype).path
    assert folder is not None
    base, library = load_embedding(folder), root / "library"
    kept = Kept(asked.out / f"serving-{'short-' if asked.short else ''}cells.jsonl", asked, base=base.fingerprint)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    print(f"{max(asked.prompts)} prompts a kind are written …", flush=True)
    fill(base, library, max(asked.prompts))
    held = max(asked.prompts) * kv_bytes(base) * 3
    roomy = ["--memory", f"{max(1.0, 2 * held / 1e9):.2f}", "--queue", "1024"]
    server = partial(serving, folder, library, asked.dtype)
    narrow = f"{max(asked.prompts) / 8 * kv_bytes(base) / 1e9:.6f}"
    servers = {
        USUAL: partial(server, *roomy),
        TIGHT: partial(server, "--memory", narrow, "--queue", "1024"),
        FORGETFUL: partial(server, "--forget", "--queue", "1024"),
    }
    try:
        cells = measure(kept, plan(asked), Rivals(asked, folder, servers), asked.rounds)
    except TimeUp:
        go_on(kept, asked.minutes)
        return
    show("the server under load", [{k: v for k, v in cell.items() if k != RATES} for cell in cells])
    write(asked, base, "serving", {"cells": cells, "verdicts": verdicts(cells, max(asked.prompts), max(asked.connections))})


def verdicts(cells: Sequence[Cell], most: int, widest: int) -> list[dict[str, Any]]:
    """The targets: asked and measured, each within a round."""

    def rates(workload: str, kind: str, prompts: int = 1) -> list[float]:
        same = [c for c in cells if (c["workload"], c["kind"], c["connections"]) == (workload, kind, widest)]
        found: list[float] = min(same, key=lambda c: abs(c["prompts"] - prompts))[RATES]
        return found

    found = []
    for workload, rival in ((CLASSIFY, 3.0), (GENERATE, 8.0)):
        of = partial(rates, workload)
        many, full = of("kv", 512), of("kv", most)
        ratios: list[tuple[str, float, float | None]] = [
            ("512 kv prompts against the bare base", median_ratio(many, of("bare")), 0.9),
            (
                f"512 token prompts against the bare base with {P} tokens more",
                median_ratio(of("token", 512), of(f"bare+{P}")),
                0.9,
            ),
            ("beyond the cache against within", median_ratio(of("kv, cache of 1/8", most), full), 0.6),
            ("512 kv prompts against few-shot, its states reused", median_ratio(many, of("few")), None),
            ("512 kv prompts against few-shot, not reused", median_ratio(many, of("few, not reused")), 5.0),
            ("64 kv prompts against peft that switches among 64", median_ratio(of("kv", 64), of("peft", 64)), rival),
        ]
        found += [verdict(f"{workload}: {what}", ratio, least=least) for what, ratio, least in ratios]
    return found


def kv_bytes(base: Base) -> int:
    """A kv prompt's bytes as it is stored."""
    return 8 * base.layers * base.heads * P * base.head_size


def toy_folder(folder: Path) -> Path:
    """A toy base on disk."""
    base = toy_base()
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


def main() -> None:
    """What was asked for."""
    ask = parser(__doc__, rounds=1)
    ask.add_argument("--seconds", type=float, default=5.0, help="of a cell")
    ask.add_argument("--minutes", type=float, default=15.0, help="after which no cell begins; the same command goes on")
    ask.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    ask.add_argument("--prompts", type=int, nargs="+", default=[1, 8, 64, 512, 2048])
    ask.add_argument("--short", action="store_true", help="32 connections, 64 and 512 prompts, three rounds")
    ask.add_argument("--peft", default="", help=argparse.SUPPRESS)
    ask.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = ask.parse_args()
    if asked.peft:
        print(peft_rate(asked.folder, asked.dtype, asked.peft, asked.seconds))
        return
    if asked.short:
        asked.connections, asked.prompts, asked.rounds = [32], [64, 512], 3
    if asked.quick:
        asked.seconds, asked.connections, asked.prompts, asked.dtype = 0.5, [1, 4], [1, 8], "float32"
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        run(asked, Path(root))


if __name__ == "__main__":
    main()
