"""The examples' own commands, as their README gives them, on a toy base and a few rows: the path is whole, figures mean nothing."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "translate_en_fr"
SMALL = {
    "prompt try": ["--rows", "2"],
    "tune": ["--epochs", "1", "--batch", "16", "--budget", "1", "--length", "2", "--validation", "0.2"],
    "predict": ["--json"],
    "compare": ["--seeds", "1", "--trials", "1", "--epochs", "1", "--curve", "none", "--rows", "6", "--tests", "2"],
}


def commands() -> list[list[str]]:
    """Every command of the README, without ``epigraph``."""
    (block,) = re.findall(r"```\n(.*?)```", (EXAMPLE / "README.md").read_text(), flags=re.DOTALL)
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("epigraph ")]


def made_small(command: list[str], toy_flags: list[str]) -> list[str]:
    """The same with a toy base and few rows; the last of two equal flags counts."""
    for name, flags in SMALL.items():
        if command[: len(name.split())] == name.split():
            return [*command, *flags, *(toy_flags if name != "predict" else [])]
    return command


def test_the_whole_path_from_a_hard_prompt_to_a_report(
    cli: Any, toy_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "example")
    monkeypatch.chdir(tmp_path / "example")
    train = Path("train.csv").read_text().splitlines()
    Path("train.csv").write_text("\n".join(train[:11]) + "\n")
    asked = commands()
    assert [command[0] for command in asked] == ["prompt", "prompt", "prompt", "tune", "predict", "compare"]
    answers = [cli(*made_small(command, toy_flags)) for command in asked]
    assert [answer.code for answer in answers] == [0] * len(asked), [a.err for a in answers if a.code]
    listed, predicted = answers[2].out, answers[4].lines
    assert "Translate English to French." in listed
    assert "You translate short English texts to French" in listed
    assert predicted[0]["fields"] == {"english": "The dog is sleeping."}
    assert isinstance(predicted[0]["output"], str)
    page = Path("en-fr.html").read_text()
    for title in ("hard prompt (hard_prompt)", "few-shot, random examples", "soft prompt `kv`", "soft prompt `token`"):
        assert title in page
    assert "failed" not in page
