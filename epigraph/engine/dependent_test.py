"""Prompts that depend on the input: a batch = its rows alone = each row's own plain form; stored whole; tuned like any other."""

from pathlib import Path

import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.engine import Engine, Tree, generate
from epigraph.engine.stream import Tail
from epigraph.errors import Unsupported
from epigraph.prompts import Dependent, Embedded, Form, KeyValue, MixturePrompt, PoolPrompt
from epigraph.tasks.encode import Encoded, Encoder, build_trie
from epigraph.tasks.row import Row
from epigraph.tasks.template import Template

TEMPLATE = Template("{text}{prompt} is:")
LED = Template("Say which of them it is: {text}{prompt} is:")
TEXTS = ["short", "a rather longer text, beyond the window", "机器学习"]


@pytest.fixture(scope="module", params=["llama", "gemma3", "gpt2"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(toy_base(request.param), budget=10**9, folder=tmp_path_factory.mktemp("frozen"))


def rows_of(engine: Engine, template: Template, texts: list[str] = TEXTS) -> list[Encoded]:
    encoder = Encoder(template, engine.base, 512)
    return [encoder.encode(Row(fields={"text": text})) for text in texts]


def start(engine: Engine, form: str, seed: int = 0) -> list[Form]:
    base, generator = engine.base, torch.Generator().manual_seed(seed)
    if form == "token":
        return [Embedded(torch.randn(3, base.hidden, generator=generator) * base.table_rms)]
    size = (base.layers, base.heads, 3, base.head_size)
    return [KeyValue(torch.randn(size, generator=generator), torch.randn(size, generator=generator))]


def made(engine: Engine, kind: str, form: str) -> PoolPrompt | MixturePrompt:
    hidden = engine.base.hidden
    if kind == "pool":
        prompt = PoolPrompt(start(engine, form, 2), hidden=hidden, older=PoolPrompt(start(engine, form), hidden=hidden))
        prompt.prepare(engine.neutral_queries()[:9], engine.neutral_queries())
        return prompt
    return MixturePrompt(start(engine, form), [start(engine, form, seed) for seed in (1, 2)], hidden=hidden)


def of_row(engine: Engine, prompt: PoolPrompt | MixturePrompt, row: Encoded) -> list[Form]:
    (form,) = prompt.form(engine.query([row]))
    return [Embedded(form.vectors[0]) if isinstance(form, Embedded) else KeyValue(form.keys[0], form.values[0])]


@pytest.mark.parametrize("template", [TEMPLATE, LED], ids=["plain", "led"])
@pytest.mark.parametrize("form", ["token", "kv"])
@pytest.mark.parametrize("kind", ["pool", "mixture"])
def test_a_batch_equals_every_row_with_its_own_plain_form(engine: Engine, kind: str, form: str, template: Template) -> None:
    prompt, rows = made(engine, kind, form), rows_of(engine, template)
    tree = Tree.build(build_trie({"a": "good", "b": "goodness", "c": "bad"}, template, engine.base), engine.base)
    together = engine.classify(rows, prompt.offer(), tree)
    alone = torch.cat([engine.classify([row], of_row(engine, prompt, row), tree) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    answers = generate(engine, rows, prompt.offer(), 4)
    assert answers == [generate(engine, [row], of_row(engine, prompt, row), 4)[0] for row in rows]


@pytest.mark.parametrize("form", ["token", "kv"])
def test_gradient_side_by_side_with_a_plain_prompt_equals_that_alone(engine: Engine, form: str) -> None:
    prompt, rows = made(engine, "pool", form), rows_of(engine, TEMPLATE)
    plain = start(engine, form, 7)
    tree = Tree.build(build_trie({"a": "good", "b": "bad"}, TEMPLATE, engine.base), engine.base)
    labels = [0, 1, 0]
    parameters = list(prompt.parameters())
    both = engine.label_loss([*rows, *rows], labels * 2, [plain, prompt.offer()], tree)
    gradients = torch.autograd.grad(both[3:].sum(), parameters)
    alone = engine.label_loss(rows, labels, [prompt.offer()], tree)
    for mine, theirs in zip(gradients, torch.autograd.grad(alone.sum(), parameters), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(both[:3], engine.label_loss(rows, labels, [plain], tree), atol=1e-5, rtol=1e-4)


def test_the_query_is_the_mean_state_of_what_stands_before(engine: Engine) -> None:
    rows = rows_of(engine, LED)
    for row, query in zip(rows, engine.query(rows), strict=True):
        bare = Encoded(((), (*row.segments[0],)))
        done = engine.forward([bare], [Embedded(torch.zeros(0, engine.base.hidden))], Tail([()]))
        torch.testing.assert_close(done.hidden[0].mean(0), query, atol=1e-5, rtol=1e-4)


def test_a_base_without_frozen_states_has_no_query(tmp_path: Path) -> None:
    engine = Engine(toy_base(), folder=tmp_path)
    engine.plain = "for a test"
    with pytest.raises(Unsupported, match="freezes no states: for a test"):
        engine.query(rows_of(engine, TEMPLATE))
    assert isinstance(made(Engine(toy_base(), folder=tmp_path), "pool", "kv").offer()[0], Dependent)
