import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from epigraph.base.fingerprint import (
    folder_fingerprint,
    model_fingerprint,
    remember_folder,
    remembered_folder,
    weights_hash,
)
from epigraph.base.toy import toy_base
from epigraph.errors import Unsupported


def save(folder: Path, seed: int = 0) -> Path:
    toy_base(seed=seed).model.save_pretrained(folder)
    return folder


def test_the_same_weights_and_meaning_have_the_same_fingerprint(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one"), save(tmp_path / "two")
    found = folder_fingerprint(one)
    assert len(found) == 64
    assert found == folder_fingerprint(one) == folder_fingerprint(two)
    assert found != folder_fingerprint(save(tmp_path / "other", seed=1))


def test_sharding_and_file_names_do_not_count(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one"), save(tmp_path / "two")
    whole = two / "model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    save_file({n: tensors[n] for n in names[1::2]}, two / "part-1.safetensors")
    save_file({n: tensors[n] for n in names[::2]}, two / "part-2.safetensors")
    whole.unlink()
    assert folder_fingerprint(two) == folder_fingerprint(one)


def test_where_and_by_which_version_it_was_saved_does_not_count_but_its_shape_does(tmp_path: Path) -> None:
    one = save(tmp_path / "one")
    found = folder_fingerprint(one)
    config = json.loads((one / "config.json").read_text())
    (one / "config.json").write_text(json.dumps(config | {"transformers_version": "9.9", "_name_or_path": "/elsewhere"}))
    assert folder_fingerprint(one) == found
    (one / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    assert folder_fingerprint(one) != found


def test_a_changed_weight_changes_it_although_it_is_remembered(tmp_path: Path) -> None:
    one = save(tmp_path / "one")
    found = folder_fingerprint(one)
    tensors = load_file(one / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[0] += 1e-6
    save_file(tensors, one / "model.safetensors")
    assert folder_fingerprint(one) != found


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(
        Unsupported, match=r"has no \.safetensors weights; other weight files are pickles, which are never opened"
    ):
        folder_fingerprint(tmp_path)


def test_the_hash_of_weights_notices_any_change() -> None:
    base = toy_base()
    before = weights_hash(base.model)
    assert weights_hash(toy_base().model) == before
    with torch.no_grad():
        next(base.model.parameters()).view(-1)[3] += 1e-6
    assert weights_hash(base.model) != before
    assert model_fingerprint(base.model, {"a": 1}) != model_fingerprint(base.model, {"a": 2})


def test_where_nothing_may_be_written_it_is_found_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that is read-only ended the loading of a base as a fault of Epigraph."""
    one = save(tmp_path / "one")
    expected = folder_fingerprint(one)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "fingerprints").write_text("a file where the folder shall be")
    monkeypatch.setenv("EPIGRAPH_HOME", str(tmp_path / "home"))
    assert folder_fingerprint(one) == expected
    remember_folder(expected, one)
    assert remembered_folder(expected) is None
