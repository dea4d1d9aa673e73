"""Steps are compiled only where it was seen to pay; a compiled step is the same step."""

import subprocess
import sys

import pytest

from epigraph.base.toy import toy_base
from epigraph.engine.trunk import Trunk
from epigraph.tuning.compiling import FEWEST_STEPS, START_UP, weigh

MANY = 10 * FEWEST_STEPS


@pytest.fixture
def trunk() -> Trunk:
    return Trunk(toy_base())


def test_few_steps_are_not_even_timed(trunk: Trunk) -> None:
    found = weigh(trunk, FEWEST_STEPS - 1, lambda: pytest.fail("a step was taken"))
    assert (found.on, trunk.compiled) == (False, None)
    assert f"{FEWEST_STEPS - 1} steps are over before compiling" in found.reason


def test_steps_that_are_short_are_not_compiled(trunk: Trunk) -> None:
    seconds = iter([0.01, 0.01])
    found = weigh(trunk, MANY, lambda: next(seconds))
    assert (found.on, trunk.compiled) == (False, None)
    assert f"could save 30 s at most, and compiling takes about {START_UP:.0f} s" in found.reason


@pytest.mark.parametrize(("compiled", "on"), [(0.8, True), (1.1, False)])
def test_what_was_tried_is_kept_where_it_is_faster(trunk: Trunk, compiled: float, on: bool) -> None:
    seconds = iter([1.5, 1.0, 40.0, compiled, compiled])  # two plain steps, then the compiler's
    found = weigh(trunk, MANY, lambda: next(seconds), backend="eager")
    assert (found.on, trunk.compiled is not None) == (on, on)
    assert found.reason.startswith("yes: a step takes 0.80 s" if on else "no: a step takes 1.10 s compiled and 1.00 s plain")


def test_a_compiler_that_fails_leaves_all_as_it_was(trunk: Trunk) -> None:
    def step() -> float:
        if trunk.compiled is not None:
            raise RuntimeError("no C++ compiler was found")
        return 1.0

    found = weigh(trunk, MANY, step, backend="eager")
    assert (found.on, trunk.compiled) == (False, None)
    assert "it failed (RuntimeError: no C++ compiler was found)" in found.reason


@pytest.mark.slow
def test_a_compiled_step_has_the_same_gradient() -> None:
    """In a process of its own: what checks types in tests cannot be traced."""
    done = subprocess.run([sys.executable, "-c", SAME], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 1e-5


SAME = """
import torch
from epigraph.base.toy import toy_base
from epigraph.config import TuneConfig
from epigraph.engine import Engine
from epigraph.methods import PromptedBase
from epigraph.tasks.task import Task
from epigraph.tuning.choices import choose
from epigraph.tuning.loop import Loop, gradients
from epigraph.tuning.objective import make_objective
from epigraph.tuning.start import make_prompt

task = Task.from_rows([f"text {'x' * (i % 5)}" for i in range(16)], ["good", "bad"] * 8)
rows, worst = task.train.rows, 0.0
for family in ("llama", "gemma3"):
    engine = Engine(toy_base(family))
    choices = choose(TuneConfig(readings=1), task, len(rows))
    prompt = make_prompt(engine, choices.task, kind="kv", length=3, start="text", seed=0, rows=rows)
    objective = make_objective(PromptedBase(engine, choices.task, prompt.fold()), rows, rows)
    found = []
    for compiled in (False, True):
        if compiled:
            engine.trunk.compile_steps(backend="aot_eager")  # traced as it would be; nothing is built
        loop = Loop(prompt, objective, choices.loop, lambda moment: None)
        gradients([(loop, loop.rows())])
        found.append(torch.cat([p.grad.flatten() for p in prompt.parameters() if p.grad is not None]))
        prompt.zero_grad()
    worst = max(worst, float((found[0] - found[1]).norm() / found[0].norm()))
print(worst)
"""
