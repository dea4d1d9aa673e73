"""What a router sees of a text: the base's own mean state of it, read under a template that belongs to no task.

    q(x) = mean over the tokens of "{fields, a line each}\\nLabel" of the last layer's states        [H]

That is what stands before the prompt in the default template of a classification, so the states that a prompt answers from
are there already once a text is routed, and the other way round.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from epigraph.base import Base
from epigraph.engine import Engine
from epigraph.tasks.encode import Encoded, Encoder
from epigraph.tasks.row import Row
from epigraph.tasks.template import Template

TEMPLATE = Template("{text}\nLabel{prompt}:")


def routed_text(fields: Mapping[str, str]) -> str:
    """A row as one text: its fields, a line each."""
    return "\n".join(fields.values())


def text_queries(engine: Engine, texts: Sequence[str]) -> Float[np.ndarray, "N H"]:
    """The frozen query of every text. Unsupported on a base that is run by plain concatenation."""
    found: np.ndarray = engine.query(query_rows(engine.base, texts)).double().cpu().numpy()
    return found


def query_rows(base: Base, texts: Sequence[str]) -> list[Encoded]:
    """The texts as a router reads them; the query is that of the first segment."""
    encoder = Encoder(TEMPLATE, base, base.context - 8)
    return [encoder.encode(Row(fields={"text": text})) for text in texts]
