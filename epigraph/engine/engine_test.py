"""Cached = uncached = plain concatenation, for every architecture, place, form; forward and gradient."""

import pytest
import torch

from epigraph.base import Base
from epigraph.base.load import wrap_model
from epigraph.base.toy import ARCHITECTURES, toy_base, toy_tokenizer
from epigraph.engine import Engine, Tree, generate
from epigraph.engine import engine as engine_module
from epigraph.engine.plain import plain_states, stock_attention
from epigraph.engine.stream import Tail
from epigraph.errors import TaskError
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.tasks.encode import Encoded, Encoder, build_trie
from epigraph.tasks.row import Row
from epigraph.tasks.template import Template

TEMPLATES = {
    "last": "{text}{prompt}\nLabel:",
    "first": "{prompt}{text}\nLabel:",
    "middle": "Say: {prompt}{text}\nLabel:",
    "both": "{prompt}{text}{prompt}\nLabel:",
    "twice after": "{text}{prompt} is {prompt}\nLabel:",
}
TEXTS = ["short", "a rather longer text, beyond the window", "机器学习", "tiếng Việt"]


MAIN, OTHERS = ARCHITECTURES[:6], ARCHITECTURES[6:]


@pytest.fixture(scope="module", params=MAIN)
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(toy_base(request.param), budget=10**9)


@pytest.fixture(scope="module", params=OTHERS)
def other_engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(toy_base(request.param), budget=10**9)


def encoded(base: Base, template: str, texts: list[str] = TEXTS) -> list[Encoded]:
    encoder = Encoder(Template(template), base, base.context)
    return [encoder.encode(Row(fields={"text": text})) for text in texts]


def make_forms(base: Base, kind: str, blocks: int, length: int = 3, seed: int = 1) -> list[Form]:
    torch.manual_seed(seed)
    if kind == "token":
        return [Embedded((torch.randn(length, base.hidden) * base.table_rms).requires_grad_()) for _ in range(blocks)]
    shape = (base.layers, base.heads, length, base.head_size)
    return [KeyValue(torch.randn(shape).requires_grad_(), torch.randn(shape).requires_grad_()) for _ in range(blocks)]


def leaves(forms: list[Form]) -> list[torch.Tensor]:
    return [t for form in forms for t in ([form.vectors] if isinstance(form, Embedded) else [form.keys, form.values])]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["token", "kv"])
def test_equals_the_plain_concatenation_forward_and_gradient(engine: Engine, template: str, kind: str) -> None:
    check_equals_plain(engine, template, kind)


@pytest.mark.parametrize("template", ["last", "first"])
@pytest.mark.parametrize("kind", ["token", "kv"])
def test_other_architectures_equal_it_too(other_engine: Engine, template: str, kind: str) -> None:
    check_equals_plain(other_engine, template, kind)


def check_equals_plain(engine: Engine, template: str, kind: str) -> None:
    base = engine.base
    rows = encoded(base, TEMPLATES[template])
    forms = make_forms(base, kind, len(rows[0].segments) - 1)
    tail = [[65, 66], [67], [], [68, 69, 70]]
    done = engine.forward(rows, forms, Tail(tail))
    weights = torch.randn(base.hidden)
    ours = torch.stack([done.hidden[b, done.stream.ends[b] - 1 + len(t)] for b, t in enumerate(tail)])
    our_gradient = torch.autograd.grad((ours @ weights).sum(), leaves(forms))
    theirs = torch.stack([plain_states(base, row, forms, t)[-1] for row, t in zip(rows, tail, strict=True)])
    their_gradient = torch.autograd.grad((theirs @ weights).sum(), leaves(forms))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    for mine, reference in zip(our_gradient, their_gradient, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-5 * float(reference.abs().max() + 1), rtol=1e-3)


