import errno
import os
import pickle
import resource
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from epigraph.errors import BaseMismatch, Corrupt, Diverged, NotFound, StorageFailed, Unsupported
from epigraph.library.card import Card
from epigraph.library.cardfile import read_card, write_card
from epigraph.library.folder import read_forms, read_prompt, write_prompt
from epigraph.library.tensors import decode, encode
from epigraph.library.toys_test import OTHER, TOY, toy_card, toy_embedded, toy_kv
from epigraph.prompts import PoolPrompt
from epigraph.prompts.form import Dependent, Embedded, Form, KeyValue


def tensors_of(form: Form) -> list[torch.Tensor]:
    return [form.keys, form.values] if isinstance(form, KeyValue) else [form.vectors]


@pytest.mark.parametrize(
    "forms",
    [
        [toy_embedded()],
        [toy_kv()],
        [toy_embedded(2), toy_embedded(5)],
        [toy_kv(1), toy_kv(2)],
        [toy_embedded(0)],
        [toy_kv(0)],
    ],
)
def test_a_prompt_reads_back_as_it_was_written(tmp_path: Path, forms: list[Form]) -> None:
    metrics = tmp_path / "run.jsonl"
    metrics.write_text('{"loss": 1}\n')
    card = write_prompt(tmp_path / "new" / "routing", forms, toy_card(), metrics_file=metrics)
    stored = read_prompt(tmp_path / "new" / "routing")
    assert stored.card == card
    assert card.lengths == tuple(form.length for form in forms)
    assert card.form == type(forms[0]).__name__
    for form, same in zip(forms, stored.forms, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors_of(form), tensors_of(same), strict=True))
    names = {path.name for path in (tmp_path / "new" / "routing").iterdir()}
    assert names == {"prompt.safetensors", "card.toml", "README.md", "metrics.jsonl"}


def test_tensors_are_stored_in_fp32_without_their_graph(tmp_path: Path) -> None:
    vectors = torch.nn.Parameter(torch.randn(16, 3, dtype=torch.bfloat16)).T
    write_prompt(tmp_path / "p", [Embedded(vectors)], toy_card())
    (form,) = read_prompt(tmp_path / "p").forms
    assert isinstance(form, Embedded)
    assert form.vectors.dtype == torch.float32
    assert not form.vectors.requires_grad
    assert torch.equal(form.vectors, vectors.detach().float())


def test_saving_again_replaces_the_prompt_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    write_prompt(folder, [toy_embedded(seed=1)], toy_card(portable=True, place="first"))
    write_prompt(folder, [toy_kv(seed=2)], toy_card())
    assert read_prompt(folder).card.form == "KeyValue"
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    (folder / "thesis.doc").write_text("years of work")
    with pytest.raises(
        StorageFailed, match=r"exists and is no prompt's folder: it holds 'thesis.doc'\. Choose another folder"
    ):
        write_prompt(folder, [toy_kv()], toy_card())
    assert (folder / "thesis.doc").read_text() == "years of work"


def test_the_readme_shows_scores_and_no_text_of_the_task(tmp_path: Path) -> None:
    write_prompt(tmp_path / "p", [toy_embedded()], toy_card(task={"instruction": "our secret"}))
    page = (tmp_path / "p" / "README.md").read_text()
    assert page.startswith('---\nbase_model: "toy"\nlibrary_name: epigraph\ntags:\n')
    assert "| accuracy | 0.910 (0.880 to 0.930) | 0.600 (0.500 to 0.700) |" in page
    assert "rows: 500, split: test, majority: 0.51" in page
    assert "secret" not in page
    (tmp_path / "p" / "README.md").write_text("my own words")
    read_prompt(tmp_path / "p")


