from dataclasses import replace

import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.correct.answers import right_answers
from epigraph.correct.fixing import fix
from epigraph.correct.fixing_test import labelled, mistakes, model_of, texts
from epigraph.correct.heart import NEAR, UNSEEN, free_slots, learn_by_heart
from epigraph.correct.margins import wanted_margins
from epigraph.correct.settings import FixConfig
from epigraph.engine import Engine
from epigraph.engine.inspection import Looks, answer_looks
from epigraph.methods import judge
from epigraph.model import PromptModel
from epigraph.prompts import KeyValue

SPARE = 24
DARK = 200.0  # nats below zero, for a mean query


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_base(hidden=64, seed=1), keep=False)


@pytest.fixture(scope="module")
def wide() -> Engine:
    """Heads of 32 numbers: room for keys that some ten texts do not look at."""
    return Engine(toy_base(hidden=128, seed=1), keep=False)


def roomy(engine: Engine, template: str = "{text}{prompt}:") -> PromptModel:
    """A prompt with vectors at which no text looks, as a tuned one has them."""
    model = model_of(engine, labelled(template))
    form, solver = model.method.forms[0], model.method
    assert isinstance(form, KeyValue)
    looks = answer_looks(engine, solver.encode(texts(40, 3)), solver.forms, solver.tree)
    mean = looks.queries.mean((1, 3))
    dark = (-DARK * mean / mean.square().sum(-1, keepdim=True))[:, :, None].expand(-1, -1, SPARE, -1)
    keys, values = torch.cat([form.keys, dark], 2), torch.cat([form.values, torch.zeros_like(dark)], 2)
    shift = model.method.shift
    model.method = model.method.with_forms([KeyValue(keys.contiguous(), values.contiguous())]).with_shift(shift)
    return model


def looks_at(looks: Looks, keys: torch.Tensor) -> torch.Tensor:
    """[L, N, A, G, V]"""
    return torch.einsum("lnagd,lavd->lnagv", looks.queries, keys) - looks.sums[..., None]


def test_the_looks_are_those_of_the_softmax(engine: Engine) -> None:
    """e^look summed over all keys is one: the prompt's keys take less than that, and the text's the rest."""
    model = roomy(engine)
    rows = model.method.encode(texts(12, 4))
    looks = answer_looks(engine, rows, model.method.forms, model.method.tree)
    share = looks_at(looks, model.method.forms[0].keys).exp().sum(-1)
    assert looks.queries.shape[1] == len(rows)
    assert 0 < float(share.min()) <= float(share.max()) < 1 + 1e-5
    wide = answer_looks(engine, rows, model.method.forms, model.method.tree, tokens=1)
    assert torch.equal(wide.sums, looks.sums)


def test_a_correction_looks_at_its_own_slots_and_kept_texts_at_none_that_is_taken(wide: Engine) -> None:
    model = roomy(wide)
    solver, form = model.method, model.method.forms[0]
    own, rest = texts(60, 11)[:3], texts(60, 12)[:8]
    wanted, kept = (answer_looks(wide, solver.encode(rows), solver.forms, solver.tree) for rows in (own, rest))
    slots = free_slots(form, wanted, kept)
    owned = slots.owner >= 0
    assert int(owned.sum()) > 0
    for keys in (form.keys, slots.keys):
        assert float(looks_at(kept, keys).amax((1, 3))[owned].max()) < UNSEEN
    best = looks_at(wanted, slots.keys).amax(3)
    for layer, head, slot in owned.nonzero().tolist():
        assert float(best[layer, int(slots.owner[layer, head, slot]), head, slot]) == pytest.approx(NEAR, abs=0.01)
    assert torch.equal(slots.keys[~owned], form.keys[~owned])


def test_slots_of_what_is_not_mastered_stay_the_prompts_own(engine: Engine) -> None:
    model = roomy(engine)
    solver, form, wrong = model.method, model.method.forms[0], mistakes(model, 2)
    looks = [answer_looks(engine, solver.encode(rows), solver.forms, solver.tree) for rows in (wrong, texts(60, 12)[:8])]
    slots = free_slots(form, *looks)
    none = slots.only(torch.zeros(2, dtype=torch.bool)).in_place(form, torch.ones_like(form.values))
    assert torch.equal(none.keys, form.keys)
    assert torch.equal(none.values, form.values)
    new = learn_by_heart(form, wanted_margins(solver, wrong), *looks)
    assert new.keys.shape == form.keys.shape
    untouched = slots.owner < 0
    assert torch.equal(new.values[untouched], form.values[untouched])


def test_what_the_step_may_not_learn_is_learned_by_heart(engine: Engine) -> None:
    """With no answer elsewhere allowed to change the step gives up; by heart the same corrections are learned, and none changes."""
    model = roomy(engine)
    wrong, kept = mistakes(model, 6), texts(12, 9)
    strict = FixConfig(tolerance=0.0, steps=1)
    result = fix(model, wrong, keep=kept, config=strict)
    assert result.refused is None
    assert result.mastered.by_heart > 0
    assert result.elsewhere.changed == 0
    again = PromptModel(result.prompt, engine.base, engine=engine)
    again.method = again.method.with_shift(model.method.shift)
    assert again.method.forms[0].length == model.method.forms[0].length
    assert int(right_answers(again.method, wrong).sum()) == result.mastered.mastered
    assert "by heart" in result.card.reasons["fix"]


@pytest.mark.parametrize("template", ["{prompt}{text}:", "{text}{prompt}{text}:"])
def test_where_a_text_stands_behind_the_prompt_nothing_is_learned_by_heart(engine: Engine, template: str) -> None:
    model = roomy(engine, template)
    result = fix(model, mistakes(model, 3), keep=texts(40, 9), config=FixConfig(tolerance=0.0, steps=1))
    assert result.mastered.by_heart == 0


def test_by_heart_no_answer_is_given_up_that_is_mastered(engine: Engine) -> None:
    model = roomy(engine)
    result = fix(model, mistakes(model, 6), keep=texts(60, 9), config=FixConfig(tolerance=0.02))
    mastered = result.mastered
    assert mastered.given_up <= len(mastered.missed)
    assert mastered.mastered + len(mastered.missed) == mastered.rows


def test_all_tokens_behind_the_prompt_count(engine: Engine) -> None:
    model = roomy(engine, "{text}{prompt} is:")
    solver = model.method
    rows = solver.encode(texts(10, 4))
    tokens = len(rows[0].segments[-1])
    assert tokens > 1
    looks = answer_looks(engine, rows, solver.forms, solver.tree, tokens=tokens)
    assert looks.queries.shape[1] == tokens * len(rows)
    last = answer_looks(engine, rows, solver.forms, solver.tree)
    assert torch.allclose(looks.sums[:, tokens - 1 :: tokens], last.sums, atol=1e-4)
    given = judge.answer(solver, [replace(row, target=None) for row in texts(10, 4)]).given
    assert len(given) == len(rows)
