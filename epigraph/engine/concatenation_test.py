"""By plain concatenation: batch = single rows, gradient and loss = a slow loop, labels = brute force; vectors only."""

from typing import Any

import pytest
import torch
import transformers

from epigraph.base import Base, wrap_model
from epigraph.base.toy import VOCABULARY, toy_base, toy_tokenizer
from epigraph.engine import Engine, Tree, generate
from epigraph.engine.concatenation import label_chains, row_bytes, turning_length
from epigraph.engine.plain import plain_states, whole_states
from epigraph.engine.stream import Tail
from epigraph.errors import TaskError, Unsupported
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.tasks.encode import Encoded, Encoder, build_trie
from epigraph.tasks.row import Row
from epigraph.tasks.template import Template
from epigraph.tasks.trie import LabelTrie

TEMPLATES = {
    "last": "{text}{prompt}\nLabel:",
    "first": "{prompt}{text}\nLabel:",
    "both": "Say: {prompt}{text}{prompt}\nLabel:",
}
TEXTS = ["short", "a rather longer text, beyond the turn", "机器学习", ""]
LABELS = {"a": "calendar", "b": "calendar update", "c": "call", "d": "bad"}
TURN = 32
OLD = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
NEW = OLD | {"num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": 256, "pad_token_id": 256}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 2,
    "long_factor": [4.0] * 2,
    "original_max_position_embeddings": TURN,
}


def make_model(name: str) -> Any:
    if name == "bloom":  # ALiBi
        return transformers.BloomForCausalLM(
            transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=2, n_head=4)
        )
    if name == "gpt_neo":  # old attention
        layers = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8}
        config = transformers.GPTNeoConfig(vocab_size=VOCABULARY, hidden_size=16, max_position_embeddings=256, **layers)
        return transformers.GPTNeoForCausalLM(config)
    if name == "mamba":  # recurrent; it has no heads, and the base asks for some
        return transformers.MambaForCausalLM(transformers.MambaConfig(**OLD, state_size=4))
    if name == "lfm2":  # hybrid
        return transformers.Lfm2ForCausalLM(transformers.Lfm2Config(**NEW, layer_types=["conv", "full_attention"]))
    assert name == "longrope"
    return transformers.Phi3ForCausalLM(
        transformers.Phi3Config(**NEW, original_max_position_embeddings=TURN, rope_parameters=LONGROPE)
    )


def plain_base(name: str, seed: int = 0) -> Base:
    torch.manual_seed(seed)
    model = make_model(name)
    with torch.no_grad():  # far from uniform, so that a wrong mask shows
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return wrap_model(model, toy_tokenizer(), name=f"toy-{name}")


@pytest.fixture(scope="module", params=["bloom", "gpt_neo", "mamba", "lfm2", "longrope"])
def engine(request: pytest.FixtureRequest) -> Engine:
    engine = Engine(plain_base(request.param))
    assert engine.plain
    return engine


@pytest.fixture(scope="module")
def bloom() -> Engine:
    return Engine(plain_base("bloom"))


def encoded(base: Base, template: str) -> list[Encoded]:
    encoder = Encoder(Template(TEMPLATES[template]), base, 200)
    return [encoder.encode(Row(fields={"text": text})) for text in TEXTS]


def make_forms(base: Base, template: str, length: int = 3, seed: int = 1) -> list[Form]:
    torch.manual_seed(seed)
    blocks = TEMPLATES[template].count("{prompt}")
    return [Embedded((torch.randn(length, base.hidden) * base.table_rms).requires_grad_()) for _ in range(blocks)]


def make_tree(base: Base, template: str) -> Tree:
    return Tree.build(build_trie(LABELS, Template(TEMPLATES[template]), base), base)


def leaves(forms: list[Form]) -> list[torch.Tensor]:
    return [form.vectors for form in forms if isinstance(form, Embedded)]


def slow_score(base: Base, row: Encoded, forms: list[Form], trie: LabelTrie, label: int) -> torch.Tensor:
    """log p(label), decision by decision: the stock forward over this row and the label's path, alone."""
    total = torch.zeros(())
    for node, token in trie.decisions(label):
        fed = [trie.nodes[n].token for n in reversed(trie.ancestors(node))][1:]
        logits = base.logits(whole_states(base, row, forms, fed)[-1:])[0]
        children = list(trie.nodes[node].children)
        total = total + torch.log_softmax(logits[children], 0)[children.index(token)]
    return total


def assert_same_gradients(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, reference, atol=2e-5 * float(reference.abs().max() + 1), rtol=1e-3)


