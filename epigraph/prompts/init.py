"""First values of a prompt, as vectors at the embedding layer; they take tensors, the engine supplies the rest.

    text, labels   the embedded tokens of a text, repeated or cut to P        (Lester et al. 2021, section 3.2)
    vocab          P rows sampled from the most frequent tokens of the table    (ibid.: the first 5,000)
    random         normal, scaled to the table's rms

A kind that starts from keys and values gets those of these vectors, run through the base.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.prompts.form import Embedded

FREQUENT = 5000


def repeat_to(ids: Sequence[int], length: int) -> list[int]:
    """The first ``length`` of the ids, repeated from the start where there are fewer."""
    if not ids:
        return []
    return [ids[i % len(ids)] for i in range(length)]


def sample_vocabulary(vocabulary: int, length: int, generator: torch.Generator, special: Sequence[int] = ()) -> list[int]:
    """``length`` different token ids among the first 5,000, which byte-pair tables keep in order of frequency."""
    allowed = [i for i in range(min(FREQUENT, vocabulary)) if i not in set(special)]
    order = torch.randperm(len(allowed), generator=generator)
    return [allowed[int(order[i % len(allowed)])] for i in range(length)]


def random_vectors(length: int, hidden: int, rms: float, generator: torch.Generator) -> Float[Tensor, "P H"]:
    """Normal vectors with the table's rms."""
    return torch.randn(length, hidden, generator=generator) * rms


def resize(form: Embedded, length: int) -> Embedded:
    """The vectors cut or repeated to ``length``."""
    index = torch.arange(length) % form.length
    return Embedded(form.vectors[index])
