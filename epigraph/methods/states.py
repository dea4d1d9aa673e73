"""The frozen states of rows: what the base makes of a text before any prompt.

    s(row) = [state of the last token, mean of all states]     last layer, [2, H]

They lie in the engine's store beside the keys and values that prompts use, so a text is read once for all of them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from epigraph.engine import Engine
from epigraph.engine.frozen import Text
from epigraph.errors import Unsupported
from epigraph.tasks.encode import Encoder
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tasks.template import Template

States = Float[np.ndarray, "N 2 H"]


def read_states(engine: Engine, task: Task, rows: Sequence[Row]) -> States:
    """The states of these rows. Unsupported on a base that keeps none."""
    if engine.plain:
        raise Unsupported(
            f"{engine.base.name} is run by plain concatenation, which keeps no frozen states: {engine.plain}.",
            "Choose a base such as Llama, Qwen, Mistral, Gemma or GPT-2.",
        )
    encoder = Encoder(reading_template(task), engine.base, engine.base.context - 1)
    encoded = [encoder.encode(row) for row in rows]
    engine.freeze(encoded)
    texts = [Text(row.segments[0], row.lead) for row in encoded]
    found: States = engine.store.summaries(texts, torch.device("cpu")).float().numpy()
    return found


def reading_template(task: Task) -> Template:
    """The task's template if a field stands before its prompt, else the same with the prompt after the last field."""
    template = task.template
    return template if any(piece.is_field for piece in template.segments[0]) else template.placed("last")
