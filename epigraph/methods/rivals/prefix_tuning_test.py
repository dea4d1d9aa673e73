import pytest
import torch

from epigraph.methods.rivals.toys_test import label_task, make, toy_engine
from epigraph.prompts import KeyValue


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_its_form_is_what_peft_hands_to_the_model(architecture: str) -> None:
    rival = make("peft-prefix", toy_engine(architecture), label_task())
    (form,) = rival.module.fold()
    assert isinstance(form, KeyValue)
    cache = rival.model.get_prompt(batch_size=1)
    for layer, (keys, values, *_) in enumerate(cache):
        assert torch.equal(form.keys[layer], keys[0])
        assert torch.equal(form.values[layer], values[0])
    assert form.length == 8


def test_its_loss_is_the_engines_with_the_same_prefix() -> None:
    task, engine = label_task(), toy_engine()
    rival = make("peft-prefix", engine, task)
    solver, labels = rival.solver, rival.objective.labels
    expected = engine.label_loss(solver.encode(task.train.rows), labels, [rival.module.fold()], solver.tree)
    torch.testing.assert_close(rival.objective.each(list(range(len(labels)))), expected, rtol=1e-4, atol=1e-5)