@pytest.mark.parametrize("template", TEMPLATES)
def test_equals_single_rows_forward_and_gradient(engine: Engine, template: str) -> None:
    base = engine.base
    rows, forms = encoded(base, template), make_forms(base, template)
    tail = [[65, 66], [67], [], [68, 69, 70]]
    done = engine.forward(rows, forms, Tail(tail))
    weights = torch.randn(base.hidden)
    ours = torch.stack([done.hidden[b, done.stream.ends[b] - 1 + len(t)] for b, t in enumerate(tail)])
    theirs = torch.stack([whole_states(base, row, forms, t)[-1] for row, t in zip(rows, tail, strict=True)])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    found = torch.autograd.grad((ours @ weights).sum(), leaves(forms))
    assert_same_gradients(list(found), list(torch.autograd.grad((theirs @ weights).sum(), leaves(forms))))


def test_equals_going_through_the_bases_own_cache(bloom: Engine) -> None:
    """The reference of the other engine, block by block."""
    rows, forms = encoded(bloom.base, "last"), make_forms(bloom.base, "last")
    done = bloom.forward(rows, forms, Tail([()] * len(rows)))
    for b, row in enumerate(rows):
        expected = plain_states(bloom.base, row, forms)[-1]
        torch.testing.assert_close(done.hidden[b, done.stream.ends[b] - 1], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("template", TEMPLATES)
def test_probabilities_equal_reading_every_label_alone(engine: Engine, template: str) -> None:
    base, rows, forms = engine.base, encoded(engine.base, template), make_forms(engine.base, template)
    tree = make_tree(base, template)
    found = engine.classify(rows, forms, tree)
    with torch.no_grad():
        expected = torch.stack(
            [torch.stack([slow_score(base, row, forms, tree.trie, label) for label in range(len(LABELS))]) for row in rows]
        )
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(len(rows)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("template", TEMPLATES)
def test_loss_and_gradient_equal_a_slow_loop(engine: Engine, template: str) -> None:
    base, rows, forms = engine.base, encoded(engine.base, template)[:1], make_forms(engine.base, template)
    rows, labels = rows * 4, [0, 1, 2, 3]
    tree = make_tree(base, template)
    losses = engine.label_loss(rows, labels, [forms], tree)
    expected = torch.stack([-slow_score(base, r, forms, tree.trie, y) for r, y in zip(rows, labels, strict=True)])
    torch.testing.assert_close(losses, expected, atol=2e-5, rtol=1e-4)
    found = torch.autograd.grad(losses.sum(), leaves(forms))
    assert_same_gradients(list(found), list(torch.autograd.grad(expected.sum(), leaves(forms))))


def test_loss_of_answers_equals_a_slow_loop(engine: Engine) -> None:
    base, forms = engine.base, make_forms(engine.base, "last")
    rows = [Encoded(row.segments, answer) for row, answer in zip(encoded(base, "last"), [(65, 66, 256)] * 4, strict=True)]
    sums, tokens = engine.answer_loss(rows, [forms])
    assert tokens.tolist() == [3.0] * 4
    for row, found in zip(rows, sums, strict=True):
        logits = base.logits(whole_states(base, row, forms, row.answer[:-1])[-3:])
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(row.answer), reduction="sum")
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_prompts_side_by_side_equal_each_alone(engine: Engine) -> None:
    """Of different lengths too; gradients do not mix."""
    base, rows = engine.base, encoded(engine.base, "both")
    prompts = [make_forms(base, "both", length=n, seed=n) for n in (2, 4)]
    tree, labels = make_tree(base, "both"), [0, 1, 2, 3]
    together = engine.label_loss([*rows, *rows], [*labels, *labels], prompts, tree)
    alone = [engine.label_loss(rows, labels, [p], tree) for p in prompts]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)
    found = torch.autograd.grad(together.sum(), [t for p in prompts for t in leaves(p)])
    expected = [g for a, p in zip(alone, prompts, strict=True) for g in torch.autograd.grad(a.sum(), leaves(p))]
    assert_same_gradients(list(found), expected)


@pytest.mark.parametrize("template", TEMPLATES)
def test_generation_equals_choosing_the_likeliest_token_again_and_again(engine: Engine, template: str) -> None:
    base, rows, forms = engine.base, encoded(engine.base, template), make_forms(engine.base, template)
    for row, found in zip(rows, generate(engine, rows, forms, 5), strict=True):
        expected: list[int] = []
        with torch.no_grad():
            while len(expected) < 5:
                token = int(base.logits(whole_states(base, row, forms, expected)[-1:]).argmax())
                if token == base.end:
                    break
                expected.append(token)
        assert found == expected


