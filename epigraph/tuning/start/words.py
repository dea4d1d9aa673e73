"""First values from words and draws, as vectors at the embedding layer.

text      the task's labels and instruction        labels   the labels' words only
vocab     rows of the most frequent tokens         random   normal, scaled to the embedding table
"""

import torch

from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.prompts import Embedded
from epigraph.prompts.init import random_vectors, repeat_to, sample_vocabulary
from epigraph.tasks.task import Task


def start_text(task: Task) -> str:
    """The text of the default start: the labels' words first, since a short prompt holds no more, then the instruction."""
    words = ", ".join(task.labels.values())
    return f"{words}. {task.instruction}" if words else task.instruction


def word_vectors(engine: Engine, task: Task, start: str, length: int, seed: int) -> Embedded:
    """``length`` vectors of this start. ConfigError where the task has no such words."""
    base = engine.base
    generator = torch.Generator().manual_seed(seed)
    if start == "random":
        return Embedded(random_vectors(length, base.hidden, base.table_rms, generator))
    if start == "vocab":
        special = list(base.tokenizer.all_special_ids)
        return engine.embedded_text(sample_vocabulary(base.embedding.weight.shape[0], length, generator, special))
    return engine.embedded_text(word_ids(engine, task, start, length))


def word_ids(engine: Engine, task: Task, start: str, length: int) -> list[int]:
    """The tokens of the starts ``text`` and ``labels``. ConfigError where the task has no such words."""
    text = ", ".join(task.labels.values()) if start == "labels" else start_text(task)
    ids = engine.base.tokenize(text)
    if not ids:
        raise ConfigError(f"start {start!r} was asked, but the task has no {start}.", "Use --start vocab or random.")
    return list(repeat_to(ids, length))
