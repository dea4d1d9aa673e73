"""Ten minutes of everything at once: does the server stay right, and does its memory stay flat?

    python benchmarks/soak.py --minutes 10         # interrupted, the same command goes on; more minutes go on as well
    python benchmarks/soak.py --quick

Mixed traffic over many prompts (labels, texts, streams, several choices), prompts that are added, promoted and removed
meanwhile, clients that vanish in the middle, requests that are wrong. Asked of it: no 5xx, every checked answer equal to the
same prompt's in a process without a server (fp32), and a resident size that does not grow. What happened is kept minute by minute;
whoever goes on starts another server, so the resident size is judged over the longest stretch of one.
"""

import argparse
import asyncio
import contextlib
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import psutil
from kept import Kept
from measuring import parser, show, verdict, write
from serving import CLASSIFY, GENERATE, LABELS, forms, task_for, toy_folder

from epigraph.base import Base, load_base
from epigraph.library import Card, Library
from epigraph.model import PromptModel, facts
from epigraph.tasks.task import Task

PROMPTS = 24
CACHES = "0.02"  # GB each: full within the first minute, so that what grows later is no cache that fills
TEXTS = ["a dog", "the weather of last week and of the next", "7", "one word more", "cards, keys and coins " * 4]
TOKENS = 12
Minute = dict[str, Any]
BAD: list[dict[str, Any]] = [
    {"model": "nope", "prompt": "x"},
    {"model": "classify-kv-0"},
    {"model": "base", "prompt": ""},
    {"model": "base", "prompt": "x", "temperature": -1},
    {"model": "base", "prompt": [10**8]},
    {"model": "classify-kv-0", "prompt": "x " * 100_000},
    {"model": "base", "prompt": "x", "n": 1000},
    {"model": "../../etc/passwd", "prompt": "x"},
]


