import torch

from epigraph.engine import Engine
from epigraph.methods.rivals.toys_test import label_task, loss, make, toy_engine
from epigraph.prompts import Embedded


def empty(engine: Engine) -> Embedded:
    return Embedded(torch.zeros(0, engine.base.hidden))


def test_at_the_start_it_is_the_base() -> None:
    """B = 0: the loss is the engine's with an empty prompt, a row at a time too."""
    engine, task = toy_engine(), label_task()
    rival = make("lora", engine, task)
    solver, labels = rival.solver, rival.objective.labels
    expected = engine.label_loss(solver.encode(task.train.rows), labels, [[empty(engine)]], solver.tree)
    torch.testing.assert_close(rival.objective.each(list(range(len(labels)))), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss(rival), expected.mean(), rtol=1e-4, atol=1e-5)


def test_every_linear_layer_but_the_head_has_a_change_of_its_rank() -> None:
    for architecture in ("llama", "gpt2"):
        rival = make("lora", toy_engine(architecture), label_task(), rank=2)
        shapes = [p.shape for p in rival.module.parameters()]
        linear = 7 if architecture == "llama" else 4
        assert len(shapes) == 2 * linear * rival.base.layers
        assert all(min(shape) == 2 for shape in shapes)
        assert not any("head" in name for name in rival.module.state_dict())
