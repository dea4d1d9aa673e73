"""The same prompt in another order is the same prompt; others are told apart; what cannot be compared is refused."""

from dataclasses import replace

import pytest
import torch

from epigraph.errors import BaseMismatch, InputError
from epigraph.explaining.explanation import explain
from epigraph.explaining.pair import cka, compare_pair, match
from epigraph.explaining.toys_test import toy_case, toy_forms, toy_model, toy_rows
from epigraph.prompts.shown import without


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_a_prompt_in_another_order_is_matched(kind: str) -> None:
    forms = toy_forms(kind)
    shuffled = [without(form, [2, 0, 3, 1]) for form in forms]
    ordered, found = match(forms, shuffled)
    assert found is not None
    assert ordered is not None
    assert found.cosine == pytest.approx(1, abs=1e-4)
    assert all(value == pytest.approx(1, abs=1e-3) for value in found.cka)
    part = "vectors" if kind == "token" else "keys"
    torch.testing.assert_close(getattr(ordered[0], part), getattr(forms[0], part))
    case = replace(toy_case(kind), other=toy_model(kind, toy_forms(kind, seed=5), "others"))
    pair = compare_pair(case)
    assert len(pair.between) == 11
    assert pair.between[0] == pair.scores[0]
    assert (pair.first, pair.second) == ("moods", "others")
    assert pair.similarity is not None
    assert pair.similarity.cosine < 0.95
    assert len(pair.differs) == min(8, round((1 - pair.agreement.value) * pair.rows))


def test_other_forms_have_nothing_between_them() -> None:
    pair = compare_pair(replace(toy_case("kv"), other=toy_model("token", name="others")))
    assert pair.similarity is None
    assert pair.between == ()
    assert "forms or lengths differ" in pair.why_not


def test_cka_is_one_up_to_rotation() -> None:
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))
    assert cka(x, 3 * x @ turn) == pytest.approx(1, abs=1e-4)


def test_what_cannot_be_compared_is_refused() -> None:
    other = toy_model(name="others")
    other.card = replace(other.card, base=replace(other.card.base, fingerprint="0" * 64))
    with pytest.raises(BaseMismatch, match="'others' stands on base"):
        compare_pair(replace(toy_case(), other=other))
    third = toy_model(name="third")
    third.task = replace(third.task, labels={"good": "good", "worse": "worse"})
    with pytest.raises(InputError, match="'third' good, worse"):
        compare_pair(replace(toy_case(), other=third))


def test_it_is_refused_before_anything_is_measured() -> None:
    other = toy_model(name="third")
    other.task = replace(other.task, labels={"good": "good", "worse": "worse"})
    begun: list[str] = []
    with pytest.raises(InputError, match="Compare prompts of one task"):
        explain(toy_model(), toy_rows(), other=other, stage=lambda name, _done, _total: begun.append(name))
    assert begun == []
