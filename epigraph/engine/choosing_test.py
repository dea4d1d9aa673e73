import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from epigraph.base.load import wrap_model
from epigraph.base.toy import END, VOCABULARY, toy_base, toy_tokenizer
from epigraph.engine import Engine, choice_scores, choose
from epigraph.engine.choosing import rows_at_once
from epigraph.engine.plain import plain_states, whole_states
from epigraph.prompts import Embedded, Form
from epigraph.tasks.encode import Encoded

CHOICES = [[" ab", " abc", "x"], [" một lựa chọn dài", "好"], ["q", "r", "stu", "vwxy"]]


def rows(engine: Engine, before: str, after: str) -> list[Encoded]:
    """Rows of different lengths with different numbers of choices."""
    ids = engine.base.tokenize
    return [
        Encoded(
            (tuple(ids(before + "x" * i if before else "")), tuple(ids("y" * (0 if before else i) + after))),
            choices=tuple(tuple(ids(c)) for c in choices),
        )
        for i, choices in enumerate(CHOICES)
    ]


def form(engine: Engine) -> Embedded:
    torch.manual_seed(0)
    return Embedded(torch.randn(3, engine.base.hidden) * engine.base.table_rms)


@torch.no_grad()
def one_at_a_time(engine: Engine, row: Encoded, forms: list[Form]) -> list[float]:
    """The published equation as a slow loop: the stock forward over the row and one choice."""
    states_of = whole_states if engine.plain else plain_states
    found = []
    for choice in row.choices:
        states = states_of(engine.base, row, forms, choice[:-1])[len(row.segments[-1]) - 1 :]
        scores = engine.base.logits(states).log_softmax(-1)
        found.append(float(scores[torch.arange(len(choice)), torch.tensor(choice)].mean()))
    return found


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "mistral", "gpt2"])
@pytest.mark.parametrize(("before", "after"), [("some longer text", "\nA:"), ("", " text\nA:")])
def test_choices_side_by_side_score_as_each_alone(architecture: str, before: str, after: str) -> None:
    engine = Engine(toy_base(architecture), keep=False)
    encoded, prompt = rows(engine, before, after), form(engine)
    found = choose(engine, encoded, [prompt])
    for row, scores in zip(encoded, found, strict=True):
        assert scores[: len(row.choices)].tolist() == pytest.approx(one_at_a_time(engine, row, [prompt]), abs=1e-4)
        assert torch.isinf(scores[len(row.choices) :]).all()


def test_a_base_by_plain_concatenation_reads_the_row_anew_for_every_choice() -> None:
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=2, n_head=4, eos_token_id=END)
    base = wrap_model(BloomForCausalLM(config), toy_tokenizer(), name="toy-bloom")
    engine = Engine(base, keep=False)
    assert engine.plain
    encoded, prompt = rows(engine, "some text", "\nA:"), form(engine)
    for row, scores in zip(encoded, choose(engine, encoded, [prompt]), strict=True):
        assert scores[: len(row.choices)].tolist() == pytest.approx(one_at_a_time(engine, row, [prompt]), abs=1e-4)
    assert rows_at_once(engine, encoded, 1) >= 1


def test_the_gradient_of_a_choice_is_that_of_prompts_side_by_side() -> None:
    engine = Engine(toy_base(), keep=False)
    encoded = rows(engine, "some text", "\nA:")
    vectors = [form(engine).vectors.clone().requires_grad_() for _ in range(3)]
    alone = choice_scores(engine, encoded, [[Embedded(vectors[0])]])
    beside = choice_scores(engine, encoded * 2, [[Embedded(vectors[1])], [Embedded(vectors[2])]])
    for scores in (alone, beside):
        scores[torch.isfinite(scores)].sum().backward()
    assert torch.allclose(beside[:3], alone, atol=1e-5)
    assert vectors[0].grad is not None
    assert all(torch.allclose(v.grad, vectors[0].grad, atol=1e-4) for v in vectors[1:] if v.grad is not None)
