"""First values from a long text of the user's: its keys and values, read once, at P of its tokens.

    t_0 = 0,  t_i = ⌈i (T−1) / (P−1)⌉        k_i = R(t_i → i) k(t_i),   v_i = v(t_i)

The text is read whole in one pass. Kept are the first token, on which attention rests, and the last token of each of P−1
equal stretches, whose states have read all before them. Keys are turned to the places 0…P−1 at which prompts are stored.
For prompts of vectors the same tokens' embeddings are taken.

Source: Eyuboglu et al. 2025 (Cartridges), section 3.2, https://arxiv.org/abs/2506.06266, who start from the first P tokens.
Differs: the tokens are spread over the text, so that its end is heard as well; hence the turn.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from epigraph.engine import Engine
from epigraph.engine.turning import turn_keys
from epigraph.errors import DataError
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.tasks.text_file import read_text


def long_form(engine: Engine, file: Path, length: int, wanted: type[Form]) -> Form:
    """The text as ``length`` vectors, or keys and values; what is beyond the base's context is not read.

    Raises NotFound or DataError where the file has no text or fewer tokens than vectors.
    """
    ids = text_ids(engine, file)
    if len(ids) < length:
        raise DataError(
            f"{file} has {len(ids)} tokens, but {length} vectors shall start from it.", "Give a longer text, or a --length."
        )
    return compressed(engine, ids, length, wanted)


def text_ids(engine: Engine, file: Path) -> list[int]:
    """The tokens of a file that the base can read. NotFound or DataError where it has no text."""
    return engine.base.tokenize(read_text(file))[: engine.base.context]


def compressed(engine: Engine, ids: Sequence[int], length: int, wanted: type[Form]) -> Form:
    """A text of at least ``length`` tokens, which the base can read at once, as so many vectors, or keys and values."""
    places = spread(len(ids), length)
    if wanted is Embedded:
        return engine.embedded_text([ids[t] for t in places])
    with torch.no_grad():
        whole = engine.key_values(engine.embedded_text(ids))
        kept = KeyValue(whole.keys[:, :, places], whole.values[:, :, places])
        return KeyValue(turn_keys(engine, kept.keys, places, range(length)), kept.values)


def spread(tokens: int, kept: int) -> list[int]:
    """Which tokens are kept: the first, and the last of each of ``kept`` − 1 stretches."""
    return [0, *(math.ceil(i * (tokens - 1) / (kept - 1)) for i in range(1, kept))]
