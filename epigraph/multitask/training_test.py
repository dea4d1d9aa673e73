"""Tasks in one pass equal tasks apart; a teacher's states teach nothing to itself; a tuning goes on where it was."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.methods import PromptedBase
from epigraph.methods.watched import Watched
from epigraph.multitask.lesson import Lesson, losses_together
from epigraph.multitask.similarity import GREY, Gains, agreement, cosines, similarity_svg
from epigraph.multitask.training import Group, Together
from epigraph.prompts import Embedded, Form, KeyValue, MultitaskPrompt
from epigraph.tasks.task import Task
from epigraph.tuning.loop import Settings
from epigraph.tuning.objective import LabelObjective

SETTINGS = Settings(epochs=3, batch=4, rate=0.1, warmup=0.1, clip=1.0, patience=9, seed=0)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(toy_base(), folder=tmp_path_factory.mktemp("frozen"), budget=10**9)


def forms(engine: Engine, kind: str = "kv", seed: int = 0) -> list[Form]:
    base, generator = engine.base, torch.Generator().manual_seed(seed)
    if kind == "token":
        return [Embedded(torch.randn(3, base.hidden, generator=generator) * base.table_rms)]
    size = (base.layers, base.heads, 3, base.head_size)
    return [KeyValue(torch.randn(size, generator=generator), torch.randn(size, generator=generator))]


def lessons(engine: Engine, kind: str = "kv") -> list[Lesson]:
    few = Task.from_rows([f"some text {i}" for i in range(8)], ["good", "bad"] * 4, name="few")
    many = Task.from_rows([f"another {i * i} text" for i in range(9)], ["goodness", "bad luck", "third"] * 3, name="many")
    said = Task.from_rows([f"say {i}" for i in range(8)], [f"said {i}" for i in range(8)], name="said", kind="generation")
    made = []
    for n, task in enumerate((few, many, said)):
        solver = PromptedBase(engine, task, forms(engine, kind, n), output_tokens=8)
        made.append(Lesson(task.name, solver, task.train.rows, task.train.rows[:4]))
    return made


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_one_pass_for_all_tasks_gives_each_its_own_loss_and_gradient(engine: Engine, kind: str) -> None:
    three, chosen = lessons(engine, kind), [[0, 3], [1, 2], [4, 5]]
    prompts = [[_grown(form) for form in forms(engine, kind, 10 + n)] for n in range(3)]
    together = losses_together(three, chosen, prompts, 0.0)
    torch.stack(together).sum().backward()
    gradients = [_leaf(one[0]).grad.clone() for one in prompts]
    for lesson, some, prompt, loss, gradient in zip(three, chosen, prompts, together, gradients, strict=True):
        (alone,) = lesson.objective.losses([some], [prompt])
        torch.testing.assert_close(loss, alone, atol=1e-5, rtol=1e-4)
        _leaf(prompt[0]).grad = None
        alone.backward()
        torch.testing.assert_close(_leaf(prompt[0]).grad, gradient, atol=1e-5, rtol=1e-3)


def _grown(form: Form) -> Form:
    return (
        Embedded(form.vectors.requires_grad_())
        if isinstance(form, Embedded)
        else KeyValue(form.keys.requires_grad_(), form.values)
    )


def _leaf(form: Form) -> torch.Tensor:
    return form.vectors if isinstance(form, Embedded) else form.keys


def test_a_teacher_adds_nothing_to_its_own_loss_and_something_to_anothers(engine: Engine) -> None:
    for n, lesson in enumerate(lessons(engine)):
        own, other = forms(engine, seed=n), forms(engine, seed=n + 5)
        lesson.learn_from(own)
        for prompt, same in ((own, True), (other, False)):
            (plain,), (taught,) = (losses_together([lesson], [[0, 1, 5]], [prompt], weight) for weight in (0.0, 0.9))
            assert bool(torch.isclose(plain, taught, atol=1e-4)) is same, lesson.name
            assert bool(torch.isfinite(taught))


def together(engine: Engine, seed: int = 0) -> Together:
    three = lessons(engine)
    first = MultitaskPrompt(forms(engine, seed=seed))
    prompts = [first, *(first.for_another_task() for _ in three[1:])]
    groups = [Group(list(first.shared)), Group([f for p in prompts for f in p.factors], 4 / 3)]
    return Together(three, prompts, groups, SETTINGS, distil=0.0)


def test_every_step_draws_two_or_more_tasks_and_every_row_comes_round(engine: Engine) -> None:
    made = together(engine)
    seen: dict[int, set[int]] = {}
    for step in range(12):
        drawn = made.draw(step)
        assert drawn == made.draw(step)
        assert 2 <= len(drawn) <= 3
        assert {len(rows) for _, rows in drawn} == {made.batch}
        for k, rows in drawn:
            seen.setdefault(k, set()).update(rows)
    assert {k: len(rows) for k, rows in seen.items()} == {0: 8, 1: 9, 2: 8}


def test_tuned_from_its_state_it_ends_in_the_same_prompts(engine: Engine, tmp_path: Path) -> None:
    whole = together(engine)
    whole.run()
    broken = together(engine)

    def stop(moment: object) -> None:
        if getattr(moment, "score", None) is not None and getattr(moment, "epoch", 0) == 2:
            raise KeyboardInterrupt

    broken.listener = stop
    with pytest.raises(KeyboardInterrupt):
        broken.run(tmp_path / "state.safetensors")
    again = together(engine)
    with torch.no_grad():
        for parameter in again.parameters:
            parameter.zero_()
    again.run(tmp_path / "state.safetensors")
    for mine, theirs in zip(again.parameters, whole.parameters, strict=True):
        assert torch.equal(mine, theirs)
    shared = whole.prompts[0].get_parameter("shared.0")
    assert all(prompt.get_parameter("shared.0") is shared for prompt in whole.prompts)


def test_a_prompt_is_like_itself_and_pictures_say_so(engine: Engine) -> None:
    table = cosines([forms(engine, seed=n) for n in range(3)])
    assert [table[i][i] for i in range(3)] == pytest.approx([1.0] * 3)
    assert table[0][1] == pytest.approx(table[1][0])
    gains = Gains.none(3)
    gains.put(0, 1, (0.2, 0.1, 0.3))
    gains.put(0, 2, (0.2, -0.1, 0.4))
    gains.put(2, 0, (-0.3, -0.4, -0.2))
    gains.put(1, 0, (0.1, None, None))
    picture = similarity_svg(["a", "b", "<c>"], table, gains)
    assert picture.startswith("<svg")
    assert "&lt;c&gt;" in picture
    assert picture.count(f'fill="{GREY}"') == 2
    assert gains.sentences(["a", "b", "c"]) == ["a helps b (+0.20 [+0.10 to +0.30])", "c harms a (-0.30 [-0.40 to -0.20])"]
    assert agreement([[1.0, 0.2, 0.5], [0.2, 1.0, 0.9], [0.5, 0.9, 1.0]], [[None, 0, 1], [0, None, 2], [1, 2, None]]) == 1.0
    assert agreement([[1.0, 0.2], [0.2, 1.0]], [[None, 0.1], [0.2, None]]) is None


def test_a_tuning_whose_scores_are_negative_keeps_what_it_learned(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best began at -1, which a mean distance in ranks, turned so that higher is better, never reached: the start was kept."""
    monkeypatch.setattr(LabelObjective, "watch", lambda *_: Watched(-1.5, -1.0))
    some = lessons(engine)[:2]
    first = MultitaskPrompt(forms(engine))
    groups = [Group(list(first.shared))]
    together = Together(some, [first, first.for_another_task()], groups, replace(SETTINGS, epochs=1), distil=0.0)
    assert together.run().score == -1.5
    start = MultitaskPrompt(forms(engine))
    assert any(bool((a != b).any()) for a, b in zip(first.shared, start.shared, strict=True))
