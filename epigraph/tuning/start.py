"""First values of a prompt: from a text, from the labels, from the vocabulary, at random, or from another prompt.

    text      the task's labels and instruction        labels   the labels' words only
    vocab     rows of the most frequent tokens         random   normal, scaled to the embedding table
    prompt:NAME   the forms of a stored prompt on the same base; vectors become keys and values where the kind needs them

Kinds that start from keys and values get those of the vectors, run through the base at positions 0…P−1.
"""

from collections.abc import Callable, Sequence

import torch

from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.prompts import KINDS, Embedded, Form, KeyValue, SoftPrompt
from epigraph.prompts.init import random_vectors, repeat_to, resize, sample_vocabulary
from epigraph.tasks.task import Task

FormsOf = Callable[[str], Sequence[Form]]


def make_prompt(
    engine: Engine, task: Task, *, kind: str, length: int, start: str, seed: int, forms_of: FormsOf | None = None
) -> SoftPrompt:
    """A prompt of this kind with its first values, one block for each ``{prompt}`` of the task's template."""
    blocks = task.template.blocks
    if start.startswith("prompt:"):
        forms = _from_prompt(start.removeprefix("prompt:"), forms_of, blocks)
    else:
        forms = [_embedded(engine, task, length, start, seed + 1000 * block) for block in range(blocks)]
    wanted = KINDS[kind]
    return wanted([_as(engine, form, wanted, length) for form in forms])


def start_text(task: Task) -> str:
    """The text of the default start: the labels' words first, since a short prompt holds no more, then the instruction."""
    words = ", ".join(task.labels.values())
    return f"{words}. {task.instruction}" if words else task.instruction


def _embedded(engine: Engine, task: Task, length: int, start: str, seed: int) -> Embedded:
    base = engine.base
    generator = torch.Generator().manual_seed(seed)
    if start == "random":
        return Embedded(random_vectors(length, base.hidden, base.table_rms, generator))
    if start == "vocab":
        special = list(base.tokenizer.all_special_ids)
        return engine.embedded_text(sample_vocabulary(base.embedding.weight.shape[0], length, generator, special))
    text = ", ".join(task.labels.values()) if start == "labels" else start_text(task)
    ids = base.tokenize(text)
    if not ids:
        raise ConfigError(f"start {start!r} was asked, but the task has no {start}.", "Use --start vocab or random.")
    return engine.embedded_text(repeat_to(ids, length))


def _from_prompt(name: str, forms_of: FormsOf | None, blocks: int) -> list[Form]:
    if forms_of is None:
        raise ConfigError(f"start prompt:{name} was asked, but there is no library to take it from.", "Pass --library.")
    forms = list(forms_of(name))
    return [forms[i % len(forms)] for i in range(blocks)]


def _as(engine: Engine, form: Form, kind: type[SoftPrompt], length: int) -> Form:
    if kind.start_form is KeyValue:
        vectors = resize(form, length) if isinstance(form, Embedded) else form
        with torch.no_grad():
            return engine.key_values(vectors)
    if isinstance(form, KeyValue):
        raise ConfigError(
            f"a {kind.kind} prompt cannot start from keys and values.", "Start it from a token prompt, or tune --kind kv."
        )
    return resize(form, length)
