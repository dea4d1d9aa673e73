import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.distilling.mapping import carry
from epigraph.prompts import Embedded, KeyValue


def test_a_sum_of_rows_becomes_the_same_sum_of_the_new_rows() -> None:
    old, new = toy_base(seed=0), toy_base(seed=1, hidden=32)
    ids = torch.tensor([ord("a"), ord("b"), ord("z")])
    mixed = Embedded(old.embed(ids)[:2] * 0.5 + old.embed(ids)[1:] * 0.25)
    found = carry(old, [mixed], new)
    assert found is not None
    (form,) = found.forms
    assert isinstance(form, Embedded)
    expected = (new.embed(ids)[:2] * 0.5 + new.embed(ids)[1:] * 0.25) * new.table_rms / old.table_rms
    assert form.vectors.shape == (2, 32)
    assert float(torch.cosine_similarity(form.vectors, expected).min()) > 0.5
    assert found.kept > 0.98


def test_one_row_is_that_row() -> None:
    old, new = toy_base(seed=0, hidden=64), toy_base(seed=1, hidden=32)
    row = torch.tensor([ord("q")])
    found = carry(old, [Embedded(old.embed(row))], new)
    assert found is not None
    (form,) = found.forms
    assert isinstance(form, Embedded)
    expected = new.embed(row) * new.table_rms / old.table_rms
    assert float(torch.cosine_similarity(form.vectors, expected)) > 0.9


def test_keys_and_values_go_to_a_copy_only() -> None:
    base = toy_base(seed=0)
    form = KeyValue(torch.ones(2, 2, 3, 4), torch.ones(2, 2, 3, 4))
    copied = carry(base, [form], toy_base(seed=0))
    assert copied is not None
    assert copied.forms[0] is form
    assert carry(base, [form], toy_base(seed=1)) is None


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3"])
def test_across_architectures(architecture: str) -> None:
    found = carry(toy_base(), [Embedded(torch.ones(2, 16))], toy_base(architecture, hidden=32))
    assert found is not None
    assert found.forms[0].vectors.shape == (2, 32)  # type: ignore[union-attr]
