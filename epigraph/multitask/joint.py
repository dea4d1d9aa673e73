"""The tuning of all tasks in one pass: their lessons, its loop, and what it took."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from epigraph.cost import Meter
from epigraph.multitask.folder import JOINT, JOINT_STATE, mark
from epigraph.multitask.lesson import Lesson
from epigraph.multitask.training import Group, Together
from epigraph.multitask.workshop import Workshop
from epigraph.prompts import SoftPrompt
from epigraph.tuning.loop import Settings


@dataclass(frozen=True, kw_only=True)
class Joint:
    """The tuning of all tasks in one pass: its settings, and what it took."""

    settings: Settings
    took: Mapping[str, Any]


def make_lessons(shop: Workshop, *, taught: bool) -> list[Lesson]:
    """A lesson for each task, its texts read; ``taught`` by its plain prompt, or by its rows alone."""
    lessons = []
    for t, choices in enumerate(shop.choices):
        solver = shop.solver(t, list(shop.plain[t].forms))
        rows = [*shop.parts[t].train, *shop.parts[t].validation]
        shop.engine.freeze(solver.encode(rows), lambda done, total: shop.show("reading the texts once", done, total))
        lesson = Lesson(choices.task.name, solver, shop.parts[t].train, shop.parts[t].validation)
        if taught:
            lesson.learn_from(list(shop.plain[t].forms))
        lessons.append(lesson)
    return lessons


def tune_in_one_pass(
    shop: Workshop, lessons: Sequence[Lesson], prompts: Sequence[SoftPrompt], groups: Sequence[Group]
) -> Joint:
    """Tune together; what it took is kept, so that a resumed work says the same."""
    device = shop.engine.base.device
    for prompt in prompts:
        prompt.to(device)
    loops = [choices.loop for choices in shop.choices]
    settings = replace(loops[0], rate=max(one.rate for one in loops), epochs=max(one.epochs for one in loops))
    meter, flops = Meter(), shop.engine.flops
    loop = Together(lessons, prompts, groups, settings, distil=shop.config.distil, listener=shop.listener)
    loop.run(shop.folder / JOINT_STATE)
    file = shop.folder / JOINT
    if not file.is_file():
        seconds = round(meter.seconds, 1)
        took = {"seconds": seconds, "train_seconds": seconds, "flops": shop.engine.flops - flops, **meter.energy()}
        mark(file, took | {"tasks": len(lessons), "steps": loop.step_number})
    return Joint(settings=settings, took=json.loads(file.read_text(encoding="utf-8")))
