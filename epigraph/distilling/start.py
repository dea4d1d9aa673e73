"""The student's first values: what the teacher reads, compressed to P vectors, or an old base's prompt carried over.

text     keys and values of the hard prompt itself, read once, at P of its tokens: ``tuning/start/long_text.py``
matched  P keys and values that the texts read as they read all of it: ``matching``
mapped   the teacher's prompt in this base's terms: ``mapping``; vectors are run through the base where keys and values
         are wanted
"""

from collections.abc import Sequence

import torch

from epigraph.distilling.mapping import Carried
from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.prompts import KINDS, Embedded, Form, KeyValue, SoftPrompt, Supply
from epigraph.prompts.init import repeat_to, resize
from epigraph.tasks.encode import opening
from epigraph.tasks.task import Task
from epigraph.tuning.start import start_text
from epigraph.tuning.start.long_text import compressed

DEFAULT_KIND, PLAIN_KIND = "sink", "token"


def text_form(engine: Engine, task: Task, text: str, length: int, wanted: type[Form]) -> Form:
    """``length`` vectors, or keys and values, of a text; of the task's own words where it is empty."""
    base = engine.base
    ids = base.tokenize(text or start_text(task))
    if not ids:
        raise ConfigError("there is no text to start from.", "Give the task an instruction.")
    ids = [*opening(base, chat=task.chat), *ids] if wanted is KeyValue else ids
    return compressed(engine, (ids if len(ids) >= length else repeat_to(ids, length))[: base.context], length, wanted)


def mapped_form(engine: Engine, form: Form, length: int, wanted: type[Form]) -> Form:
    """A carried form as the wanted one, with ``length`` vectors where it is of vectors."""
    if isinstance(form, KeyValue):
        if wanted is Embedded:
            raise ConfigError(
                "vectors cannot start from keys and values.", "Leave --kind out, or start from a text: --start text"
            )
        return form
    vectors = resize(form, length)
    if wanted is Embedded:
        return vectors
    with torch.no_grad():
        return engine.key_values(vectors)


def begin(
    engine: Engine,
    task: Task,
    *,
    kind: str,
    length: int,
    text: str,
    carried: Carried | None,
    seed: int,
    found: KeyValue | None = None,
) -> SoftPrompt:
    """The student with its first values, one block for each of the template's: those ``found`` where there are any."""
    wanted = KINDS[kind]
    blocks = task.template.blocks
    forms: list[Form]
    if found is not None:
        forms = [found]
    elif carried is None:
        forms = [text_form(engine, task, text, length, wanted.start_form)] * blocks
    else:
        given: Sequence[Form] = carried.forms
        forms = [mapped_form(engine, given[i % len(given)], length, wanted.start_form) for i in range(blocks)]
    at_hand = [type(form)(**{name: tensor.detach().cpu() for name, tensor in vars(form).items()}) for form in forms]
    return wanted.begin(at_hand, Supply(seed=seed, hidden=engine.base.hidden))