def test_a_prompt_without_scores_claims_none(tmp_path: Path) -> None:
    write_prompt(tmp_path / "p", [toy_embedded()], toy_card(scores={}, cost={}))
    page = (tmp_path / "p" / "README.md").read_text()
    assert "Scores" not in page
    assert "Cost" not in page


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"block0\.vectors is not finite"):
        write_prompt(tmp_path / "p", [Embedded(torch.full((2, 16), torch.nan))], toy_card())
    with pytest.raises(BaseMismatch, match=r"expected block0\.vectors of shape \[3, 32\], found \[3, 16\]"):
        write_prompt(tmp_path / "p", [toy_embedded()], toy_card(base=OTHER))
    with pytest.raises(Unsupported, match="mixes forms or is that of some inputs only"):
        write_prompt(tmp_path / "p", [toy_embedded(), toy_kv()], toy_card())
    with pytest.raises(Unsupported, match="mixes forms or is that of some inputs only"):
        write_prompt(tmp_path / "p", [Embedded(torch.zeros(4, 2, 16))], toy_card())
    with pytest.raises(NotFound, match="there is no metrics file"):
        write_prompt(tmp_path / "p", [toy_embedded()], toy_card(), metrics_file=tmp_path / "none.jsonl")
    with pytest.raises(Unsupported, match="has 2 blocks, and PEFT always puts one prompt first"):
        write_prompt(tmp_path / "p", [toy_embedded(), toy_embedded()], toy_card(portable=True))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """The limit on the size of files lets the first kilobytes through and fails in the middle, like a full disk."""
    folder = tmp_path / "p"
    write_prompt(folder, [toy_embedded(seed=1)], toy_card())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(StorageFailed, match=r"could not store prompt 'routing' in .*: File too large"):
            write_prompt(folder, [toy_embedded(length=50)], toy_card())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    assert read_prompt(folder).card.lengths == (3,)


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "Free some space"), (errno.EROFS, "read-only"), (errno.EACCES, "may write")]
)
def test_the_systems_refusal_says_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StorageFailed, match=rf"{os.strerror(number)}\. .*{hint}"):
        write_prompt(tmp_path / "p", [toy_embedded()], toy_card())
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_storage_failed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="could not store prompt 'routing'"):
        write_prompt(tmp_path / "file" / "p", [toy_embedded()], toy_card())


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_off, flip_a_bit, empty])
@pytest.mark.parametrize("file", ["prompt.safetensors", "card.toml", "adapter_config.json", "adapter_model.safetensors"])
def test_damage_is_noticed_and_the_file_named(tmp_path: Path, damage: Callable[[Path], None], file: str) -> None:
    write_prompt(tmp_path / "p", [toy_embedded()], toy_card(portable=True, place="first"))
    damage(tmp_path / "p" / file)
    with pytest.raises(Corrupt, match=file):
        read_prompt(tmp_path / "p")


