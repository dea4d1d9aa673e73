import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.prompts import Embedded
from epigraph.prompts.context import ContextPrompt
from epigraph.tasks.task import Task
from epigraph.tuning.start import make_prompt
from epigraph.tuning.start.examples import draw_context

TASK = Task.from_rows(
    [f"text {i}" for i in range(8)], ["good", "bad"] * 4, template="{text}{prompt}\nIs:", instruction="Good or bad?"
)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_base())


def test_whole_examples_with_labels_in_turn(engine: Engine) -> None:
    context = draw_context(engine, TASK, TASK.train.rows, length=64, seed=0)
    text = engine.base.detokenize(context.ids)
    assert len(context.ids) == len(context.answers) <= 64
    assert text.startswith("Good or bad?\n\ntext ")
    assert text.count("Is: good\n\n") + text.count("Is: bad\n\n") == text.count("text ") >= 2
    answered = [token for token, answer in zip(context.ids, context.answers, strict=True) if answer]
    assert set(engine.base.detokenize(answered).split()) == {"good", "bad"}


def test_a_long_instruction_makes_room_for_an_example(engine: Engine) -> None:
    context = draw_context(engine, TASK, TASK.train.rows, length=20, seed=0)
    assert engine.base.detokenize(context.ids).startswith("text ")


def test_other_seeds_draw_other_examples(engine: Engine) -> None:
    drawn = [draw_context(engine, TASK, TASK.train.rows, length=64, seed=seed).ids for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_where_no_example_fits(engine: Engine) -> None:
    for rows, length in ((TASK.train.rows, 5), ((), 64)):
        with pytest.raises(ConfigError, match=f"no training row fits into {length} vectors.*larger --length"):
            draw_context(engine, TASK, rows, length=length, seed=0)


def test_a_context_prompt_holds_its_answers(engine: Engine) -> None:
    rows = TASK.train.rows
    prompt = make_prompt(engine, TASK, kind="context", length=64, start="examples", seed=0, rows=rows)
    assert isinstance(prompt, ContextPrompt)
    (form,) = prompt.fold()
    context = draw_context(engine, TASK, rows, length=64, seed=0)
    assert isinstance(form, Embedded)
    torch.testing.assert_close(form.vectors, engine.embedded_text(context.ids).vectors)
    with torch.no_grad():
        prompt.offsets[0].add_(1.0)
    moved = (prompt.fold()[0].vectors - form.vectors).abs().sum(-1) > 0  # type: ignore[union-attr]
    assert moved.tolist() == [not answer for answer in context.answers]


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_any_kind_starts_from_examples(engine: Engine, kind: str) -> None:
    (form,) = make_prompt(engine, TASK, kind=kind, length=40, start="examples", seed=0, rows=TASK.train.rows).fold()
    assert 20 < form.length <= 40
