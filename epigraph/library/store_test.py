import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from epigraph.errors import Corrupt, InputError, NameRefused, NotFound, StorageFailed
from epigraph.library.folder import write_prompt
from epigraph.library.store import Library
from epigraph.library.toys_test import toy_card, toy_embedded, toy_kv
from epigraph.prompts.form import Embedded


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "library")


def fill(library: Library, name: str = "routing", count: int = 3) -> None:
    for seed in range(count):
        library.add(name, [toy_embedded(seed=seed)], toy_card())


def test_the_journey_of_a_prompt(library: Library, tmp_path: Path) -> None:
    fill(library)
    assert library.resolve("routing") == ("routing", 3)
    library.promote("routing", 2, "prod")
    assert library.get("routing@prod").card.reference == "routing@2"
    (form,) = library.get("routing@2").forms
    assert isinstance(form, Embedded)
    assert torch.equal(form.vectors, toy_embedded(seed=1).vectors)

    exported = library.export("routing@prod", tmp_path / "out")
    card = library.import_folder(exported, "billing")
    assert card.reference == "billing@1"
    assert card.lineage.parents == ("routing@2", "routing@1")
    assert card.lineage.how == "imported from folder 'out'; before that tuned"
    assert [(e.name, e.version, e.aliases) for e in library.list()] == [
        ("billing", 1, ()),
        ("routing", 1, ()),
        ("routing", 2, ("prod",)),
        ("routing", 3, ()),
    ]
    assert library.verify() == []
    assert library.card("routing") == library.get("routing").card


def test_a_library_that_is_not_there_is_empty(library: Library) -> None:
    assert library.list() == []
    assert library.verify() == []
    with pytest.raises(NotFound, match=r"there is no prompt 'routing' in library .*: it is empty"):
        library.get("routing")
    assert not library.root.exists()


def test_not_found_names_what_exists(library: Library) -> None:
    fill(library)
    fill(library, "billing", 1)
    library.promote("routing", 2, "prod")
    with pytest.raises(
        NotFound, match=r"no prompt 'rooting' in library .*: it holds billing, routing\. Did you mean 'routing'\?"
    ):
        library.get("rooting")
    with pytest.raises(NotFound, match=r"no 'routing@9': 'routing' has versions 1, 2, 3 and aliases prod \(=2\)\."):
        library.get("routing@9")
    with pytest.raises(NotFound, match=r"Did you mean 'routing@prod'\?"):
        library.get("routing@prd")
    with pytest.raises(NotFound, match="no 'routing@9'"):
        library.promote("routing", 9, "prod")


def test_unsafe_names_reach_no_disk(library: Library) -> None:
    with pytest.raises(NameRefused, match="cannot be used"):
        library.add("../evil", [toy_embedded()], toy_card())
    assert not library.root.exists()


def test_a_removed_number_is_never_given_out_again(library: Library) -> None:
    fill(library)
    library.remove("routing@3")
    assert library.resolve("routing") == ("routing", 2)
    assert library.add("routing", [toy_kv()], toy_card()).version == 4
    library.remove("routing")
    assert library.list() == []
    with pytest.raises(NotFound, match="there is no prompt 'routing'"):
        library.remove("routing")
    assert library.add("routing", [toy_kv()], toy_card()).version == 5
    assert library.verify() == []


def test_an_aliased_version_is_removed_by_force_only(library: Library) -> None:
    fill(library)
    library.promote("routing", 2, "prod")
    for reference in ("routing@2", "routing@prod", "routing"):
        with pytest.raises(InputError, match="is in use as alias 'prod'"):
            library.remove(reference)
    library.remove("routing@prod", force=True)
    assert [entry.version for entry in library.list()] == [1, 3]
    assert library.verify() == []


def test_a_broken_prompt_does_not_hide_the_others(library: Library) -> None:
    fill(library)
    (library.root / "routing" / "2" / "card.toml").write_text("version = ")
    (library.root / "routing" / "aliases.toml").write_text("prod")
    entries = library.list()
    assert [entry.card is None for entry in entries] == [False, True, False]
    assert "not readable as TOML" in entries[1].problem
    assert library.get("routing").card.version == 3
    with pytest.raises(Corrupt, match=r"aliases\.toml is not readable"):
        library.get("routing@prod")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("routing/1/prompt.safetensors", flip, "was changed: sha256 expected"),
        ("routing/1/prompt.safetensors", Path.unlink, "is missing"),
        ("routing/1/card.toml", Path.unlink, "holds no card.toml"),
        ("routing/1/notes.txt", Path.touch, "stray file"),
        ("routing/notes.txt", Path.touch, "stray file"),
        ("notes.txt", Path.touch, "stray file"),
        ("routing/aliases.toml", lambda path: path.write_text("prod = 7"), "means version 7, which is not there"),
        ("routing/1", lambda path: path.rename(path.with_name("5")), "the card says 'routing@1'"),
        ("routing/1/removed", Path.touch, "half removed"),
    ],
)
def test_verify_finds(library: Library, file: str, damage: Callable[[Path], object], said: str) -> None:
    fill(library, count=2)
    assert library.verify() == []
    damage(library.root / file)
    (problem,) = library.verify()
    assert said in problem.message


