"""Starts from stored prompts. ``nearest``: a short trial of this task, and the stored prompt that is most like it.

trial: 64 training rows, 3 epochs, from the text start ─► rank ─► prompt:NAME@VERSION, pinned in the run

A prompt that starts from a stored one has its length: keys and values cannot be cut or repeated, since each was computed
behind those before it, and vectors that learned together are not cut unasked.

Source: Vu et al. 2022 (SPoT), section 3, https://arxiv.org/abs/2110.07904; how similar two prompts are: ``start.nearest``.
"""

from collections.abc import Sequence
from dataclasses import replace

from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.methods import PromptedBase
from epigraph.prompts import Dependent, Form, KeyValue
from epigraph.tuning.choices import Choices
from epigraph.tuning.data import Parts
from epigraph.tuning.loop import Loop, Settings
from epigraph.tuning.objective import make_objective
from epigraph.tuning.run import Run
from epigraph.tuning.start import make_prompt
from epigraph.tuning.start.nearest import no_source, rank
from epigraph.tuning.start.values import PROMPT
from epigraph.tuning.surroundings import Surroundings

TRIAL_ROWS, TRIAL_EPOCHS, TRIAL_BATCH, WATCHED_ROWS = 64, 3, 16, 16


def settle_start(engine: Engine, choices: Choices, parts: Parts, around: Surroundings) -> Choices:
    """The choices with the nearest stored prompt as start where that was asked, and the length of the one that is started from.

    ConfigError where no stored prompt can be started from, or one of keys and values has another length than was asked.
    """
    return _with_its_length(_settled(engine, choices, parts, around), around)


def _settled(engine: Engine, choices: Choices, parts: Parts, around: Surroundings) -> Choices:
    """The start settled; a run to resume has chosen already."""
    if around.resume is not None:
        then = Run.open(around.resume).description
        start, reason = then["settings"]["start"], then["reasons"].get("start")
        return _pinned(choices, start, reason) if reason and choices.start in (start, "nearest") else choices
    return _nearest(engine, choices, parts, around) if choices.start == "nearest" else choices


def _nearest(engine: Engine, choices: Choices, parts: Parts, around: Surroundings) -> Choices:
    if around.stored is None:
        raise ConfigError("start nearest was asked, but there is no library to search.", "Pass --library.")
    stored = list(around.stored())
    if not stored:
        raise no_source()
    best, *others = rank(engine, _trial(engine, choices, parts), stored)
    reason = f"{best.reference}: the nearest of {len(others) + 1} stored prompts, similarity {best.similarity:.2f}"
    if others:
        reason += f" (next: {others[0].reference}, {others[0].similarity:.2f})"
    around.note(f"start: {reason}")
    return _pinned(choices, f"{PROMPT}{best.reference}", reason)


def _with_its_length(choices: Choices, around: Surroundings) -> Choices:
    """The length of the stored prompt, where one is the start. A length that was not asked for has a reason."""
    if not choices.start.startswith(PROMPT) or around.forms_of is None:
        return choices
    name = choices.start.removeprefix(PROMPT)
    form = next(iter(around.forms_of(name)))
    if form.length == choices.length:
        return choices
    if "length" in choices.reasons:
        reasons = {**choices.reasons, "length": f"{form.length} vectors a block: those of {name}"}
        return replace(choices, length=form.length, reasons=reasons)
    if isinstance(form, KeyValue):
        raise ConfigError(
            f"a length of {choices.length} was asked, but {name} holds keys and values of {form.length}, which cannot be cut or "
            "repeated.",
            f"Leave --length out, or pass --length {form.length}.",
        )
    return choices


def _pinned(choices: Choices, start: str, reason: str) -> Choices:
    return replace(choices, start=start, reasons={**choices.reasons, "start": reason})


def _trial(engine: Engine, choices: Choices, parts: Parts) -> Sequence[Form]:
    prompt = make_prompt(
        engine,
        choices.task,
        kind=choices.kind,
        length=choices.length,
        start="text",
        seed=choices.loop.seed,
        share_blocks=choices.share_blocks,
    )
    solver = PromptedBase(engine, choices.task, prompt.fold())
    rows = list(parts.train[:TRIAL_ROWS])
    batch = min(TRIAL_BATCH, choices.loop.batch)
    settings: Settings = replace(choices.loop, epochs=TRIAL_EPOCHS, batch=batch, patience=TRIAL_EPOCHS)
    objective = make_objective(solver, rows, rows[:WATCHED_ROWS])
    Loop(prompt.to(engine.base.device), objective, settings, lambda _moment: None).run()
    return [form for form in prompt.fold() if not isinstance(form, Dependent)]