@pytest.mark.parametrize("file", ["prompt.safetensors", "adapter_config.json"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    write_prompt(tmp_path / "p", [toy_embedded()], toy_card(portable=True, place="first"))
    (tmp_path / "p" / file).unlink()
    with pytest.raises(Corrupt, match=rf"{file} is missing"):
        read_prompt(tmp_path / "p")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("protocol", [2, 4, 5, "zip"])
def test_a_pickle_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int | str) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "p"
    card = write_prompt(folder, [toy_embedded()], toy_card())
    path = folder / "prompt.safetensors"
    if isinstance(protocol, int):
        path.write_bytes(pickle.dumps(Bomb(), protocol=protocol))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data.pkl", pickle.dumps(Bomb()))
    with pytest.raises(Corrupt, match=r"prompt\.safetensors is a pickle or a zip.*A pickle is never opened"):
        read_prompt(folder)
    reseal(folder, card)
    with pytest.raises(Corrupt, match="A pickle is never opened"):
        read_prompt(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("size", [0x280, 0x480, 0x580])
def test_a_header_that_begins_like_a_pickle_is_read(size: int) -> None:
    """A header of 640 bytes makes a file begin with 80 02, as a pickle does; it must not be taken for one."""
    padded = (save({"x": torch.zeros(1)}, {"pad": "a" * length}) for length in range(size))
    content = next(content for content in padded if int.from_bytes(content[:8], "little") == size)
    assert content[0] == 0x80
    assert decode(content, "x")[0].keys() == {"x"}


def reseal(folder: Path, card: Card) -> None:
    """Write a card that agrees with the files as they are, as an attacker would."""
    files = {name: sha256((folder / name).read_bytes()).hexdigest() for name in card.files}
    write_card(folder, replace(card, files=files))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"block0.vectors": torch.zeros(4, 16)}, r"expected block0\.vectors of shape \[3, 16\], found \[4, 16\]"),
        ({"block0.vectors": torch.zeros(3, 16), "extra": torch.zeros(1)}, "expected tensors"),
        ({"block0.vectors": torch.full((3, 16), torch.inf)}, r"block0\.vectors is not finite"),
    ],
)
def test_a_card_that_agrees_is_not_enough(tmp_path: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    card = write_prompt(tmp_path / "p", [toy_embedded()], toy_card())
    (tmp_path / "p" / "prompt.safetensors").write_bytes(encode(tensors, {"format": "pt", "epigraph": "1"}))
    reseal(tmp_path / "p", card)
    with pytest.raises(Corrupt, match=message):
        read_prompt(tmp_path / "p")


def test_other_dtypes_and_newer_formats_are_refused(tmp_path: Path) -> None:
    card = write_prompt(tmp_path / "p", [toy_embedded()], toy_card())
    path = tmp_path / "p" / "prompt.safetensors"
    path.write_bytes(save({"block0.vectors": torch.zeros(3, 16, dtype=torch.float16)}, {"epigraph": "1"}))
    reseal(tmp_path / "p", card)
    with pytest.raises(Corrupt, match=r"expected block0\.vectors in float32, found torch\.float16"):
        read_prompt(tmp_path / "p")
    path.write_bytes(save({"block0.vectors": torch.zeros(3, 16)}, {"epigraph": "2"}))
    reseal(tmp_path / "p", card)
    with pytest.raises(Unsupported, match="is of format '2'; this epigraph reads '1'"):
        read_prompt(tmp_path / "p")


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    write_prompt(folder, [toy_embedded()], toy_card())
    (folder / "prompt.safetensors").rename(tmp_path / "elsewhere")
    (folder / "prompt.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Corrupt, match="is a link that leads out of its folder"):
        read_prompt(folder)
    (folder / "prompt.safetensors").unlink()
    (folder / "prompt.safetensors").symlink_to("prompt.safetensors")
    with pytest.raises(Corrupt, match="is missing or no plain file"):
        read_prompt(folder)
    (folder / "prompt.safetensors").unlink()
    os.mkfifo(folder / "prompt.safetensors")
    with pytest.raises(Corrupt, match="is missing or no plain file"):
        read_prompt(folder)
    (tmp_path / "linked").symlink_to(folder)
    assert read_card(tmp_path / "linked").name == "routing"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_make_safetensors_fail_otherwise(data: st.DataObject) -> None:
    content = bytearray(encode({"block0.vectors": torch.ones(2, 3)}, {"epigraph": "1"}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    for candidate in (bytes(content), bytes(content[:cut])):
        with suppress(Corrupt):
            decode(candidate, "x")


def test_a_prompt_that_depends_on_the_input_is_stored_whole(tmp_path: Path) -> None:
    prompt = PoolPrompt([toy_kv()], hidden=TOY.hidden)
    written = write_prompt(tmp_path / "p", prompt.fold(), toy_card(kind="pool"))
    assert (written.form, written.lengths) == ("Dependent", (3,))
    (block,) = read_prompt(tmp_path / "p").forms
    assert isinstance(block, Dependent)
    query = torch.randn(4, TOY.hidden)
    (mine,), (theirs,) = prompt.form(query), block.prompt.form(query)  # type: ignore[operator]
    assert torch.equal(mine.keys, theirs.keys)
    with pytest.raises(BaseMismatch, match=r"expected state.own.0 to end in"):
        write_prompt(tmp_path / "q", prompt.fold(), toy_card(kind="pool", base=replace(TOY, layers=3)))
    with pytest.raises(Unsupported, match="depends on the input"):
        write_prompt(tmp_path / "q", prompt.fold(), toy_card(kind="pool", portable=True))
    card = replace(written, kind="reservoir")
    with pytest.raises(Unsupported, match="kind 'reservoir'"):
        read_forms(tmp_path / "p", card)
