"""Arrays come in from numpy and caikit; whatever is no prompt is refused, and nothing in them runs."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epigraph.errors import BaseMismatch, Corrupt, NotFound, Unsupported
from epigraph.library.array import import_array, is_array
from epigraph.library.toys_test import TOY
from epigraph.prompts.form import Embedded

ROWS = torch.randn(5, TOY.hidden, generator=torch.Generator().manual_seed(0))


class Hostile:
    """Touches a file where it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.touched,)


def caikit(folder: Path, decoder: object = ROWS, config: str = "") -> Path:
    folder.mkdir()
    torch.save(decoder, folder / "decoder.pt")
    if config:
        (folder / "config.yml").write_text(config)
    return folder


def vectors(path: Path) -> torch.Tensor:
    (form,), facts = import_array(path, TOY)
    assert isinstance(form, Embedded)
    assert (facts["kind"], facts["place"], facts["portable"]) == ("token", "first", True)
    assert facts["lengths"] == (5,)
    assert not facts["base"].verified
    assert form.vectors.dtype == torch.float32
    return form.vectors


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_a_prompt(tmp_path: Path, dtype: Any, order: Any) -> None:
    np.save(tmp_path / "p.npy", np.asarray(ROWS.numpy(), dtype=dtype, order=order))
    assert is_array(tmp_path / "p.npy")
    torch.testing.assert_close(vectors(tmp_path / "p.npy"), ROWS, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_caikit_folder_is_a_prompt(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = caikit(tmp_path / "p", ROWS.to(dtype))
    assert is_array(folder)
    torch.testing.assert_close(vectors(folder), ROWS.to(dtype).float())


def test_views_and_parameters_are_read_as_they_are(tmp_path: Path) -> None:
    wide = torch.randn(TOY.hidden + 3, 9)
    torch.testing.assert_close(vectors(caikit(tmp_path / "view", wide.T[2:7, 1:-2])), wide.T[2:7, 1:-2])
    torch.testing.assert_close(vectors(caikit(tmp_path / "parameter", torch.nn.Parameter(ROWS))), ROWS)


def test_what_caikit_says_is_kept(tmp_path: Path) -> None:
    config = "base_model_name: some/model\nverbalizer: 'Text: {{input}}'\ntuning_type: PROMPT_TUNING\nother: 3\n"
    _, facts = import_array(caikit(tmp_path / "p", config=config), TOY)
    assert facts["lineage"].how == (
        "imported from a caikit folder, which says: base_model_name 'some/model', verbalizer 'Text: {{input}}', "
        "tuning_type 'PROMPT_TUNING'"
    )
    assert facts["lineage"].parents == ("array:p",)


# ---- what is refused --------------------------------------------------------------------------------------------------


def test_another_width_is_another_base(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.zeros((5, 24), dtype=np.float32))
    with pytest.raises(BaseMismatch, match=r"has 24 columns; base toy has H=16\. Pass the base it was tuned on with --base"):
        import_array(tmp_path / "p.npy", TOY)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros((5, 2, 16), dtype=np.float32), Unsupported, r"of shape \[5, 2, 16\]; a prompt is a matrix"),
        (np.zeros(16, dtype=np.float32), Unsupported, r"of shape \[16\]; a prompt is a matrix"),
        (np.zeros((5, 16), dtype=np.int64), Unsupported, "holds int64; a prompt is floating-point numbers"),
        (np.full((5, 16), np.nan, dtype=np.float32), Corrupt, "the prompt is not finite"),
        (np.full((5, 16), 1e300), Corrupt, "the prompt is not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_what_is_no_prompt(tmp_path: Path, array: Any, error: type[Exception], message: str) -> None:
    np.save(tmp_path / "p.npy", array)
    with pytest.raises(error, match=message):
        import_array(tmp_path / "p.npy", TOY)


def test_objects_in_an_array_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array([[Hostile(tmp_path / "touched")]], dtype=object), allow_pickle=True)
    with pytest.raises(Corrupt, match=r"is no readable array: .*Objects are never unpickled"):
        import_array(tmp_path / "p.npy", TOY)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "content", [b"", b"no array", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x10\x00not a header....", b"PK\x03\x04"]
)
def test_a_broken_array(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.npy").write_bytes(content)
    with pytest.raises(Corrupt, match="is no readable array"):
        import_array(tmp_path / "p.npy", TOY)


def test_a_header_that_lies_about_the_size(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", ROWS.numpy())
    content = (tmp_path / "p.npy").read_bytes()
    (tmp_path / "p.npy").write_bytes(content.replace(b"(5, 16), }          ", b"(5000000000000, 16)}"))
    with pytest.raises(Corrupt, match="is no readable array"):
        import_array(tmp_path / "p.npy", TOY)


def test_a_hostile_decoder_does_not_run(tmp_path: Path) -> None:
    folder = caikit(tmp_path / "p", Hostile(tmp_path / "touched"))
    with pytest.raises(Corrupt, match=r"asks for \S*touch\S*|asks for \S*getattr, which no tensor needs\. It was not run"):
        import_array(folder, TOY)
    (folder / "decoder.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "touched")))
    with pytest.raises(Corrupt, match=r"is no file that torch\.save wrote"):
        import_array(folder, TOY)
    torch.save(ROWS, folder / "decoder.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(Corrupt, match=r"is no file that torch\.save wrote"):
        import_array(folder, TOY)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("decoder", [{"a": ROWS}, [ROWS, ROWS], OrderedDict(a=ROWS), "text", 3, None, ROWS.int()])
def test_a_decoder_that_is_no_tensor(tmp_path: Path, decoder: object) -> None:
    with pytest.raises((Corrupt, Unsupported), match=r"no tensor needs|not a tensor|holds no tensor"):
        import_array(caikit(tmp_path / "p", decoder), TOY)


@pytest.mark.parametrize("keep", [0, 30, 300, 700])
def test_a_decoder_that_is_cut_off(tmp_path: Path, keep: int) -> None:
    folder = caikit(tmp_path / "p")
    (folder / "decoder.pt").write_bytes((folder / "decoder.pt").read_bytes()[:keep])
    with pytest.raises(Corrupt, match=r"is no file that torch\.save wrote, or is damaged"):
        import_array(folder, TOY)


def repacked(path: Path, replaced: dict[str, bytes], *, packed: bool = False) -> None:
    with zipfile.ZipFile(path) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    how = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", how) as written:
        for name, content in files.items():
            written.writestr(name, replaced.get(name.partition("/")[2], content))


def test_a_decoder_with_too_few_numbers_or_packed(tmp_path: Path) -> None:
    """A packed file may unpack to anything; a shape may reach beyond what is there."""
    folder = caikit(tmp_path / "p")
    repacked(folder / "decoder.pt", {"data/0": b"\0" * 40})
    with pytest.raises(Corrupt, match=r"holds 40 bytes, too few for a tensor of shape \[5, 16\]"):
        import_array(folder, TOY)
    repacked(folder / "decoder.pt", {}, packed=True)
    with pytest.raises(Corrupt, match=r"is packed, as torch\.save never packs"):
        import_array(folder, TOY)


def test_a_tensor_that_repeats_itself_takes_no_memory(tmp_path: Path) -> None:
    folder = caikit(tmp_path / "p", torch.zeros(1, 1).expand(1 << 20, 1 << 20))
    with pytest.raises(Corrupt, match="too few for a tensor of shape"):
        import_array(folder, TOY)


def test_an_encoder_decoder_prompt_and_a_broken_config(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match=r"config\.yml is not readable as YAML"):
        import_array(caikit(tmp_path / "a", config="a: [1"), TOY)
    with pytest.raises(Corrupt, match=r"config\.yml is not readable as YAML: could not determine a constructor"):
        import_array(caikit(tmp_path / "b", config="a: !!python/object/apply:os.system ['touch x']"), TOY)
    with pytest.raises(Corrupt, match="is no table of settings"):
        import_array(caikit(tmp_path / "c", config="- 1"), TOY)
    torch.save(ROWS, caikit(tmp_path / "d") / "encoder.pt")
    with pytest.raises(Unsupported, match="it was tuned on an encoder-decoder model"):
        import_array(tmp_path / "d", TOY)
    with pytest.raises(NotFound, match="there is no file"):
        import_array(tmp_path / "none.npy", TOY)