@pytest.mark.parametrize("left", [True, False], ids=["left", "right"])
def test_equals_the_stock_forward_over_padded_rows_on_either_side(engine: Engine, left: bool) -> None:
    base = engine.base
    rows = encoded(base, TEMPLATES["last"])
    (form,) = make_forms(base, "token", 1)
    assert isinstance(form, Embedded)
    ours = engine.forward(rows, [form], Tail([[]] * len(rows)))
    whole = [
        torch.cat([base.embed(torch.tensor(r.segments[0])), form.vectors, base.embed(torch.tensor(r.segments[1]))])
        for r in rows
    ]
    most = max(map(len, whole))
    gaps = [torch.randn(most - len(vectors), base.hidden) for vectors in whole]  # what stands there must not matter
    padded = torch.stack([torch.cat([gap, v] if left else [v, gap]) for gap, v in zip(gaps, whole, strict=True)])
    seen = torch.stack([torch.arange(most) >= most - len(v) if left else torch.arange(most) < len(v) for v in whole]).long()
    with stock_attention(base):
        found = base.trunk(
            inputs_embeds=padded, attention_mask=seen, position_ids=(seen.cumsum(1) - 1).clamp(min=0), use_cache=False
        ).last_hidden_state
    ends = [most - 1 if left else len(vectors) - 1 for vectors in whole]
    theirs = torch.stack([found[b, end] for b, end in enumerate(ends)])
    mine = torch.stack([ours.hidden[b, ours.stream.ends[b] - 1] for b in range(len(rows))])
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["token", "kv"])
@pytest.mark.parametrize("template", ["last", "first", "middle", "both"])
def test_a_batch_equals_its_rows_alone(engine: Engine, template: str, kind: str) -> None:
    rows = encoded(engine.base, TEMPLATES[template])
    forms = make_forms(engine.base, kind, len(rows[0].segments) - 1)
    tree = Tree.build(
        build_trie({"a": "good", "b": "goodness", "c": "bad"}, Template(TEMPLATES[template]), engine.base), engine.base
    )
    together = engine.classify(rows, forms, tree)
    alone = torch.cat([engine.classify([row], forms, tree) for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.exp().sum(1), torch.ones(len(rows)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_loss_of_a_label_is_minus_its_log_probability(engine: Engine, kind: str) -> None:
    rows = encoded(engine.base, TEMPLATES["last"])
    forms = make_forms(engine.base, kind, 1)
    labels = {"calendar": "calendar", "update": "calendar update", "call": "call", "b": "b"}
    tree = Tree.build(build_trie(labels, Template(TEMPLATES["last"]), engine.base), engine.base)
    scores = engine.classify(rows, forms, tree)
    for label in range(len(labels)):
        loss = engine.label_loss(rows, [label] * len(rows), [forms], tree)
        torch.testing.assert_close(-loss.detach(), scores[:, label], atol=2e-5, rtol=1e-4)


def test_probabilities_equal_reading_every_label_alone(engine: Engine) -> None:
    """The tree-masked pass gives the product of local softmaxes, computed here label by label from the full head."""
    base = engine.base
    row = encoded(base, TEMPLATES["last"], ["some text"])[0]
    forms = make_forms(base, "kv", 1)
    trie = build_trie({"ab": "ab", "abc": "abc", "ad": "ad", "xyz": "xyz"}, Template(TEMPLATES["last"]), base)
    found = engine.classify([row], forms, Tree.build(trie, base))[0]
    for number in range(len(trie.labels)):
        total = 0.0
        for node, token in trie.decisions(number):
            fed = [trie.nodes[n].token for n in reversed(trie.ancestors(node))][1:]
            state = plain_states(base, row, forms, fed)[-1:]
            full = base.logits(state).detach()[0]
            children = list(trie.nodes[node].children)
            total += float(torch.log_softmax(full[children], 0)[children.index(token)])
        assert float(found[number]) == pytest.approx(total, abs=1e-4)


def test_label_logits_equal_the_models_own(engine: Engine) -> None:
    check_logits(engine)


def test_label_logits_of_other_architectures_too(other_engine: Engine) -> None:
    check_logits(other_engine)


def check_logits(engine: Engine) -> None:
    base = engine.base
    ids = torch.tensor([base.tokenize("some text here")])
    with stock_attention(base), torch.no_grad():
        whole = base.model(input_ids=ids).logits[0]
        states = base.trunk(input_ids=ids, use_cache=False).last_hidden_state[0]
    torch.testing.assert_close(base.logits(states), whole.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(base.logits(states, [1, 5, 9]), whole.float()[:, [1, 5, 9]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_a_prompt_of_no_vectors_is_the_base(engine: Engine, kind: str) -> None:
    base = engine.base
    rows = encoded(base, TEMPLATES["last"])
    done = engine.forward(rows, make_forms(base, kind, 1, length=0), Tail([()] * len(rows)))
    for b, row in enumerate(rows):
        whole = Encoded((row.segments[0] + row.segments[1], ()), ())
        plain = plain_states(base, Encoded((whole.segments[0],)), [])[-1]
        torch.testing.assert_close(done.hidden[b, done.stream.ends[b] - 1], plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_texts_left_apart_equal_the_plain_concatenation(engine: Engine, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long texts are read where they lie in the store; here all count as long."""
    monkeypatch.setattr(engine_module, "LEAST_TOGETHER", engine_module.UNBOUNDED)
    check_equals_plain(engine, "last", kind)


def test_a_first_token_prompt_equals_its_keys_and_values(engine: Engine) -> None:
    rows = encoded(engine.base, TEMPLATES["first"])
    forms = make_forms(engine.base, "token", 1)
    tree = Tree.build(build_trie({"a": "yes", "b": "no"}, Template(TEMPLATES["first"]), engine.base), engine.base)
    converted = [engine.key_values(forms[0])]
    torch.testing.assert_close(
        engine.classify(rows, forms, tree), engine.classify(rows, converted, tree), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("kind", ["token", "kv"])
@pytest.mark.parametrize("template", ["last", "first", "middle"])
def test_generation_equals_choosing_the_likeliest_token_again_and_again(engine: Engine, template: str, kind: str) -> None:
    base = engine.base
    rows = encoded(base, TEMPLATES[template])
    forms = make_forms(base, kind, 1)
    for row, found in zip(rows, generate(engine, rows, forms, 6), strict=True):
        expected: list[int] = []
        while len(expected) < 6:
            token = int(base.logits(plain_states(base, row, forms, expected)[-1:]).argmax())
            if token == base.end:
                break
            expected.append(token)
        assert found == expected


def test_a_prompt_with_nothing_behind_it_is_refused(engine: Engine) -> None:
    rows = encoded(engine.base, "{text}{prompt}")
    with pytest.raises(TaskError, match="nothing stands after the prompt"):
        engine.forward(rows, make_forms(engine.base, "kv", 1), Tail([()] * len(rows)))


def test_a_beginning_of_text_token_stands_at_zero_except_before_a_first_prompt() -> None:
    base = toy_base("llama", bos=True)
    bos = base.bos
    assert bos is not None
    assert encoded(base, TEMPLATES["last"])[0].segments[0][0] == bos
    first = encoded(base, TEMPLATES["first"])[0]
    assert first.segments[0] == ()
    assert first.segments[1][0] == bos


def test_a_row_without_a_beginning_stands_beside_rows_with_one(engine: Engine) -> None:
    """An empty field before the prompt left nothing to look up in the store, and the batch failed."""
    rows = encoded(engine.base, TEMPLATES["last"], ["text", "", "more"])
    forms = make_forms(engine.base, "kv", 1)
    done = engine.forward(rows, forms, Tail([()] * 3))
    for b, row in enumerate(rows):
        torch.testing.assert_close(
            done.hidden[b, done.stream.ends[b] - 1], plain_states(engine.base, row, forms)[-1], atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("kind", ["token", "kv"])
@pytest.mark.parametrize("template", ["last", "first", "middle", "both"])
def test_prompts_side_by_side_equal_each_alone(engine: Engine, template: str, kind: str) -> None:
    """Of different lengths too: the shorter one's padding is hidden, and gradients do not mix."""
    base = engine.base
    rows = encoded(base, TEMPLATES[template])
    blocks = len(rows[0].segments) - 1
    prompts = [make_forms(base, kind, blocks, length=n, seed=n) for n in (2, 4, 3)]
    labels = build_trie({"a": "calendar", "b": "calendar update", "c": "bad"}, Template(TEMPLATES[template]), base)
    tree = Tree.build(labels, base)
    groups = [rows, rows[::-1], [rows[1], rows[0], rows[3], rows[2]]]
    wanted = [[0, 1, 2, 1], [2, 2, 0, 1], [1, 0, 0, 2]]
    together = engine.label_loss([r for g in groups for r in g], [w for g in wanted for w in g], prompts, tree)
    gradients = torch.autograd.grad(together.sum(), [t for forms in prompts for t in leaves(forms)])
    alone = [engine.label_loss(g, w, [p], tree) for g, w, p in zip(groups, wanted, prompts, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)
    expected = [g for a, p in zip(alone, prompts, strict=True) for g in torch.autograd.grad(a.sum(), leaves(p))]
    for mine, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, reference, atol=2e-5 * float(reference.abs().max() + 1), rtol=1e-3)


@pytest.mark.parametrize("name", MAIN)
@pytest.mark.parametrize("kind", ["token", "kv"])
def test_bf16_stays_near_the_fp32_reference(name: str, kind: str) -> None:
    """By relative norm: a single number may be far off where the reference is near zero."""
    single, half = Engine(toy_base(name), keep=False), Engine(halved(name), keep=False)
    losses, gradients = [], []
    for engine in (single, half):
        rows = encoded(engine.base, TEMPLATES["last"])
        forms = make_forms(engine.base, kind, 1)
        labels = build_trie({"a": "calendar", "b": "calendar update", "c": "bad"}, Template(TEMPLATES["last"]), engine.base)
        loss = engine.label_loss(rows, [0, 1, 2, 1], [forms], Tree.build(labels, engine.base))
        losses.append(loss.detach().float())
        gradients.append(torch.cat([g.float().flatten() for g in torch.autograd.grad(loss.mean(), leaves(forms))]))
    for expected, found in (losses, gradients):
        assert float((found - expected).norm() / expected.norm()) < 0.1


def halved(name: str) -> Base:
    """The toy base in bf16."""
    return wrap_model(toy_base(name).model.to(torch.bfloat16), toy_tokenizer(), name=f"toy-{name}-bf16")


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("kind", ["token", "kv"])
def test_another_device_gives_the_same(device: str, kind: str) -> None:
    there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if not there:
        pytest.skip(f"this machine has no {device}")
    found = []
    for name in ("cpu", device):
        base = wrap_model(toy_base().model.to(name), toy_tokenizer(), name=f"toy-{name}")
        engine = Engine(base, keep=False)
        rows = encoded(base, TEMPLATES["last"])
        forms = make_forms(base, kind, 1)
        tree = Tree.build(build_trie({"a": "yes", "b": "no"}, Template(TEMPLATES["last"]), base), base)
        loss = engine.label_loss(rows, [0, 1, 0, 1], [forms], tree)
        gradient = torch.autograd.grad(loss.mean(), leaves(forms))
        found.append(
            (loss.detach().cpu(), torch.cat([g.flatten().cpu() for g in gradient]), generate(engine, rows, forms, 4))
        )
    torch.testing.assert_close(found[1][:2], found[0][:2], atol=1e-4, rtol=1e-3)
    assert found[1][2] == found[0][2]
