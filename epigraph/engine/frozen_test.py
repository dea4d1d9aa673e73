"""The store: the same answers from disk and memory, shared by processes, within its budgets, private."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from epigraph.base import Base
from epigraph.base.toy import toy_base
from epigraph.engine import Engine, Tree
from epigraph.engine.building import plan
from epigraph.engine.frozen import Text, default_budget
from epigraph.errors import StorageFailed
from epigraph.prompts import KeyValue
from epigraph.tasks.encode import Encoded, Encoder, build_trie
from epigraph.tasks.row import Row
from epigraph.tasks.template import Template

TEXTS = ["short", "a rather longer text, beyond the window", "机器学习", "tiếng Việt"]
LED = "Say whether this is good or bad: {text}\nLabel{prompt}:"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    monkeypatch.setenv("EPIGRAPH_HOME", str(tmp_path))
    return toy_base("llama")


def encoded(base: Base, texts: list[str], template: str = "{text}\nLabel{prompt}:") -> list[Encoded]:
    encoder = Encoder(Template(template), base, base.context)
    return [encoder.encode(Row(fields={"text": text})) for text in texts]


def answers(engine: Engine, rows: list[Encoded]) -> torch.Tensor:
    base = engine.base
    torch.manual_seed(1)
    shape = (base.layers, base.heads, 3, base.head_size)
    form = KeyValue(torch.randn(shape), torch.randn(shape))
    trie = build_trie({"a": "yes", "b": "no"}, Template("{prompt}:"), base)
    return engine.classify(rows, [form], Tree.build(trie, base))


def test_memory_disk_and_another_engine_give_the_same_answers(base: Base) -> None:
    rows = encoded(base, TEXTS)
    held = Engine(base, keep=False)
    expected = answers(held, rows)
    assert held.store.bytes_in_memory > 0
    assert held.store.bytes_on_disk == 0
    kept = Engine(base)
    torch.testing.assert_close(answers(kept, rows), expected, atol=0, rtol=0)
    assert kept.store.bytes_in_memory == 0
    later = Engine(base)
    before = later.flops
    later.freeze(rows)
    assert later.flops == before, "what another engine has written is not computed again"
    torch.testing.assert_close(answers(later, rows), expected, atol=0, rtol=0)


def test_what_is_not_kept_spills_beyond_the_budget(base: Base) -> None:
    rows = encoded(base, TEXTS)
    spilled = Engine(base, keep=False, budget=0)
    found = answers(spilled, rows)
    assert spilled.store.bytes_in_memory == 0
    assert spilled.store.bytes_on_disk > 0
    torch.testing.assert_close(found, answers(Engine(base, keep=False), rows), atol=0, rtol=0)


def test_the_folder_is_private_and_says_nothing_of_the_texts(base: Base) -> None:
    engine = Engine(base)
    engine.freeze(encoded(base, ["a secret of the user"]))
    folder = engine.store.disk.folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert not any(b"secret" in file.read_bytes() for file in folder.iterdir())


def test_a_disk_that_takes_nothing_leaves_the_states_in_memory(base: Base, tmp_path: Path) -> None:
    (tmp_path / "frozen").write_text("a file where the folder should be")
    engine = Engine(base)
    rows = encoded(base, TEXTS)
    assert torch.isfinite(answers(engine, rows)).all()
    assert engine.store.bytes_in_memory > 0
    with pytest.raises(StorageFailed, match=r"exceed the memory budget of 0\.0 GB and could not be written"):
        Engine(base, budget=0).freeze(rows)


def test_a_damaged_shard_is_removed_and_built_again(base: Base) -> None:
    rows = encoded(base, TEXTS)
    first = Engine(base)
    expected = answers(first, rows)
    for file in first.store.disk.folder.iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    torch.testing.assert_close(answers(Engine(base), rows), expected, atol=0, rtol=0)


def test_shards_unused_for_longest_make_room(base: Base) -> None:
    old = Engine(base)
    old.freeze(encoded(base, ["an old text that nobody asks for"]))
    for file in old.store.disk.folder.iterdir():
        os.utime(file, (1, 1))
    engine = Engine(base)
    engine.store.disk._budget = int(2.5 * old.store.bytes_on_disk)  # two texts, not three
    engine.freeze(encoded(base, ["a new text that somebody asks for"]))
    engine.freeze(encoded(base, ["another text that somebody asks for"]))
    later = Engine(base)
    assert later.missing(encoded(base, ["an old text that nobody asks for"]))
    assert not later.missing(encoded(base, ["another text that somebody asks for"]))


@pytest.mark.parametrize("name", ["llama", "gemma3", "mistral", "gpt2"])
def test_a_common_beginning_is_stored_once_and_changes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPIGRAPH_HOME", str(tmp_path))
    base = toy_base(name)
    rows = encoded(base, TEXTS, LED)
    assert all(row.lead > 8 for row in rows)
    apart = [Encoded(row.segments, row.answer) for row in rows]
    led, plain = Engine(base), Engine(base, keep=False)
    torch.testing.assert_close(answers(led, rows), answers(plain, apart), atol=1e-5, rtol=1e-4)
    assert led.store.bytes_on_disk < plain.store.bytes_in_memory
    mixed = [rows[0], apart[1], rows[2], apart[3]]
    torch.testing.assert_close(answers(led, mixed), answers(plain, apart), atol=1e-5, rtol=1e-4)
    both = [led.store.summaries([Text(r.segments[0], r.lead)], base.device) for r in rows]
    alone = [plain.store.summaries([Text(r.segments[0])], base.device) for r in apart]
    torch.testing.assert_close(torch.cat(both), torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_the_plan_keeps_texts_of_one_lead_together_after_their_leads() -> None:
    lead = tuple(range(10))
    texts = [Text((*lead, i), 10) for i in range(3)] + [Text((5, i)) for i in range(3)] + [Text(lead)]
    batches = list(plan(texts))
    assert sorted(t for batch in batches for t in batch) == sorted(texts)
    assert all(len({t.before for t in batch}) == 1 for batch in batches)
    order = [t for batch in batches for t in batch]
    assert order.index(Text(lead)) < min(order.index(t) for t in texts if t.lead)


BUILDER = """
import sys
from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.tasks.encode import Encoded
engine = Engine(toy_base("llama"))
rows = [Encoded(((i + 1, *range(1, 40)), (7,))) for i in range(50)]
engine.freeze(rows)
print(engine.missing(rows), Engine(engine.base).missing(rows))
"""


def test_two_processes_build_the_same_texts_at_once(tmp_path: Path) -> None:
    environment = os.environ | {"EPIGRAPH_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BUILDER]
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in started] == ["[] []", "[] []"]
    assert [process.returncode for process in started] == [0, 0]
    assert not [f for f in (tmp_path / "frozen").rglob("*") if ".partial-" in f.name]


def test_a_shard_that_another_process_removes_meanwhile_is_no_full_disk(base: Base, tmp_path: Path) -> None:
    """Its missing file counted as a disk that refuses, and the states went to memory."""
    engine = Engine(base)
    folder = engine.store.disk.folder
    engine.freeze(encoded(base, ["a text that makes the folder"]))
    (folder / "gone.safetensors").symlink_to(tmp_path / "nothing")
    engine.freeze(encoded(base, TEXTS))
    assert engine.store.bytes_in_memory == 0


def test_a_budget_is_of_the_memory_where_the_states_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's caches on a GPU were as large as the machine's memory let them be, which the GPU did not have."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000 + device.index, 8000))
    assert default_budget(torch.device("cuda", 2)) == 501
    assert default_budget() > 10**6
