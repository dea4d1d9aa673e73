"""Puts prompts into a pass: their keys and values into the shared block, their vectors into the own stream.

S prompts may stand side by side; each answers an equal share of the batch. Shorter ones are padded and the padding hidden.
A prompt that depends on the input is asked for its forms here: vectors [B, P, H] go into the stream row by row, keys and
values [B, L, A, P, D] make every row a prompt of its own.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from epigraph.base import Base
from epigraph.engine.attention import Shared
from epigraph.engine.beginning import join
from epigraph.engine.stream import Stream
from epigraph.prompts import AnyForm, Dependent, Embedded, Form, KeyValue
from epigraph.prompts.shown import ShownVectors, shown_of

NEVER = 1 << 30  # a column that no stream reaches: hidden from every token
Prompts = Sequence[Sequence[Form]]
Asked = Sequence[Sequence[AnyForm]]
Query = Callable[[slice], Float[Tensor, "B H"]]


def settle(prompts: Asked, rows: int, query: Query) -> Prompts:
    """The forms of these prompts for ``rows`` rows; ``query`` gives the frozen queries of some of them."""
    each = rows // len(prompts)
    settled = [_settle(forms, slice(s * each, (s + 1) * each), query) for s, forms in enumerate(prompts)]
    if not any(isinstance(form, KeyValue) and form.keys.ndim > 4 for forms in settled for form in forms):
        return settled
    return [[_of_row(form, b) for form in forms] for forms in settled for b in range(each)]


def _settle(forms: Sequence[AnyForm], rows: slice, query: Query) -> list[Form]:
    plain = [form for form in forms if not isinstance(form, Dependent)]
    if len(plain) == len(forms):
        return plain
    first = next(form for form in forms if isinstance(form, Dependent))
    device = next(first.prompt.parameters()).device
    answered = first.prompt.form(query(rows).to(device))  # type: ignore[operator]
    return [answered[form.number] if isinstance(form, Dependent) else form for form in forms]


def _of_row(form: Form, b: int) -> Form:
    """What a form is for row b of its prompt's rows."""
    if isinstance(form, KeyValue):
        return KeyValue(form.keys[b], form.values[b]) if form.keys.ndim > 4 else form
    return Embedded(form.vectors[b : b + 1]) if form.vectors.ndim > 2 else form


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
    return Shared(keys, values, places.to(base.device), visible, _shown([parts for parts, _, _ in groups], longest, base))


def _shown(groups: Sequence[Sequence[KeyValue]], length: int, base: Base) -> Tensor | None:
    """Which positions each layer sees, [L, S, P]; None where every layer sees all."""
    if all(shown_of(part, base.layers) is None for parts in groups for part in parts):
        return None
    found = torch.ones(base.layers, len(groups), length, dtype=torch.bool)
    for group, parts in enumerate(groups):
        start = 0
        for part in parts:
            shown = shown_of(part, base.layers)
            if shown is not None:
                found[:, group, start : start + part.length] = shown
            start += part.length
    return found.to(base.device)


def unseen_tokens(stream: Stream, prompts: Prompts, base: Base, *, skip_first: bool) -> Tensor | None:
    """The own tokens [B, Q] that hold a vector which is not shown; None where all are."""
    own = [[f for n, f in enumerate(forms) if isinstance(f, Embedded) and not (skip_first and n == 0)] for forms in prompts]
    if not any(isinstance(form, ShownVectors) for forms in own for form in forms):
        return None
    each = len(stream.ends) // len(prompts)
    hidden = [
        ~f.shown if isinstance(f, ShownVectors) else torch.zeros(f.length).bool() for forms in own for f in forms * each
    ]
    rows, columns = stream.slots
    found = torch.zeros(stream.ids.shape, dtype=torch.bool)
    found[rows, columns] = torch.cat(hidden).cpu()
    return found.to(base.device)


def hide(own: Tensor, unseen: Tensor | None) -> Tensor:
    """The own mask [B, Q, Q] without the columns of unseen tokens; each still sees itself."""
    if unseen is None:
        return own
    itself = torch.eye(own.shape[-1], dtype=torch.bool, device=own.device)[None]
    return own & (~unseen[:, None, :] | itself)


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
