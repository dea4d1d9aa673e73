"""What a router sees of a text: the base's own mean state of it, read under a template that belongs to no task.

    q(x) = mean over the tokens of "{fields, a line each}\\nLabel" of the last layer's states        [H]

That is what stands before the prompt in the default template of a classification, so the states that a prompt answers from
are there already once a text is routed, and the other way round.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from epigraph.engine import Engine
from epigraph.tasks.encode import Encoder
from epigraph.tasks.row import Row
from epigraph.tasks.template import Template

TEMPLATE = Template("{text}\nLabel{prompt}:")


def routed_text(fields: Mapping[str, str]) -> str:
    """A row as one text: its fields, a line each."""
    return "\n".join(fields.values())


def text_queries(engine: Engine, texts: Sequence[str]) -> Float[np.ndarray, "N H"]:
    """The frozen query of every text. Unsupported on a base that is run by plain concatenation."""
    encoder = Encoder(TEMPLATE, engine.base, engine.base.context - 8)
    rows = [encoder.encode(Row(fields={"text": text})) for text in texts]
    found: np.ndarray = engine.query(rows).double().cpu().numpy()
    return found
