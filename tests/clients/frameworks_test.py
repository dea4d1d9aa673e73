"""DSPy, LangChain's OpenAI classes and the `llm` command ask the server as they ask OpenAI."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from epigraph.base import load_base
from epigraph.library import Library
from epigraph.model import load

TEXT = "some text"


@pytest.fixture(scope="module")
def meant(served: Any) -> str:
    model = load(Library(served.library).folder("first"), load_base(served.base, dtype="float32"))
    return str(model.predict([TEXT])[0].output)


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_dspy(served: Any, meant: str, kind: str) -> None:
    import dspy

    lm = dspy.LM(
        "openai/first", api_base=served.url, api_key="none", model_type=kind, temperature=0.0, max_tokens=8, cache=False
    )
    answers = lm(TEXT) if kind == "chat" else lm(prompt=TEXT)
    said = answers[0] if isinstance(answers[0], str) else answers[0]["text"]
    if kind == "chat":
        assert said.strip() == meant
    else:  # DSPy puts words of its own around the text
        assert isinstance(said, str)


def test_langchain(served: Any, meant: str) -> None:
    from langchain_openai import ChatOpenAI, OpenAI

    where = {"model": "first", "base_url": served.url, "api_key": "none", "temperature": 0, "max_retries": 0}
    assert ChatOpenAI(**where).invoke(TEXT).content == meant
    assert "".join(str(chunk.content) for chunk in ChatOpenAI(**where).stream(TEXT)) == meant
    assert OpenAI(**where, max_tokens=8).invoke(TEXT) == meant
    assert OpenAI(**where, max_tokens=8).batch([TEXT, TEXT]) == [meant, meant]


@pytest.mark.parametrize("completion", [False, True])
@pytest.mark.parametrize("flags", [[], ["--no-stream"]])
def test_the_llm_command(served: Any, meant: str, tmp_path: Path, completion: bool, flags: list[str]) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: ours\n  model_name: first\n  api_base: {served.url}\n"
        f"  completion: {str(completion).lower()}\n  can_stream: true\n"
    )
    command = [sys.executable, "-m", "llm", "-m", "ours", TEXT, "-o", "temperature", "0", "-o", "max_tokens", "8", *flags]
    surroundings = os.environ | {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == meant
