"""Prompts as the base reads them: checked, converted and kept by the hash of their content, never by name.

Done in the thread that asks, so that the thread that computes never waits for it. A prompt whose tensors cannot be used is
refused here, before it meets other requests. A prompt that depends on the input is kept as it is and asked for its forms, an
answer at a time, once the states of what stands before it are there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from epigraph.base import Base
from epigraph.engine.workers import release_workers
from epigraph.errors import BaseMismatch, Corrupt, Unsupported
from epigraph.prompts import AnyForm, Dependent, Embedded, Form, KeyValue
from epigraph.serve.cache import Cache
from epigraph.serve.work import Carried

Forms = tuple[Form, ...]


@dataclass(frozen=True)
class Ready:
    """The forms of every member, one a block. Those of a prompt that depends on the input (``dependent``) have their shapes
    only; ``of_input`` gives the real ones."""

    members: tuple[Forms, ...]
    dependent: nn.Module | None = None

    @property
    def forms(self) -> Forms:
        """The forms of a prompt that is one."""
        return self.members[0]

    def of_input(self, query: Float[Tensor, " H"]) -> Forms:
        """The forms for this frozen query."""
        assert self.dependent is not None
        return tuple(_as(form, like) for form, like in zip(asked(self.dependent, query), self.forms, strict=True))


NOTHING = Ready(((),))


class Prompts:
    """The prompts of lately, converted to the base's dtype and device."""

    def __init__(self, base: Base, cache: Cache[Any]) -> None:
        self.base = base
        self.cache = cache

    def prepare(self, carried: Carried | None, *, plain: bool) -> Ready:
        """The prompt's forms, ready; BaseMismatch, Corrupt or Unsupported if they cannot be served."""
        if carried is None:
            return NOTHING
        key = f"{carried.content}/{carried.members}".encode()
        found: Ready | None = self.cache.get(key)
        if found is None:
            try:
                found = self._ready(carried, plain=plain)
            finally:
                release_workers()  # else this thread's would slow down every step of the one that computes
            self.cache.put(key, found, _bytes(found))
        return found

    def _ready(self, carried: Carried, *, plain: bool) -> Ready:
        dependent = next((form.prompt for form in carried.forms if isinstance(form, Dependent)), None)
        if dependent is not None and plain:
            raise Unsupported(
                f"prompt {carried.name!r} depends on the input, but {self.base.name} freezes no states to choose by.",
                "Tune with --kind token.",
            )
        forms = [_convert(form, carried.name, self.base, plain=plain) for form in outline(carried.forms, self.base.hidden)]
        each = len(forms) // carried.members
        members = tuple(tuple(forms[i * each : (i + 1) * each]) for i in range(carried.members))
        return Ready(members, dependent)


def outline(forms: Sequence[AnyForm], hidden: int) -> Forms:
    """The forms; a prompt that depends on the input gives its answer to a query of zeros, which has the shapes of all."""
    first = next((form for form in forms if isinstance(form, Dependent)), None)
    if first is None:
        return tuple(form for form in forms if not isinstance(form, Dependent))
    return asked(first.prompt, torch.zeros(hidden))


@torch.no_grad()
def asked(prompt: nn.Module, query: Float[Tensor, " H"]) -> Forms:
    """The forms of a prompt that depends on the input, for one frozen query."""
    device = next(prompt.parameters()).device
    found: Sequence[Form] = prompt.form(query[None].to(device))  # type: ignore[operator]
    return tuple(
        Embedded(form.vectors[0]) if isinstance(form, Embedded) else KeyValue(form.keys[0], form.values[0]) for form in found
    )


def _as(form: Form, like: Form) -> Form:
    """The form in the other's dtype, on its device."""
    if isinstance(form, Embedded):
        assert isinstance(like, Embedded)
        return Embedded(form.vectors.to(like.vectors))
    assert isinstance(like, KeyValue)
    return KeyValue(form.keys.to(like.keys), form.values.to(like.values))


def _bytes(ready: Ready) -> int:
    tensors = [t for forms in ready.members for form in forms for t in _tensors(form)]
    tensors += ready.dependent.state_dict().values() if ready.dependent is not None else []
    return sum(t.numel() * t.element_size() for t in tensors)


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
