from pathlib import Path
from typing import Any

import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.cli.difference import find_differences, show_differences
from epigraph.library import Card, Library
from epigraph.library.card import BaseFacts
from epigraph.model import facts
from epigraph.prompts import KeyValue
from epigraph.tasks.task import Task


def store(library: Library, name: str, base: BaseFacts) -> None:
    task = Task.from_rows(["a", "b"], ["x", "y"])
    size = (base.layers, base.kv_heads, 3, base.head_size)
    card = Card(name=name, kind="kv", place="last", trained_parameters=1, base=base, task=task.to_dict())
    library.add(name, [KeyValue(torch.randn(size), torch.randn(size))], card)


def test_prompts_of_bases_with_other_heads_are_not_matched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal hidden size and layers were taken for equal bases, and the product of unequal keys ended the command."""
    from dataclasses import replace

    library, mine = Library(tmp_path), facts(toy_base())
    store(library, "one", mine)
    store(library, "same", mine)
    store(library, "other", replace(mine, kv_heads=2 * mine.kv_heads))

    def found(second: str) -> dict[str, Any]:
        return find_differences(library, "one", second, "", strict=False, base="", device="", dtype="")

    other = found("other")
    assert other["similarity"] is None
    assert other["not_compared"] == "the bases have other axes: key/value heads 2 and 4"
    show_differences(other)
    assert "vectors: not compared, the bases have other axes: key/value heads 2 and 4" in capsys.readouterr().out
    assert found("same")["similarity"]["matched"] == 3
