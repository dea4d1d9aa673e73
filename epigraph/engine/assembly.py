"""Puts prompts into a pass: their keys and values into the shared block, their vectors into the own stream.

S prompts may stand side by side; each answers an equal share of the batch. Shorter ones are padded and the padding hidden.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from epigraph.base import Base
from epigraph.engine.attention import Shared
from epigraph.engine.beginning import join
from epigraph.engine.stream import Stream
from epigraph.prompts import Embedded, Form, KeyValue

NEVER = 1 << 30  # a column that no stream reaches: hidden from every token
Prompts = Sequence[Sequence[Form]]


def shared_blocks(
    base: Base, prompts: Prompts, stream: Stream, beginnings: Sequence[KeyValue | None], *, skip_first: bool
) -> Shared | None:
    """Each prompt's common beginning and ``KeyValue`` blocks, with who sees what where not all see all."""
    each = len(stream.ends) // len(prompts)
    groups = [
        _group(forms, stream, slice(s * each, (s + 1) * each), begin, skip_first=skip_first)
        for s, (forms, begin) in enumerate(zip(prompts, beginnings, strict=True))
    ]
    longest = max(since.shape[1] for _, _, since in groups)
    if not longest:
        return None
    blocks = [_padded(parts, longest, base) for parts, _, _ in groups]
    places = torch.cat([pad(p, (0, longest - p.shape[1])) for _, p, _ in groups])
    since = torch.cat([pad(s, (0, longest - s.shape[1]), value=NEVER) for _, _, s in groups])
    visible = None
    if bool((since > 0).any()):
        visible = (torch.arange(stream.ids.shape[1])[None, :, None] >= since[:, None, :]).to(base.device)
    keys, values = (torch.stack(side, 1) for side in zip(*blocks, strict=True))
    return Shared(keys, values, places.to(base.device), visible)


def _group(
    forms: Sequence[Form], stream: Stream, rows: slice, begin: KeyValue | None, *, skip_first: bool
) -> tuple[list[KeyValue], Int[Tensor, "B P"], Int[Tensor, "B P"]]:
    """One prompt's blocks, the positions they take and the column from which they are seen, for its rows."""
    B = rows.stop - rows.start
    parts: list[KeyValue] = []
    places, since = [torch.zeros(B, 0, dtype=torch.long)], [torch.zeros(B, 0, dtype=torch.long)]
    if begin is not None:
        parts.append(begin)
        places.append(torch.arange(begin.length)[None].expand(B, -1))
        since.append(torch.zeros(B, begin.length, dtype=torch.long))
    for number, form in enumerate(forms):
        if isinstance(form, KeyValue) and form.length and not (skip_first and number == 0):
            parts.append(form)
            places.append(stream.starts[number][rows, None] + torch.arange(form.length)[None])
            since.append(stream.columns[number][rows, None].expand(-1, form.length))
    return parts, torch.cat(places, 1), torch.cat(since, 1)


def _padded(parts: Sequence[KeyValue], length: int, base: Base) -> tuple[Tensor, Tensor]:
    """The parts as one block of this length, in the base's dtype: keys and values [L, A, P, D]."""
    if not parts:
        empty = torch.zeros(base.layers, base.heads, length, base.head_size, device=base.device, dtype=base.dtype)
        return empty, empty
    here = [KeyValue(p.keys.to(base.device, base.dtype), p.values.to(base.device, base.dtype)) for p in parts]
    block = join(here) if len(here) > 1 else here[0]
    missing = (0, 0, 0, length - block.length)
    return (pad(block.keys, missing), pad(block.values, missing)) if length > block.length else (block.keys, block.values)


def embed_stream(base: Base, stream: Stream, prompts: Prompts, *, skip_first: bool) -> Float[Tensor, "B Q H"]:
    """The own tokens' vectors, prompt vectors in their slots."""
    embedded = base.embed(stream.ids.clamp(min=0))
    rows, columns = stream.slots
    if not len(rows):
        return embedded
    each = len(stream.ends) // len(prompts)
    vectors = [_row_vectors(forms, each, base, skip_first=skip_first) for forms in prompts]
    return embedded.index_put((rows.to(base.device), columns.to(base.device)), torch.cat(vectors))


def _row_vectors(forms: Sequence[Form], each: int, base: Base, *, skip_first: bool) -> Float[Tensor, "N H"]:
    """The vectors of one prompt for its rows, row after row, block after block."""
    own = [f for n, f in enumerate(forms) if isinstance(f, Embedded) and f.length and not (skip_first and n == 0)]
    if not own:
        return torch.zeros(0, base.hidden, device=base.device, dtype=base.dtype)
    blocks = [form.vectors.to(base.device, base.dtype).expand(each, -1, -1) for form in own]
    return torch.cat(blocks, 1).flatten(0, 1)
