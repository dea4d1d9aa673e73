import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from epigraph.config import TuneConfig, read_toml, without_none, write_toml
from epigraph.errors import ConfigError, NotFound


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"length": 0}, "length 0 was asked; it must be at least 1"),
        ({"epochs": 0}, "epochs 0 was asked"),
        ({"batch": -1}, "batch -1 was asked"),
        ({"patience": 0}, "patience 0 was asked"),
        ({"seed": -1}, "seed -1 was asked; it must be at least 0"),
        ({"rate": 0.0}, "rate 0.0 was asked; it must be a positive number"),
        ({"rate": float("nan")}, "rate nan was asked"),
        ({"clip": float("inf")}, "clip inf was asked"),
        ({"validation": 0.95}, "validation 0.95 was asked; it must lie between 0 and 0.9"),
        ({"holdout": -0.1}, "holdout -0.1 was asked"),
        ({"place": "middle"}, r"place 'middle' is not known\. Choose one of: first, last, both, template"),
        ({"start": "ones"}, r"start 'ones' is not known\. Choose one of: text, .*, prompt:NAME"),
        ({"ensemble": 0}, "ensemble 0 was asked; it must be at least 1"),
        ({"portable": True, "ensemble": 3}, "a portable prompt is one, but an ensemble of 3 was asked"),
        ({"portable": True, "place": "both"}, "a portable prompt stands first, but place 'both' was asked"),
        ({"portable": True, "place": "last"}, "a portable prompt stands first, but place 'last' was asked"),
    ],
)
def test_what_cannot_be_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TuneConfig(**values)


def test_it_goes_through_toml(tmp_path: Path) -> None:
    config = TuneConfig(kind="token", rate=0.1, start="prompt:routing@3", epochs=7)
    write_toml(tmp_path / "c.toml", {"config": config.to_dict(), "nothing": None, "list": [1, None, {"a": None, "b": "ế"}]})
    read = read_toml(tmp_path / "c.toml")
    assert TuneConfig.from_dict(read["config"]) == config
    assert read["list"] == [1, {"b": "ế"}]
    assert "nothing" not in read
    assert [p.name for p in tmp_path.iterdir()] == ["c.toml"]


def test_unknown_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"settings lenght are not known\. Known are: batch, budget, calibrate, clip"):
        TuneConfig.from_dict({"lenght": 3})


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no such file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = 1\nb = \n")
    with pytest.raises(ConfigError, match=r"is not valid TOML: .*line 2"):
        read_toml(tmp_path / "bad.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        read_toml(tmp_path / "bytes.toml")


def test_none_is_left_out_at_any_depth() -> None:
    assert without_none({"a": None, "b": {"c": None, 1: (2, None)}}) == {"b": {"1": [2]}}


def test_every_setting_says_what_it_means() -> None:
    assert all(field.metadata["doc"] for field in dataclasses.fields(TuneConfig))


def test_it_imports_no_torch() -> None:
    """``epigraph --help`` is made from it and must answer at once."""
    script = "import sys, epigraph, epigraph.config, epigraph.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
