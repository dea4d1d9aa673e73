"""Prompts that PEFT and vLLM understand: out through the command line, into the real PEFT, and back."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

import epigraph
from epigraph.base import Base
from epigraph.engine.plain import stock_attention

# PEFT 0.21 asks a transformers 5.23 model for an attribute by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TEXTS = ["aa a aaa", "ZZZ Z Z", "机器 học"]
PLACES = {"token": ["--portable"], "kv": ["--kind", "kv", "--place", "first"]}


@pytest.fixture(params=PLACES)
def exported(request: pytest.FixtureRequest, cli: Any, toy_flags: list[str], make_csv: Any) -> Path:
    """A prompt that stands first, tuned and exported as a PEFT adapter."""
    flags = [*PLACES[request.param], *toy_flags, "--epochs", "1", "--validation", "0.15"]
    answer = cli("tune", make_csv(rows=32), "--name", request.param, *flags, "--json")
    assert answer.json["settings"]["template"].startswith("{prompt}")
    assert answer.json["settings"]["kind"] == request.param
    return Path(cli("library", "export", request.param, "adapter", "--format", "peft", "--json").json["folder"])


def fresh_model(toy_folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(toy_folder, dtype=torch.float32).eval()


def our_logits(base: Base, folder: Path, text: str) -> torch.Tensor:
    """The whole vocabulary's logits after a row, from our engine."""
    from epigraph.engine.stream import Tail
    from epigraph.tasks.row import Row

    method = epigraph.load(folder, base).method
    rows = method.encode([Row(fields={"text": text})])
    done = method.engine.forward(rows, method.forms, Tail([()]))
    return base.logits(done.hidden[:, int(done.stream.ends[0]) - 1]).detach()[0]


def test_peft_computes_what_we_compute(exported: Path, toy: Base, toy_folder: Path) -> None:
    config = json.loads((exported / "adapter_config.json").read_text())
    kind = "kv" if config["peft_type"] == "PREFIX_TUNING" else "token"
    wrapped = peft.PeftModel.from_pretrained(fresh_model(toy_folder), str(exported)).eval()
    for text in TEXTS:
        ids = torch.tensor([toy.tokenize(text + "\nLabel:")])
        with torch.no_grad():
            theirs = wrapped(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
        ours = our_logits(toy, Path("library") / kind / "1", text)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
        with stock_attention(toy), torch.no_grad():
            bare = toy.model(input_ids=ids).logits[0, -1]
        assert (bare - ours).abs().max() > 1e-3


def test_what_was_exported_comes_back(
    exported: Path, cli: Any, toy_flags: list[str], toy_folder: Path, make_csv: Any
) -> None:
    data = make_csv("test.csv", rows=20, seed=5)
    flags = ["--name", "back", "--task", data, "--base", toy_folder]
    assert cli("library", "import", exported, *flags, "--json").json == {"prompt": "back@1"}
    assert not cli("library", "show", "back", "--json").json["base"]["verified"]
    (kind,) = [folder.name for folder in Path("library").iterdir() if folder.name in PLACES]
    said = [cli("evaluate", name, "--data", data, *toy_flags, "--json").json["scores"] for name in (kind, "back")]
    assert said[0] == said[1]


def test_an_adapter_that_peft_saved_is_evaluated(
    cli: Any, toy: Base, toy_flags: list[str], toy_folder: Path, make_csv: Any, tmp_path: Path
) -> None:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    torch.manual_seed(3)
    wrapped = peft.get_peft_model(fresh_model(toy_folder), config).eval()
    wrapped.save_pretrained(tmp_path / "theirs")
    data = make_csv(rows=24)
    answer = cli("library", "import", tmp_path / "theirs", "--base", toy_folder, "--json")
    assert answer.code == 2
    assert "--task" in answer.json["error"]["hint"]
    assert cli("library", "import", tmp_path / "theirs", "--task", data, "--base", toy_folder).code == 0
    assert cli("evaluate", "theirs", "--data", data, *toy_flags, "--json").json["scores"]["rows"] == 24
    ids = torch.tensor([toy.tokenize("aa a\nLabel:")])
    with torch.no_grad():
        theirs = wrapped(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
    torch.testing.assert_close(our_logits(toy, Path("library/theirs/1"), "aa a"), theirs, atol=1e-4, rtol=0)


def test_a_prompt_after_the_input_is_refused(cli: Any, toy_flags: list[str], make_csv: Any) -> None:
    assert (
        cli("tune", make_csv(rows=24), "--name", "after", *toy_flags, "--epochs", 1, "--budget", 1, "--keep", "soft").code
        == 0
    )
    answer = cli("library", "export", "after", "adapter", "--format", "peft", "--json")
    assert (answer.code, answer.json["error"]["type"]) == (2, "Unsupported")
    assert "--portable" in answer.json["error"]["hint"]
    assert not Path("adapter").exists()
    assert cli("library", "export", "after", "copy").code == 0
    assert cli("library", "import", "copy", "--name", "again", "--json").json == {"prompt": "again@1"}


def test_portable_and_last_contradict_each_other(cli: Any, toy_flags: list[str], make_csv: Any) -> None:
    answer = cli("tune", make_csv(rows=24), "--portable", "--place", "last", *toy_flags, "--json")
    assert answer.code == 2
    assert "a portable prompt stands first, but place 'last' was asked" in answer.json["error"]["message"]
