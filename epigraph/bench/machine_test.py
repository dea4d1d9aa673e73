"""What is multiplied when a rate is measured, and what a memory watch sees."""

import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.bench.machine import layer_rate, layer_weights, streamed_rate
from epigraph.cost import MemoryWatch, anonymous_memory
from epigraph.engine import Engine


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_the_layers_weights_are_what_the_engine_counts(architecture: str) -> None:
    base = toy_base(architecture)
    assert sum(weight.numel() for weight in layer_weights(base)) == Engine(base).trunk.weights


def test_rates_are_of_all_layers_shapes() -> None:
    base = toy_base()
    assert layer_rate(base, 4) > 0
    assert streamed_rate(base, 4) > 0


def test_a_memory_watch_sees_what_was_held_while_it_was_open() -> None:
    with MemoryWatch() as watch:
        held = torch.ones(16 << 20)
        while watch.highest < watch.before + held.nbytes // 2:  # until a sample was taken
            assert anonymous_memory() > 0
    assert watch.added >= held.nbytes // 2
