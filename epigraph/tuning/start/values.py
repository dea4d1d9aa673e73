"""A prompt of any kind with its first values, one form a ``{prompt}`` block.

    text, labels, vocab, random   words of the task, rows of the table, or drawn: ``words``
    examples                      training rows as a few-shot context: ``examples``
    text:FILE                     a long text, compressed: ``long_text``
    prompt:NAME                   the forms of a stored prompt on the same base (``nearest`` chooses one)

Kinds that start from keys and values get those of the vectors, run through the base at positions 0…P−1.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.prompts import KINDS, Embedded, Form, KeyValue, Repeated, SoftPrompt, Supply
from epigraph.prompts.init import resize, sample_vocabulary
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.start.examples import Context, draw_context
from epigraph.tuning.start.long_text import long_form, text_ids
from epigraph.tuning.start.words import word_vectors

FormsOf = Callable[[str], Sequence[Form]]
PROMPT, TEXT = "prompt:", "text:"
NEXT_BLOCK = 1000  # added to the seed for each further block


def make_prompt(
    engine: Engine,
    task: Task,
    *,
    kind: str,
    length: int,
    start: str,
    seed: int,
    forms_of: FormsOf | None = None,
    rows: Sequence[Row] = (),
    share_blocks: bool = False,
) -> SoftPrompt:
    """A prompt of this kind with its first values, one block for each ``{prompt}`` of the task's template.

    ``rows`` are the training rows, for ``examples``; with ``share_blocks`` all blocks have the vectors of the first.
    """
    blocks = 1 if share_blocks else task.template.blocks
    wanted = KINDS[kind]
    contexts: list[Context] = []
    if start.startswith(PROMPT):
        forms = [_as(engine, form, wanted, length) for form in _of_prompt(start.removeprefix(PROMPT), forms_of, blocks)]
    elif start.startswith(TEXT):
        forms = [long_form(engine, Path(start.removeprefix(TEXT)), length, wanted.start_form)] * blocks
    elif start == "examples":
        contexts = [draw_context(engine, task, rows, length=length, seed=seed + NEXT_BLOCK * i) for i in range(blocks)]
        forms = [_as(engine, engine.embedded_text(context.ids), wanted, len(context.ids)) for context in contexts]
    else:
        vectors = [word_vectors(engine, task, start, length, seed + NEXT_BLOCK * i) for i in range(blocks)]
        forms = [_as(engine, form, wanted, length) for form in vectors]
    answers = [torch.tensor(context.answers) for context in contexts]
    supply = Supply(
        seed=seed, hidden=engine.base.hidden, vocabulary=lambda count: _table_rows(engine, count, seed), answers=answers
    )
    prompt = wanted.begin([_at_hand(form) for form in forms], supply)
    return Repeated(prompt, task.template.blocks) if share_blocks else prompt


def can_start(engine: Engine, start: str, length: int) -> bool:
    """Whether there is a start of so many vectors: a text may have fewer tokens."""
    return not start.startswith(TEXT) or len(text_ids(engine, Path(start.removeprefix(TEXT)))) >= length


def _table_rows(engine: Engine, count: int, seed: int) -> Float[Tensor, "S H"]:
    base = engine.base
    ids = sample_vocabulary(
        base.embedding.weight.shape[0], count, torch.Generator().manual_seed(seed), list(base.tokenizer.all_special_ids)
    )
    return engine.embedded_text(ids).vectors.cpu()


def _of_prompt(name: str, forms_of: FormsOf | None, blocks: int) -> list[Form]:
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


def _at_hand(form: Form) -> Form:
    """On the CPU, where prompts are made."""
    return type(form)(**{name: tensor.detach().cpu() for name, tensor in vars(form).items()})
