"""Other people's clients; run by `make test-clients`, in an environment that has them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import pytest

CLIENTS = ("lm_eval", "dspy", "langchain_openai", "llm")
collect_ignore_glob = [] if all(find_spec(name) for name in CLIENTS) else ["*_test.py"]


@dataclass
class Served:
    """A server in a process of its own: its address, its base's folder, its library."""

    url: str
    base: Path
    library: Path


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    import json

    import epigraph
    from epigraph.base import load_base
    from epigraph.base.toy import toy_base
    from epigraph.engine import Engine
    from epigraph.library import Library
    from epigraph.tasks.task import Task
    from epigraph.tuning.surroundings import Surroundings

    root = tmp_path_factory.mktemp("served")
    toy = toy_base(seed=3)
    toy.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    toy.model.save_pretrained(root / "base")
    toy.tokenizer.save_pretrained(root / "base")
    base = load_base(root / "base", dtype="float32")
    rows = [f"what is {i}" for i in range(24)]
    task = Task.from_rows(rows, [str(i) for i in range(24)], kind="generation", template="{prompt}{text}\nOutput:")
    task = replace(task, output_tokens=8)
    config = epigraph.TuneConfig(kind="token", length=3, start="random", rate=0.5, epochs=8)
    engine, around = Engine(base, keep=False), Surroundings(runs=root / "runs")
    tuned = epigraph.tune(base, task, config, name="first", engine=engine, around=around).prompt.stored
    Library(root / "library").add("first", tuned.forms, tuned.card)
    flags = ["--base", str(root / "base"), "--library", str(root / "library"), "--dtype", "float32", "--port", "0", "--json"]
    command = [sys.executable, "-m", "epigraph", "serve", *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OPENAI_API_KEY": "none"})
    assert server.stdout is not None
    try:
        yield Served(json.loads(server.stdout.readline())["url"], root / "base", root / "library")
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()
