from pathlib import Path

import pytest
import torch

from epigraph.base import load_base
from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.methods.rivals import RIVALS
from epigraph.methods.rivals.stock import stock_base
from epigraph.methods.rivals.toys_test import answer_task, label_task, loss, make


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers.utils import logging

    folder, toy = tmp_path_factory.mktemp("bases") / "toy", toy_base()
    logging.disable_progress_bar()
    toy.model.save_pretrained(folder)
    toy.tokenizer.save_pretrained(folder)
    return folder


def test_a_base_in_a_folder_is_loaded_anew_unrounded(folder: Path) -> None:
    base = load_base(folder, dtype="bfloat16", device="cpu")
    copied = stock_base(base, torch.float32)
    expected = load_base(folder, dtype="float32", device="cpu").model
    for a, b in zip(copied.model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a, b)
    assert copied.model is not base.model
    assert (copied.dtype, copied.fingerprint) == (torch.bfloat16, base.fingerprint)


def test_a_base_in_memory_is_copied() -> None:
    base = toy_base()
    Engine(base)
    copied = stock_base(base, torch.float32)
    assert copied.model.config._attn_implementation == "sdpa"
    assert base.model.config._attn_implementation == "epigraph"
    assert not {p.data_ptr() for p in base.model.parameters()} & {p.data_ptr() for p in copied.model.parameters()}
    assert not copied.model.training


@pytest.mark.parametrize("name", RIVALS)
def test_in_half_precision_losses_scores_and_outputs_are_near_those_in_full(folder: Path, name: str) -> None:
    half, single = (Engine(load_base(folder, dtype=dtype, device="cpu")) for dtype in ("bfloat16", "float32"))
    task = label_task()
    one, other = make(name, half, task), make(name, single, task)
    assert {p.dtype for p in one.module.parameters()} == {torch.float32}
    assert float(loss(one).detach()) == pytest.approx(float(loss(other).detach()), rel=0.1)
    assert one.probabilities(task.train.rows) == pytest.approx(other.probabilities(task.train.rows), abs=0.15)
    generating = make(name, half, answer_task(), output_tokens=3)
    assert len(generating.outputs(answer_task().train.rows)) == 3
    assert torch.isfinite(torch.tensor(generating.objective.watch([]).minus_loss))