def test_verify_of_one_prompt_looks_at_it_alone(library: Library) -> None:
    fill(library)
    flip(library.root / "routing" / "1" / "prompt.safetensors")
    assert library.verify("routing") == []
    assert [problem.file for problem in library.verify("routing@1")] == ["prompt.safetensors"]


def test_leftovers_are_ignored_named_when_old_and_swept_up(library: Library) -> None:
    fill(library, count=1)
    left = [library.root / ".tmp-0", library.root / "routing" / ".tmp-1"]
    left[0].mkdir()
    left[1].touch()
    assert library.verify() == []
    assert len(library.list()) == 1
    for path in left:
        os.utime(path, (0, time.time() - 4000))
    assert ["left over by a killed writer" in problem.message for problem in library.verify()] == [True, True]
    fill(library, count=1)
    assert library.verify() == []
    assert not any(path.exists() for path in left)


def test_an_interrupted_removal_is_finished_later(library: Library) -> None:
    fill(library, count=2)
    (library.root / "routing" / "2" / "removed").touch()
    assert library.resolve("routing") == ("routing", 1)
    fill(library, count=1)
    assert [path.name for path in (library.root / "routing" / "2").iterdir()] == ["removed"]
    assert library.verify() == []


def test_what_cannot_be_written_is_storage_failed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="could not store prompt 'routing' in"):
        Library(tmp_path / "file").add("routing", [toy_embedded()], toy_card())


def test_a_damaged_folder_is_not_imported(library: Library, tmp_path: Path) -> None:
    write_prompt(tmp_path / "p", [toy_embedded()], toy_card())
    flip(tmp_path / "p" / "prompt.safetensors")
    with pytest.raises(Corrupt, match=r"prompt\.safetensors was changed"):
        library.import_folder(tmp_path / "p")
    assert library.list() == []


def test_metrics_travel_with_an_import(library: Library, tmp_path: Path) -> None:
    (tmp_path / "m").write_text("{}\n")
    write_prompt(tmp_path / "p", [toy_embedded()], toy_card(), metrics_file=tmp_path / "m")
    assert library.import_folder(tmp_path / "p").reference == "routing@1"
    assert (library.folder("routing") / "metrics.jsonl").read_text() == "{}\n"


def test_threads_get_a_version_each_and_keep_each_others_aliases(library: Library) -> None:
    def add(seed: int) -> int:
        version = library.add("routing", [toy_embedded(seed=seed)], toy_card()).version
        library.promote("routing", version, f"run-{seed}")
        return version

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(add, range(24)))
    assert sorted(versions) == list(range(1, 25))
    assert library.verify() == []
    for seed, version in enumerate(versions):
        stored = library.get(f"routing@run-{seed}")
        assert stored.card.version == version
        assert isinstance(stored.forms[0], Embedded)
        assert torch.equal(stored.forms[0].vectors, toy_embedded(seed=seed).vectors)


WRITERS = """
import os, random, signal, sys, time
from pathlib import Path
from epigraph.library.folder import StoredPrompt
from epigraph.library.store import Library
from epigraph.library.toys_test import toy_card, toy_embedded

library = Library(Path(sys.argv[1]))

def start(count):
    child = os.fork()
    if child:
        return child
    for seed in range(count):
        library.add("routing", [toy_embedded(length=200)], toy_card(portable=True))
    os._exit(0)

if sys.argv[2] == "kill":
    for _ in range(10):
        child = start(10**6)
        time.sleep(random.uniform(0.01, 0.25))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
else:
    for child in [start(15), start(15)]:
        assert os.waitpid(child, 0)[1] == 0
"""


def run_writers(library: Library, how: str) -> None:
    subprocess.run(
        [sys.executable, "-c", WRITERS, str(library.root), how], check=True, timeout=60, cwd=Path(__file__).parents[2]
    )


def test_a_writer_killed_at_any_moment_leaves_nothing_half_written(library: Library) -> None:
    run_writers(library, "kill")
    entries = library.list()
    assert [entry.version for entry in entries] == list(range(1, len(entries) + 1))
    assert len(entries) > 10
    assert library.verify() == []
    assert library.add("routing", [toy_embedded()], toy_card()).version == len(entries) + 1


def test_two_processes_get_a_version_each(library: Library) -> None:
    run_writers(library, "both")
    assert [entry.version for entry in library.list()] == list(range(1, 31))
    assert library.verify() == []


def test_listing_needs_no_torch(library: Library) -> None:
    fill(library, count=1)
    script = """
import sys
from pathlib import Path
from epigraph.library.store import Library
assert Library(Path(sys.argv[1])).list()[0].card.name == "routing"
assert Library(Path(sys.argv[1])).card("routing").version == 1
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", script, str(library.root)], check=True, timeout=60, cwd=Path(__file__).parents[2])