@dataclass
class Seen:
    """What happened."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    checked: int = 0
    vanished: int = 0
    changed: int = 0
    sizes: list[int] = field(default_factory=list)
    """Bytes resident, second by second."""


def fill(base: Base, root: Path) -> dict[tuple[str, str], str]:
    """Prompts of both kinds and workloads, and what each answers to each text."""
    library = Library(root)
    meant = {}
    for workload in (CLASSIFY, GENERATE):
        for number in range(PROMPTS):
            kind = ("kv", "token")[number % 2]
            name = f"{workload}-{kind}-{number}"
            library.add(name, forms(base, kind, number), card_of(base, task_for(workload), kind))
            model = PromptModel(library.get(name), base)
            meant |= {
                (name, text): one.label or one.output or "" for text, one in zip(TEXTS, model.predict(TEXTS), strict=True)
            }
    return meant


def card_of(base: Base, task: Task, kind: str) -> Card:
    """A card for a prompt that was never trained."""
    settings = {"output_tokens": TOKENS}
    return Card(
        name="x", kind=kind, place="last", trained_parameters=1, base=facts(base), task=task.to_dict(), settings=settings
    )


class Soak:
    """The traffic."""

    def __init__(self, url: str, meant: dict[tuple[str, str], str], until: float, minute: int) -> None:
        self.url, self.meant, self.until, self.minute, self.seen = url, meant, until, minute, Seen()

    async def run(self, base: Base, library: Path, process: psutil.Process) -> Seen:
        """All of it, until time is up."""
        async with httpx2.AsyncClient(timeout=300) as client:
            await asyncio.gather(
                *(self._ask(client, random.Random(f"{self.minute} {n}")) for n in range(8)),
                *(self._vanish(client, random.Random(f"{self.minute} who leaves {n}")) for n in range(2)),
                self._err(client),
                self._change(client, base, Library(library)),
                self._watch(process),
            )
        return self.seen

    async def _ask(self, client: httpx2.AsyncClient, rng: random.Random) -> None:
        asked = list(self.meant)
        while time.monotonic() < self.until:
            name, text = rng.choice(asked)
            body = {
                "model": name,
                "prompt": text,
                "temperature": 0,
                "stream": rng.random() < 0.4,
                "n": rng.choice([1, 1, 2]),
            }
            answer = await client.post(f"{self.url}/completions", json=body)
            self.seen.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                self._check(name, text, said(answer.text) if body["stream"] else whole(answer.json()))

    def _check(self, name: str, text: str, answers: list[str]) -> None:
        self.seen.checked += 1
        if any(answer != self.meant[name, text] for answer in answers):
            self.seen.wrong.append(f"{name} {text!r}: {answers} instead of {self.meant[name, text]!r}")

    async def _vanish(self, client: httpx2.AsyncClient, rng: random.Random) -> None:
        while time.monotonic() < self.until:
            body = {"model": "base", "prompt": "x", "max_tokens": 300, "ignore_eos": True, "stream": rng.random() < 0.5}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.uniform(0.02, 0.6)):
                    await client.post(f"{self.url}/completions", json=body)
            self.seen.vanished += 1

    async def _err(self, client: httpx2.AsyncClient) -> None:
        while time.monotonic() < self.until:
            for body in BAD:
                answer = await client.post(f"{self.url}/completions", json=body)
                self.seen.statuses[answer.status_code] += 1
                if not 400 <= answer.status_code < 500:
                    self.seen.wrong.append(f"{json.dumps(body)[:80]}: status {answer.status_code}")
            await asyncio.sleep(0.5)

    async def _change(self, client: httpx2.AsyncClient, base: Base, library: Library) -> None:
        number = 1000 * self.minute
        while time.monotonic() < self.until:
            number += 1
            name = f"passing-{number % 5}"
            card = await asyncio.to_thread(
                library.add, name, forms(base, "kv", 1000 + number), card_of(base, task_for(CLASSIFY), "kv")
            )
            library.promote(name, card.version, "prod")
            answer = await client.post(f"{self.url}/classify", json={"model": f"{name}@prod", "input": TEXTS[0]})
            self.seen.statuses[answer.status_code] += 1
            if answer.status_code != 200 or answer.json()["data"][0]["label"] not in LABELS:
                self.seen.wrong.append(f"{card.reference}: {answer.text[:100]}")
            library.remove(f"{name}@{card.version}", force=True)
            self.seen.changed += 1
            await asyncio.sleep(0.3)

    async def _watch(self, process: psutil.Process) -> None:
        while time.monotonic() < self.until:
            self.seen.sizes.append(process.memory_info().rss)
            await asyncio.sleep(1.0)


def whole(answer: Any) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


def said(text: str) -> list[str]:
    """The answers of a stream."""
    found: dict[int, str] = {}
    for line in text.split("\n\n"):
        data = line.removeprefix("data: ")
        if data and data != "[DONE]":
            for choice in json.loads(data).get("choices", ()):
                found[choice["index"]] = found.get(choice["index"], "") + choice["text"]
    return list(found.values())


def growth(sizes: Sequence[int]) -> float:
    """The median of the last quarter against that of the second: the caches are full by then (``CACHES``)."""
    quarter = max(1, len(sizes) // 4)
    second, last = (sorted(part) for part in (sizes[quarter : 2 * quarter] or sizes, sizes[-quarter:]))
    return last[len(last) // 2] / max(1, second[len(second) // 2])


def longest(minutes: Sequence[Minute]) -> list[Minute]:
    """The minutes of the server that was asked for the longest time."""
    stretches = Counter(minute["stretch"] for minute in minutes)
    return [minute for minute in minutes if minute["stretch"] == stretches.most_common(1)[0][0]]


class Server:
    """One server for a stretch of minutes, started at the first that is not there yet."""

    def __init__(self, folder: Path, library: Path) -> None:
        flags = ["--library", str(library), "--base", str(folder), "--dtype", "float32", "--port", "0", "--json"]
        self.command = [sys.executable, "-m", "epigraph", "serve", *flags, "--memory", CACHES]
        self.log = library.parent / "server.log"
        self.url = ""
        self.ended: int | None = None
        """Its exit code; None where none was started."""

    def start(self, stack: contextlib.ExitStack) -> None:
        """Until the stack is left; nothing if it runs already."""
        if self.url:
            return
        self.began = time.time()
        log = stack.enter_context(self.log.open("wb"))
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log, text=True)
        stack.callback(self._end)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start: {self.log.read_text(errors='replace')[-2000:]}")
        self.url = json.loads(line)["url"]

    @property
    def faults(self) -> int:
        """Faults that its log tells of so far."""
        return self.log.read_text(errors="replace").count('"event": "fault"')

    def _end(self) -> None:
        self.process.terminate()
        self.ended = self.process.wait()


def ask_for(
    seconds: float, server: Server, meant: dict[tuple[str, str], str], base: Base, library: Path, number: int
) -> Minute:
    """A minute of traffic (the last may be shorter): what happened."""
    before = server.faults
    soak = Soak(server.url, meant, time.monotonic() + seconds, number)
    seen = asyncio.run(soak.run(base, library, psutil.Process(server.process.pid)))
    return {
        "stretch": server.began,
        "statuses": {str(status): count for status, count in sorted(seen.statuses.items())},
        "checked": seen.checked,
        "vanished": seen.vanished,
        "changed": seen.changed,
        "wrong": seen.wrong,
        "log_faults": server.faults - before,
        "sizes": seen.sizes,
    }


def soak_for(asked: argparse.Namespace, base: Base, root: Path) -> tuple[list[Minute], int | None]:
    """All minutes, those that are there already included, and the server's exit code."""
    of_the_question = {name: value for name, value in vars(asked).items() if name != "minutes"}
    kept = Kept(asked.out / "soak-minutes.jsonl", argparse.Namespace(**of_the_question), base=base.fingerprint)
    library, found = root / "library", []
    meant = fill(base, library)
    assert base.path is not None
    server = Server(base.path, library)
    with contextlib.ExitStack() as stack:
        for number in range(math.ceil(asked.minutes)):
            part = min(1.0, asked.minutes - number)
            name = f"minute {number}" if part == 1 else f"{part:g} of minute {number}"
            if name not in kept.known:
                server.start(stack)
            found.append(kept.once(name, partial(ask_for, 60 * part, server, meant, base, library, number)))
            told = {key: found[-1][key] for key in ("statuses", "checked", "log_faults")}
            print(f"{name}: {told}, {len(found[-1]['wrong'])} wrong", flush=True)
    return found, server.ended


