"""What is looked into is what happens; hidden is gone; both for every architecture, place and form."""

import pytest
import torch

from epigraph.base import Base
from epigraph.base.toy import toy_base
from epigraph.engine import Engine, Tree, generate
from epigraph.engine.inspection import Look, final_norm, first_values, inspect, label_scores, label_tail, tree_scores
from epigraph.engine.plain import plain_states
from epigraph.engine.stream import Tail
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.prompts.shown import show, without
from epigraph.tasks.encode import Encoded, Encoder, build_trie
from epigraph.tasks.row import Row
from epigraph.tasks.template import Template

TEMPLATES = {"last": "{text}{prompt}\nLabel:", "first": "{prompt}{text}\nLabel:", "both": "{prompt}{text}{prompt}\nLabel:"}
P = 4


@pytest.fixture(scope="module", params=["llama", "gemma3", "gpt2"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(toy_base(request.param), budget=10**9)


def encoded(base: Base, template: str) -> list[Encoded]:
    encoder = Encoder(Template(template), base, base.context)
    return [encoder.encode(Row(fields={"text": text})) for text in ("short", "a rather longer text, beyond the window")]


def make_forms(base: Base, kind: str, blocks: int) -> list[Form]:
    torch.manual_seed(1)
    if kind == "token":
        return [Embedded(torch.randn(P, base.hidden) * base.table_rms) for _ in range(blocks)]
    shape = (base.layers, base.heads, P, base.head_size)
    return [KeyValue(torch.randn(shape), torch.randn(shape)) for _ in range(blocks)]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["token", "kv"])
def test_the_look_is_the_pass(engine: Engine, kind: str, template: str) -> None:
    rows = encoded(engine.base, TEMPLATES[template])
    forms = make_forms(engine.base, kind, len(rows[0].segments) - 1)
    tree = Tree.build(build_trie({"a": "alpha", "b": "beta"}, Template(TEMPLATES[template]), engine.base), engine.base)
    expected = engine.classify(rows, forms, tree)
    with torch.no_grad():
        seen = inspect(engine, rows, forms, label_tail(tree, 2), Look(states=True, weights=True))
        found = tree_scores(engine, seen.hidden, seen.stream.ends, tree)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(label_scores(engine, rows, [forms], tree), expected, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(final_norm(engine.base)(seen.states[-1]), seen.hidden, atol=1e-4, rtol=1e-3)
    assert len(seen.states) == engine.base.layers + 1
    prompt = seen.prompt_columns(forms)
    for weights in seen.weights.values():
        assert prompt.shape == (2, weights.shape[-1])
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["token", "kv"])
def test_a_hidden_vector_has_no_weight_and_no_effect_whatever_it_is(engine: Engine, kind: str, template: str) -> None:
    rows = encoded(engine.base, TEMPLATES[template])
    forms = make_forms(engine.base, kind, len(rows[0].segments) - 1)
    shown = torch.tensor([True, False, True, True])
    other = [_scrambled(form, 1) for form in forms]
    tail = Tail([()] * 2)
    with torch.no_grad():
        one = engine.forward(rows, [show(f, shown) for f in forms], tail).hidden
        two = engine.forward(rows, [show(f, shown) for f in other], tail).hidden
        full = engine.forward(rows, forms, tail)
        whole = inspect(engine, rows, [show(f, shown) for f in forms], tail, Look(weights=True))
    for b in range(2):
        end = full.stream.ends[b] - 1
        torch.testing.assert_close(one[b, end], two[b, end], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(one[b, end], whole.hidden[b, whole.stream.ends[b] - 1], atol=1e-4, rtol=1e-3)
        assert not torch.allclose(one[b, end], full.hidden[b, end], atol=1e-4)
    generated = [generate(engine, rows, [show(f, shown) for f in which], 3) for which in (forms, other)]
    assert generated[0] == generated[1]


def _scrambled(form: Form, at: int) -> Form:
    if isinstance(form, Embedded):
        vectors = form.vectors.clone()
        vectors[at] = 5.0
        return Embedded(vectors)
    keys, values = form.keys.clone(), form.values.clone()
    keys[:, :, at], values[:, :, at] = 5.0, -5.0
    return KeyValue(keys, values)


def test_the_last_vectors_hidden_are_vectors_that_were_never_there(engine: Engine) -> None:
    """Behind the last vector nothing closes up if the text's positions are kept: equal to a shorter prompt before a gap."""
    base = engine.base
    rows = encoded(base, TEMPLATES["last"])
    (form,) = make_forms(base, "kv", 1)
    assert without(form, [0, 2]).length == 2
    with torch.no_grad():
        none = engine.forward(rows, [show(form, torch.zeros(P, dtype=torch.bool))], Tail([()] * 2))
        one_layer = torch.ones(base.layers, P, dtype=torch.bool)
        one_layer[0] = False
        first = inspect(engine, rows, [show(form, one_layer)], Tail([()] * 2), Look(weights=True))
    prompt = first.prompt_columns([form])[:, None, None]
    assert float((first.weights[0] * prompt).sum()) == 0
    assert float((first.weights[1] * prompt).sum()) > 0
    assert torch.isfinite(none.hidden).all()


def test_states_are_put_in_where_they_shall_be(engine: Engine) -> None:
    rows = encoded(engine.base, TEMPLATES["last"])[:1]
    forms = make_forms(engine.base, "token", 1)
    with torch.no_grad():
        plain = inspect(engine, rows, forms, Tail([()]), Look(states=True))
        same = inspect(engine, rows, forms, Tail([()]), Look(patches={1: lambda states: plain.states[1]}))
        other = inspect(engine, rows, forms, Tail([()]), Look(patches={1: lambda states: states * 0 + 1}))
    torch.testing.assert_close(same.hidden, plain.hidden)
    assert not torch.allclose(other.hidden, plain.hidden, atol=1e-3)
    expected = plain_states(engine.base, rows[0], forms)
    torch.testing.assert_close(plain.hidden[0, -len(expected) :], expected, atol=1e-4, rtol=1e-3)


def test_first_values_are_what_the_first_layer_reads(engine: Engine) -> None:
    ids = engine.base.tokenize("abc")
    found = first_values(engine.base, ids)
    with torch.no_grad():
        keyed = engine.key_values(engine.embedded_text(ids[:1]))
    torch.testing.assert_close(found[0], keyed.values[0, :, 0].flatten(), atol=1e-4, rtol=1e-3)
