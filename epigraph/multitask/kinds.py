"""The four kinds of tuning together and ``KINDS_OF_WORK``, the only list: from plain prompts to every task's prompt.

multitask   a shared prompt times each task's factors      mixture   each task attends over the others' plain prompts
spot        one prompt for all, then each task's from it   average   the mean of the plain prompts, then each task's from it
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from epigraph.library import StoredPrompt
from epigraph.multitask.cards import joined_prompt
from epigraph.multitask.folder import TOGETHER
from epigraph.multitask.joint import make_lessons, tune_in_one_pass
from epigraph.multitask.start import first_values
from epigraph.multitask.training import Group
from epigraph.multitask.workshop import Workshop, plain_forms
from epigraph.prompts import AnyForm, Dependent, Embedded, Form, KeyValue, MixturePrompt, MultitaskPrompt, SoftPrompt
from epigraph.prompts.multitask import universal
from epigraph.prompts.packed import pack, unpack

Worked = tuple[list[Form], list[StoredPrompt], int]
"""The universal prompt, every task's with its card, and how many numbers were trained in common."""


def tune_multitask(shop: Workshop) -> Worked:
    """MPT: a shared prompt times factors of each task, taught by the plain prompts."""
    first = MultitaskPrompt(plain_forms(first_values(shop).fold()))
    prompts = [first, *(first.for_another_task() for _ in shop.tasks[1:])]
    lessons = make_lessons(shop, taught=bool(shop.config.distil))
    groups = [Group(list(first.shared)), Group([f for p in prompts for f in p.factors], shop.config.factor_rate)]
    joint = tune_in_one_pass(shop, lessons, prompts, groups)
    trained = sum(p.numel() for group in groups for p in group.parameters)
    made = [joined_prompt(shop, t, prompt.fold(), joint, trained) for t, prompt in enumerate(prompts)]
    return [_kept(form) for form in universal(prompts)], made, trained


def tune_spot(shop: Workshop) -> Worked:
    """SPoT: one prompt for all tasks, then each task's from it."""
    prompt = first_values(shop)
    tune_in_one_pass(shop, make_lessons(shop, taught=False), [prompt] * len(shop.tasks), [Group(list(prompt.parameters()))])
    start = plain_forms(prompt.fold())
    return start, _each_from(shop, start), prompt.trained_parameters


def average(shop: Workshop) -> Worked:
    """The mean of the plain prompts, then each task's from it."""
    sources = [plain_forms(stored.forms) for stored in shop.plain]
    start = [_kept(unpack(torch.stack([pack(form) for form in block]).mean(0))) for block in zip(*sources, strict=True)]
    return start, _each_from(shop, start), 0


def tune_mixture(shop: Workshop) -> Worked:
    """ATTEMPT: each task attends over the plain prompts of the others."""
    found: list[StoredPrompt] = []
    hidden = shop.engine.base.hidden
    for t, task in enumerate(shop.tasks):
        sources = [plain_forms(stored.forms) for k, stored in enumerate(shop.plain) if k != t]

        def wrap(prompt: SoftPrompt, sources: Sequence[Sequence[Form]] = tuple(sources)) -> SoftPrompt:
            return MixturePrompt(list(prompt.form()), sources, hidden=hidden)

        found.append(shop.tuned(TOGETHER, t, task, shop.single, wrap=wrap))
    return [], found, sum(_trained_of(stored.forms) for stored in found)


KINDS_OF_WORK: Mapping[str, Callable[[Workshop], Worked]] = {
    "multitask": tune_multitask,
    "mixture": tune_mixture,
    "spot": tune_spot,
    "average": average,
}


def _trained_of(forms: Sequence[AnyForm]) -> int:
    first = forms[0]
    return sum(p.numel() for p in first.prompt.parameters()) if isinstance(first, Dependent) else 0


def _each_from(shop: Workshop, start: Sequence[Form]) -> list[StoredPrompt]:
    config = replace(shop.single, start="prompt:universal")
    return [shop.tuned(TOGETHER, t, task, config, forms_of=lambda _name: start) for t, task in enumerate(shop.tasks)]


def _kept(form: Form) -> Form:
    if isinstance(form, Embedded):
        return Embedded(form.vectors.detach().float().cpu().contiguous())
    return KeyValue(form.keys.detach().float().cpu().contiguous(), form.values.detach().float().cpu().contiguous())
