"""The reference: the base's stock forward over the plain concatenation, a row at a time, nothing cached or shared.

    [segment 0 | block 1 | segment 1 | … | tail]      positions 0, 1, 2, …; stored keys enter as they are

The engine must equal this to rounding for every architecture it serves: the tests and the self-test compare the two.
``plain_states`` goes block by block through the base's cache, so that stored keys can enter; ``whole_states`` is one forward
without a cache, for bases that are run by plain concatenation.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.base import Base
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.tasks.encode import Encoded


@contextmanager
def stock_attention(base: Base, name: str = "eager") -> Iterator[None]:
    """Run the base with transformers' own attention."""
    before = base.model.config._attn_implementation
    base.model.set_attn_implementation(name)
    try:
        yield
    finally:
        base.model.set_attn_implementation(before)


def plain_states(base: Base, row: Encoded, forms: Sequence[Form], tail: Sequence[int] = ()) -> Float[Tensor, "N H"]:
    """Last states of the last segment's tokens and the tail's, by the stock forward."""
    from transformers import DynamicCache

    cache, position = DynamicCache(), 0
    states: list[Tensor] = []
    with stock_attention(base):
        for number, segment in enumerate(row.segments):
            if number:
                position = _append(base, cache, forms[number - 1], position)
                states = []
            last = number == len(row.segments) - 1
            tokens = [*segment, *(tail if last else ())]
            if tokens:
                vectors = base.embed(torch.tensor([tokens]))
                states.append(_step(base, cache, vectors, position))
                position += len(tokens)
    return torch.cat(states, 1)[0]


def whole_states(base: Base, row: Encoded, forms: Sequence[Form], tail: Sequence[int] = ()) -> Float[Tensor, "N H"]:
    """The same for vectors only, in one stock forward with the attention that is set, without cache, mask or padding."""
    parts = [base.embed(torch.tensor(row.segments[0], dtype=torch.long))]
    for form, segment in zip(forms, row.segments[1:], strict=True):
        assert isinstance(form, Embedded)
        parts += [form.vectors.to(base.device, base.dtype), base.embed(torch.tensor(segment, dtype=torch.long))]
    parts.append(base.embed(torch.tensor(list(tail), dtype=torch.long)))
    hidden: Tensor = base.trunk(inputs_embeds=torch.cat(parts)[None], use_cache=False).last_hidden_state[0]
    return hidden[len(hidden) - len(row.segments[-1]) - len(tail) :]


def _append(base: Base, cache: Any, form: Form, position: int) -> int:
    if form.length == 0:
        return position
    if isinstance(form, Embedded):
        _step(base, cache, form.vectors.to(base.dtype)[None], position)
    else:
        assert isinstance(form, KeyValue)
        for layer in range(base.layers):
            cache.update(form.keys[layer][None].to(base.dtype), form.values[layer][None].to(base.dtype), layer)
    return position + form.length


def _step(base: Base, cache: Any, vectors: Tensor, position: int) -> Tensor:
    places = torch.arange(position, position + vectors.shape[1], device=base.device)[None]
    done = base.trunk(inputs_embeds=vectors, position_ids=places, use_cache=True, **base.past(cache))
    hidden: Tensor = done.last_hidden_state
    return hidden
