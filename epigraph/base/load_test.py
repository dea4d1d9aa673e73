from pathlib import Path

import pytest
import torch

from epigraph.base import load_base
from epigraph.base.fingerprint import weights_hash
from epigraph.base.load import choose_device
from epigraph.base.precision import LOOKS, RUNS, bf16_gain, choose_precision
from epigraph.base.toy import toy_base
from epigraph.errors import ConfigError, NotFound, Unsupported


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base, folder = toy_base(), tmp_path_factory.mktemp("base") / "toy"
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


def test_a_folder_is_loaded_as_it_was_saved(folder: Path) -> None:
    base = load_base(folder, dtype="float32")
    assert base.path == folder.resolve()
    assert weights_hash(base.model) == weights_hash(toy_base().model)
    assert base.tokenize("tiếng") == toy_base().tokenize("tiếng")
    assert not any(p.requires_grad for p in base.model.parameters())


def test_the_fingerprint_does_not_depend_on_the_dtype(folder: Path) -> None:
    whole, half = load_base(folder, dtype="float32"), load_base(str(folder), dtype="bfloat16")
    assert half.dtype == next(half.model.parameters()).dtype == torch.bfloat16
    assert whole.fingerprint == half.fingerprint
    assert half.precision.reason == "asked for"


def test_what_is_not_there_or_no_base_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"base '\./nowhere' was asked, but there is no such folder"):
        load_base("./nowhere")
    with pytest.raises(NotFound, match=r"has no config\.json"):
        load_base(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises((Unsupported, NotFound), match=r"safetensors"):
        load_base(tmp_path)
    with pytest.raises(NotFound, match="neither a folder nor could it be fetched"):
        load_base("nobody/nothing")


def test_devices_and_dtypes_that_cannot_be(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"dtype 'fp8' is not known\. Choose one of: auto, float32"):
        load_base(folder, dtype="fp8")
    with pytest.raises(ConfigError, match="device 'tpu' was asked, but this machine has cpu"):
        choose_device("tpu")
    assert choose_device("cpu") == torch.device("cpu")


def test_a_dtype_that_is_not_asked_for_is_measured() -> None:
    found = choose_precision(None, torch.device("cpu"))
    assert found.dtype in (torch.float32, torch.bfloat16)
    assert "products run " in found.reason
    assert found.name in ("float32", "bfloat16")


@pytest.mark.parametrize(("slower", "products"), [(30.0, LOOKS), (1.5, LOOKS + RUNS)])
def test_a_format_that_is_far_behind_is_not_measured_for_long(
    slower: float, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without bf16 instructions every command began with eight seconds of bf16 products that could not change the choice."""
    done: list[torch.dtype] = []

    def took(left: torch.Tensor, _right: torch.Tensor) -> float:
        done.append(left.dtype)
        return slower if left.dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr("epigraph.base.precision._time", took)
    assert bf16_gain.__wrapped__("cpu") == pytest.approx(1 / slower)
    assert done.count(torch.bfloat16) == products


def test_the_reason_of_a_precision_reads_well_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without bf16 instructions it once read "bf16 products run 0.0 times as fast"."""
    for gain, said in (
        (0.02, "fp32 products run 50.0 times as fast as bf16"),
        (3.0, "bf16 products run 3.0 times as fast as fp32"),
    ):
        monkeypatch.setattr("epigraph.base.precision.bf16_gain", lambda _device, gain=gain: gain)
        assert choose_precision("auto", torch.device("cpu")).reason.startswith(said)
