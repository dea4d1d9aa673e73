"""What is known before a tuning is said before it, and what is damaged is no fault of ours."""

from pathlib import Path

import pytest

from epigraph.base import Base
from epigraph.config import TuneConfig
from epigraph.errors import ConfigError
from epigraph.tasks.task import Task
from epigraph.tuning import Surroundings, tune
from tests.conftest import Cli, MakeCsv


def test_an_instruction_that_leaves_no_room_is_refused_before_the_tuning(toy: Base) -> None:
    """It was trained to its end, and then scoring failed: a finished tuning was lost, and resuming it failed too."""
    texts, labels = ["a b", "c d"] * 10, ["x", "y"] * 10
    long = Task.from_rows(texts, labels, instruction="say it " * toy.context)
    with pytest.raises(ConfigError, match=r"the instruction of .* tokens leaves no room for a row"):
        tune(toy, long, TuneConfig(epochs=1), around=Surroundings(stage=lambda *_: pytest.fail("something was computed")))


def test_a_template_that_holds_the_answer_is_named(cli: Cli, make_csv: MakeCsv, toy_flags: list[str]) -> None:
    """It said that the columns are not clear, even where a task file says them."""
    data = make_csv()
    answer = cli("tune", data, "--template", "{text} {label}{prompt}\nLabel:", *toy_flags)
    assert answer.code == 2
    assert "the template holds {label}, which is the answer" in answer.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--device", "cpu:foo"], "device 'cpu:foo' was asked, which is none"),
        (["--seed", str(2**70)], "must be below 4,294,967,296"),
    ],
)
def test_flags_that_reached_other_peoples_code(
    cli: Cli, make_csv: MakeCsv, toy_folder: Path, flags: list[str], words: str
) -> None:
    answer = cli("tune", make_csv(), "--base", toy_folder, *flags)
    assert (answer.code, words in answer.err) == (2, True)


def test_an_empty_run_folder_is_damaged(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.toml").write_text("")
    answer = cli("tune", "--resume", run)
    assert answer.code == 2
    assert "does not describe a tuning" in answer.err
