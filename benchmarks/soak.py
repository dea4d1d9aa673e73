"""Ten minutes of everything at once: does the server stay right, and does its memory stay flat?

    python benchmarks/soak.py --minutes 10
    python benchmarks/soak.py --quick

Mixed traffic over many prompts (labels, texts, streams, several choices), prompts that are added, promoted and removed
meanwhile, clients that vanish in the middle, requests that are wrong. Asked of it: no 5xx, every checked answer equal to the
same prompt's in a process without a server (fp32), and a resident size that does not grow.
"""

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
from measuring import parser, show, verdict, write
from serving import CLASSIFY, GENERATE, LABELS, forms, task_for, toy_folder

from epigraph.base import Base, load_base
from epigraph.library import Card, Library
from epigraph.model import PromptModel, facts
from epigraph.tasks.task import Task

PROMPTS = 24
TEXTS = ["a dog", "the weather of last week and of the next", "7", "one word more", "cards, keys and coins " * 4]
TOKENS = 12
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
    sizes: list[tuple[float, int]] = field(default_factory=list)


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

    def __init__(self, url: str, meant: dict[tuple[str, str], str], until: float) -> None:
        self.url, self.meant, self.until, self.seen = url, meant, until, Seen()

    async def run(self, base: Base, library: Path, process: psutil.Process) -> Seen:
        """All of it, until time is up."""
        async with httpx2.AsyncClient(timeout=300) as client:
            await asyncio.gather(
                *(self._ask(client, random.Random(n)) for n in range(8)),
                *(self._vanish(client, random.Random(100 + n)) for n in range(2)),
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
        number = 0
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
        started = time.monotonic()
        while time.monotonic() < self.until:
            self.seen.sizes.append((time.monotonic() - started, process.memory_info().rss))
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


def growth(sizes: list[tuple[float, int]]) -> float:
    """The median of the last quarter against that of the second: caches have filled by then."""
    quarter = max(1, len(sizes) // 4)
    middle = [sorted(size for _, size in part) for part in (sizes[quarter : 2 * quarter], sizes[-quarter:])]
    return middle[1][len(middle[1]) // 2] / max(1, middle[0][len(middle[0]) // 2])


def run(asked: argparse.Namespace, root: Path) -> int:
    """Build, serve, ask; 1 if anything was not as it should be."""
    folder = toy_folder(root / "base") if asked.quick else load_base(dtype="float32").path
    assert folder is not None
    base, library = load_base(folder, dtype="float32"), root / "library"
    meant = fill(base, library)
    flags = ["--library", str(library), "--base", str(folder), "--dtype", "float32", "--port", "0", "--json"]
    command = [sys.executable, "-m", "epigraph", "serve", *flags, "--memory", "0.2"]
    with (root / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            until = time.monotonic() + 60 * asked.minutes
            seen = asyncio.run(Soak(url, meant, until).run(base, library, psutil.Process(server.pid)))
        finally:
            server.terminate()
            ended = server.wait()
    faults = sum(count for status, count in seen.statuses.items() if status >= 500)
    facts_of = {
        "statuses": {str(k): v for k, v in sorted(seen.statuses.items())},
        "checked": seen.checked,
        "vanished": seen.vanished,
        "changed": seen.changed,
        "wrong": seen.wrong[:20],
        "log_faults": (root / "server.log").read_text(errors="replace").count('"event": "fault"'),
        "exit": ended,
    }
    show("ten minutes of everything", [{key: str(value) for key, value in facts_of.items()}])
    results = [
        verdict("faults of the server", faults + facts_of["log_faults"], most=0),
        verdict("answers that were wrong", len(seen.wrong), most=0),
        verdict("resident size, last quarter against second", growth(seen.sizes), most=1.05),
    ]
    write(asked, base, "soak", {**facts_of, "sizes": seen.sizes, "verdicts": results})
    return 0 if all(one["met"] for one in results) or (asked.quick and not seen.wrong and not faults) else 1


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
