"""What holds for every rival, on several architectures: loss and scores are those of its own stock forward."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from epigraph.base.fingerprint import weights_hash
from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.methods import PromptedBase, Scorable
from epigraph.methods.rivals import RIVALS, Lora, PromptTuningSettings
from epigraph.methods.rivals.rival import Rival
from epigraph.methods.rivals.toys_test import (
    answer_loss,
    answer_task,
    label_losses,
    label_task,
    loss,
    make,
    stock_output,
    stock_probabilities,
    toy_engine,
    train,
)
from epigraph.prompts import Embedded
from epigraph.tasks.template import Template

EXACT = ("peft-prompt", "peft-prefix", "lora", "full")
RATES = {"peft-prompt": 0.1, "peft-prefix": 0.1, "lora": 0.02, "full": 0.01, "peft-documented": 0.1}
architectures = pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
rivals = pytest.mark.parametrize("name", RIVALS)


def moved(rival: Rival[Any]) -> Rival[Any]:
    """Away from its start, so that an adapter that does nothing shows."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in rival.module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator) * (1 + parameter.abs().mean()))
    return rival


@pytest.mark.parametrize("name", EXACT)
@architectures
def test_the_label_loss_is_that_of_the_stock_forward_row_by_row(name: str, architecture: str) -> None:
    task = label_task()
    rival = moved(make(name, toy_engine(architecture), task))
    expected = sum(label_losses(rival, task.train.rows)) / len(task.train.rows)
    assert float(loss(rival).detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", EXACT)
@architectures
def test_the_answer_loss_is_that_of_the_stock_forward_row_by_row(name: str, architecture: str) -> None:
    task = answer_task()
    rival = moved(make(name, toy_engine(architecture), task))
    assert float(loss(rival).detach()) == pytest.approx(answer_loss(rival, task.train.rows), rel=1e-4)


@rivals
@architectures
def test_scores_are_those_of_the_stock_forward(name: str, architecture: str) -> None:
    task = label_task()
    rival = moved(make(name, toy_engine(architecture), task))
    assert isinstance(rival, Scorable)
    for _ in range(2):  # the weights move between two scorings
        found = torch.tensor(rival.probabilities(task.train.rows))
        torch.testing.assert_close(found, stock_probabilities(rival, task.train.rows), atol=1e-4, rtol=0)
        moved(rival)


@rivals
def test_frozen_states_of_the_base_are_never_read_for_a_tuned_model(name: str) -> None:
    """A tuned model has its base's fingerprint, under which states are kept; an instruction first is frozen at the base."""
    engine, plain = toy_engine(), label_task()
    template = Template("Say what it is: {text}{prompt}\nLabel:")
    task = replace(plain, template=template)
    house = PromptedBase(engine, task, [Embedded(torch.zeros(0, engine.base.hidden))])
    house.probabilities(task.train.rows)
    rival = moved(make(name, engine, task))
    found = torch.tensor(rival.probabilities(task.train.rows))
    torch.testing.assert_close(found, stock_probabilities(rival, task.train.rows), atol=1e-4, rtol=0)
    again = Engine(engine.base)
    other = PromptedBase(again, task, house.forms)
    assert other.probabilities(task.train.rows) == pytest.approx(house.probabilities(task.train.rows), abs=1e-5)


@rivals
def test_outputs_are_those_of_the_stock_forward(name: str) -> None:
    task = answer_task()
    rival = moved(make(name, toy_engine(), task, output_tokens=5))
    assert rival.outputs(task.train.rows) == [stock_output(rival, row, 5) for row in task.train.rows]


@rivals
def test_training_lowers_the_loss_and_leaves_the_base_alone(name: str) -> None:
    engine, task = toy_engine(), label_task()
    before, model = weights_hash(engine.base.model), engine.base.model.config._attn_implementation
    rival = make(name, engine, task)
    first = rival.objective.watch([])
    loop = train(rival, rate=RATES[name])
    last = rival.objective.watch([])
    assert last.minus_loss > first.minus_loss
    assert (last.score, last.minus_loss) == (loop.state.best_score, pytest.approx(loop.state.best_minus_loss, rel=1e-4))
    assert weights_hash(engine.base.model) == before
    assert engine.base.model.config._attn_implementation == model == "epigraph"
    assert rival.base.model.config._attn_implementation == "sdpa"


@rivals
def test_generation_is_trained_and_watched(name: str) -> None:
    rival = make(name, toy_engine(), answer_task(), output_tokens=4)
    first = rival.objective.watch([])
    train(rival, rate=RATES[name])
    assert rival.objective.watch([]).minus_loss > first.minus_loss


@rivals
def test_gradient_reaches_what_is_trained_and_nothing_else(name: str) -> None:
    rival = make(name, toy_engine(), label_task())
    loss(rival).backward()  # type: ignore[no-untyped-call]
    own = {id(p) for p in rival.module.parameters()}
    assert all(p.grad is not None for p in rival.module.parameters() if p.requires_grad)
    frozen = [p for p in rival.base.model.parameters() if id(p) not in own]
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    assert all(p.grad is None for p in toy_engine().base.model.parameters())
    assert bool(frozen) == (name != "full")


@rivals
def test_the_state_holds_the_trained_parameters_and_brings_them_back(name: str) -> None:
    task = label_task()
    rival = make(name, toy_engine(), task)
    state = {key: value.clone() for key, value in rival.module.state_dict().items()}
    assert sum(value.numel() for value in state.values()) == rival.trained_parameters > 0
    before = rival.probabilities(task.train.rows)
    moved(rival)
    assert abs(rival.probabilities(task.train.rows) - before).max() > 1e-3
    rival.module.load_state_dict(state)
    assert rival.probabilities(task.train.rows) == pytest.approx(before, abs=1e-6)


@rivals
def test_the_seed_decides_the_start_and_costs_are_said(name: str) -> None:
    task = label_task()
    one, same = (make(name, toy_engine(), task, seed=3) for _ in range(2))
    for a, b in zip(one.module.parameters(), same.module.parameters(), strict=True):
        assert torch.equal(a, b)
    assert one.kept_bytes == 4 * one.trained_parameters  # the toy is in fp32, so full fine-tuning too
    assert one.flops == 0
    loss(one)
    trained = one.flops
    one.probabilities(task.train.rows)
    assert 0 < trained < one.flops


def test_operations_are_counted_with_the_padding() -> None:
    """LoRA: 2 · (2 · tokens · weights + attention + head) and the gradient of A and B."""
    task = label_task(3)
    rival = make("lora", toy_engine(), task)
    loss(rival)
    tokens, base, tree = 3 * max(rival.objective.lengths), rival.base, rival.solver.tree
    products = 2 * tokens * rival.trunk.weights + 4 * base.layers * tokens * (tokens // 3) * base.hidden
    decided = sum(map(len, rival.objective.decisions))
    head = 2 * decided * len(tree.trie.tokens) * base.hidden
    assert rival.flops == 2 * (products + head) + 2 * tokens * rival.trained_parameters


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="virtual_tokens 0 was asked; it must be above 0"):
        PromptTuningSettings(virtual_tokens=0)
    with pytest.raises(ConfigError, match=r"rate -1\.0 was asked"):
        Lora.settings_type(rate=-1.0)


def test_names_are_as_promised() -> None:
    assert list(RIVALS) == ["peft-prompt", "peft-prefix", "lora", "full", "peft-documented"]
