"""Prompts as the base reads them: checked, converted and kept by the hash of their content, never by name.

Done in the thread that asks, so that the thread that computes never waits for it. A prompt whose tensors cannot be used is
refused here, before it meets other requests.
"""

from typing import Any

import torch
from torch import Tensor

from epigraph.base import Base
from epigraph.errors import BaseMismatch, Corrupt, Unsupported
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.serve.cache import Cache
from epigraph.serve.work import Carried

Forms = tuple[Form, ...]


class Prompts:
    """The prompts of lately, converted to the base's dtype and device."""

    def __init__(self, base: Base, cache: Cache[Any]) -> None:
        self.base = base
        self.cache = cache

    def prepare(self, carried: Carried | None, *, plain: bool) -> Forms:
        """The prompt's forms, ready; BaseMismatch, Corrupt or Unsupported if they cannot be served."""
        if carried is None:
            return ()
        key = carried.content.encode()
        found: Forms | None = self.cache.get(key)
        if found is None:
            found = tuple(_convert(form, carried.name, self.base, plain=plain) for form in carried.forms)
            self.cache.put(key, found, sum(t.numel() * t.element_size() for form in found for t in _tensors(form)))
        return found


def _tensors(form: Form) -> tuple[Tensor, ...]:
    return (form.vectors,) if isinstance(form, Embedded) else (form.keys, form.values)


def _convert(form: Form, name: str, base: Base, *, plain: bool) -> Form:
    wanted: tuple[int, ...] = (form.length, base.hidden)
    if isinstance(form, KeyValue):
        if plain:
            raise Unsupported(
                f"prompt {name!r} holds keys and values, which {base.name} does not take: it is run by plain concatenation.",
                "Tune with --kind token.",
            )
        wanted = (base.layers, base.heads, form.length, base.head_size)
    elif form.vectors.ndim != 2:
        raise Unsupported(f"prompt {name!r} depends on the input, which the server cannot serve.", "Serve another kind.")
    for tensor in _tensors(form):
        if tuple(tensor.shape) != wanted:
            raise BaseMismatch(
                f"prompt {name!r} has tensors of shape {list(tensor.shape)}; {base.name} reads {list(wanted)}.",
                "Tune it again on this base.",
            )
        if not bool(torch.isfinite(tensor).all()):
            raise Corrupt(f"prompt {name!r} has numbers that are not finite.", "Tune it again, or store it anew.")
    here = [tensor.detach().to(base.device, base.dtype) for tensor in _tensors(form)]
    return Embedded(here[0]) if isinstance(form, Embedded) else KeyValue(here[0], here[1])
