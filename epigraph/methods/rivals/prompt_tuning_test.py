import pytest
import torch

from epigraph.methods.rivals.prompt_tuning import start_text
from epigraph.methods.rivals.toys_test import answer_task, label_task, loss, make, toy_engine
from epigraph.prompts import Embedded
from epigraph.prompts.init import repeat_to


def test_it_starts_from_the_labels_and_the_instruction() -> None:
    task, engine = label_task(), toy_engine()
    assert start_text(task) == "ab, abc, xyz. Classify the text. Answer with one of: ab, abc, xyz."
    assert start_text(answer_task()) == answer_task().instruction
    rival = make("peft-prompt", engine, task, virtual_tokens=100)
    (form,) = rival.module.fold()
    assert isinstance(form, Embedded)
    ids = repeat_to(engine.base.tokenize(start_text(task)), 100)
    assert torch.equal(form.vectors, engine.embedded_text(ids).vectors)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_its_loss_is_the_engines_with_the_same_prompt(architecture: str) -> None:
    task, engine = label_task(), toy_engine(architecture)
    rival = make("peft-prompt", engine, task)
    solver, labels = rival.solver, rival.objective.labels
    expected = engine.label_loss(solver.encode(task.train.rows), labels, [rival.module.fold()], solver.tree)
    torch.testing.assert_close(rival.objective.each(list(range(len(labels)))), expected, rtol=1e-4, atol=1e-5)


def test_its_positions_are_counted() -> None:
    task = label_task()
    short, long = (make("peft-prompt", toy_engine(), task, virtual_tokens=n) for n in (1, 11))
    loss(short), loss(long)
    more = 10 * len(task.train.rows)
    assert long.flops - short.flops > 2 * 2 * more * short.trunk.weights
    assert long.trained_parameters == 11 * 16