def test_a_row_that_ends_leaves_the_others_going(bloom: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, forms = encoded(bloom.base, "last"), make_forms(bloom.base, "last")
    whole = generate(bloom, rows, forms, 6)
    end = whole[0][2]
    monkeypatch.setitem(bloom.base.__dict__, "end", end)
    assert generate(bloom, rows, forms, 6) == [o[: o.index(end)] if end in o else o for o in whole]


def test_keys_and_values_are_refused_with_the_way_out(bloom: Engine) -> None:
    base, rows = bloom.base, encoded(bloom.base, "last")
    block = torch.zeros(base.layers, base.heads, 2, base.head_size)
    with pytest.raises(Unsupported, match=r"takes vectors only.*--kind token"):
        bloom.forward(rows, [KeyValue(block, block)], Tail([()] * len(rows)))
    with pytest.raises(Unsupported, match=r"takes no keys and values.*--kind token"):
        bloom.key_values(make_forms(base, "last")[0])


def test_nothing_is_frozen(bloom: Engine) -> None:
    rows = encoded(bloom.base, "last")
    assert bloom.missing(rows) == []
    bloom.freeze(rows, lambda _done, _total: pytest.fail("something was frozen"))
    bloom.classify(rows, make_forms(bloom.base, "last"), make_tree(bloom.base, "last"))
    assert len(bloom.store) == 0


def test_one_pass_takes_no_more_rows_than_memory_holds(bloom: Engine) -> None:
    """Gradients need what every token left: long rows, and several prompts, go fewer at once."""
    (row, *_) = encoded(bloom.base, "last")
    longer = Encoded((row.segments[0] * 2000, row.segments[1]))
    assert 1 <= bloom.rows_at_once([longer], 1) < bloom.rows_at_once([row], 1)
    assert bloom.rows_at_once([row], 4) <= bloom.rows_at_once([row], 1) // 4
    assert row_bytes(bloom.base, 10) == 4 * 2 * 10 * int(17 * 16 + 2.5 * 4 * 10)


def test_a_step_with_a_prompt_first_takes_fewer_rows_than_one_with_it_last() -> None:
    """What the backward pass keeps grows with the tokens that are computed: behind a prompt these are the whole text."""
    engine = Engine(toy_base(), keep=False)
    text = tuple(range(5, 205))
    last, first = Encoded((text, (7,))), Encoded(((), (*text, 7)))
    assert engine.rows_a_step([first], 1) < engine.rows_a_step([last], 1)
    assert engine.rows_a_step([first], 4) <= engine.rows_a_step([first], 1) // 4
    written = Encoded((text, (7,)), answer=(7,) * 100)
    assert engine.rows_a_step([written], 1) < engine.rows_a_step([last], 1)


def test_work_is_counted(bloom: Engine) -> None:
    before = bloom.flops
    bloom.forward(encoded(bloom.base, "last"), make_forms(bloom.base, "last"), Tail([()] * 4))
    assert bloom.flops > before


def test_nothing_to_read_is_refused(bloom: Engine) -> None:
    empty = Encoded(((), ()))
    with pytest.raises(TaskError, match="nothing stands after the prompt"):
        bloom.forward([empty], make_forms(bloom.base, "last", length=0), Tail([()]))


def test_chains_read_every_branching_node_once() -> None:
    trie = LabelTrie.build({"a": [1], "b": [1, 2, 3], "c": [1, 2, 4], "d": [5, 6, 7, 8], "e": [5, 6, 7, 9]}, end=0)
    chains = label_chains(trie)
    assert sorted(node for chain in chains for _, node in chain.reads) == list(range(len(trie.branching)))
    assert sorted(chain.tokens for chain in chains) == [(1, 2), (5, 6, 7)]
    apart = label_chains(trie, apart=True)
    assert sorted(len(chain.reads) for chain in apart) == [1] * len(trie.branching)
    assert all(chain.reads[0][0] == len(chain.tokens) for chain in apart)
    for chain in [*chains, *apart]:
        for depth, number in chain.reads:
            path = [trie.nodes[n].token for n in reversed(trie.ancestors(trie.branching[number]))][1:]
            assert chain.tokens[:depth] == tuple(path)


def test_rotary_positions_that_turn_are_known() -> None:
    assert turning_length(plain_base("longrope")) == TURN
    assert turning_length(plain_base("bloom")) is None


def test_dynamic_positions_do_not_turn_within_the_context() -> None:
    """Such a base is served by our attention: a text that fills the context equals the stock forward."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    config = transformers.LlamaConfig(**{**NEW, "max_position_embeddings": 64}, rope_parameters=rope)
    engine = Engine(wrap_model(transformers.LlamaForCausalLM(config), toy_tokenizer(), name="toy-dynamic"))
    assert not engine.plain
    forms = make_forms(engine.base, "last")
    rows = [Encoded((tuple(range(50, 50 + n)), (1, 2))) for n in (4, 59)]
    done = engine.forward(rows, forms, Tail([(), ()]))
    for b, row in enumerate(rows):
        expected = plain_states(engine.base, row, forms)[-1]
        torch.testing.assert_close(done.hidden[b, done.stream.ends[b] - 1], expected, atol=1e-5, rtol=1e-4)