def run(asked: argparse.Namespace, root: Path) -> int:
    """Build, serve, ask; 1 if anything was not as it should be."""
    folder = toy_folder(root / "base") if asked.quick else load_base(dtype="float32").path
    assert folder is not None
    base = load_base(folder, dtype="float32")
    minutes, ended = soak_for(asked, base, root)
    wrong = [each for minute in minutes for each in minute["wrong"]]
    statuses: Counter[str] = sum((Counter(minute["statuses"]) for minute in minutes), Counter())
    totals = {key: sum(minute[key] for minute in minutes) for key in ("checked", "vanished", "changed", "log_faults")}
    stretch = longest(minutes)
    facts_of = {"statuses": dict(sorted(statuses.items())), **totals, "wrong": wrong[:20], "exit": ended}
    show(f"{asked.minutes:g} minutes of everything", [{key: str(value) for key, value in facts_of.items()}])
    faults = sum(count for status, count in statuses.items() if int(status) >= 500) + totals["log_faults"]
    sizes = [size for minute in stretch for size in minute["sizes"]]
    results = [
        verdict("faults of the server", faults, most=0),
        verdict("answers that were wrong", len(wrong), most=0),
        verdict(f"resident size over {len(stretch)} minutes, last quarter against second", growth(sizes), most=1.05),
    ]
    write(asked, base, "soak", {**facts_of, "sizes": sizes, "verdicts": results})
    return 0 if all(one["met"] for one in results) or (asked.quick and not wrong and not faults) else 1


def main() -> None:
    """What was asked for."""
    ask = parser(__doc__, rounds=1)
    ask.add_argument("--minutes", type=float, default=10.0)
    asked = ask.parse_args()
    if asked.quick:
        asked.minutes = 0.1
    with tempfile.TemporaryDirectory(prefix="soak-") as root:
        sys.exit(run(asked, Path(root)))


if __name__ == "__main__":
    main()
