"""Which stored prompt is most like this task's: what to start from, chosen without being told.

    chosen = argmax_c cos(E(trial), E(c))        E(p) = (mean_{i>0} p_i − mean of frequent tokens) / their rms

The trial is a prompt of this task after a short tuning of the text start; p_i are vectors, or keys and values, each layer in
its own units. Source: Vu et al. 2022 (SPoT), section 3.2, https://arxiv.org/abs/2110.07904: an early checkpoint's prompt is
the task's embedding, averaged over its tokens and compared by cosine. That is asked of the prompts themselves; means of the
texts' states would say what the texts are about and not what is asked of them, and are kept of no stored prompt.
Differs: what all prompts have in common is taken off first, since keys of any text point to the same side; so is the first
position, on which attention rests.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.prompts.init import sample_vocabulary

Stored = Callable[[], Iterable[tuple[str, Sequence[Form]]]]
FREQUENT_TOKENS = 64


@dataclass(frozen=True, order=True)
class Similar:
    """A stored prompt's similarity to the trial, −1 to 1."""

    similarity: float
    reference: str


def rank(engine: Engine, trial: Sequence[Form], stored: Iterable[tuple[str, Sequence[Form]]]) -> list[Similar]:
    """All stored prompts that one of the trial's form can start from, the most similar first. ConfigError if there are none."""
    wanted = type(trial[0])
    common, unit = _common(engine, wanted)
    asked = _embed(_as(engine, trial[0], wanted), common, unit)
    found = [
        Similar(float(torch.cosine_similarity(asked, _embed(form, common, unit), dim=0)), reference)
        for reference, forms in stored
        if (form := _as(engine, forms[0], wanted)) is not None and form.length
    ]
    if not found:
        raise no_source()
    return sorted(found, reverse=True)


def no_source() -> ConfigError:
    """What to tell where there is nothing to start from."""
    return ConfigError(
        "start nearest was asked, but no stored prompt of this base can be started from.",
        "Tune one first, pass --library, or leave --start out.",
    )


def _as(engine: Engine, form: Form, wanted: type[Form]) -> Form | None:
    """The form as keys and values where those are wanted; None where vectors are and there are none."""
    if wanted is KeyValue:
        with torch.no_grad():
            return engine.key_values(form)
    return form if isinstance(form, Embedded) else None


def _points(form: Form) -> Float[Tensor, "P X"]:
    """A row for each position, without the first where there are more."""
    parts = (
        [form.vectors]
        if isinstance(form, Embedded)
        else [t.permute(2, 0, 1, 3).flatten(1) for t in (form.keys, form.values)]
    )
    rows = torch.cat(parts, 1)
    return rows[min(1, len(rows) - 1) :].detach().float().cpu()


def _embed(form: Form | None, common: Float[Tensor, "X"], unit: Float[Tensor, "X"]) -> Float[Tensor, "X"]:
    assert form is not None
    return (_points(form).mean(0) - common) / unit


def _common(engine: Engine, wanted: type[Form]) -> tuple[Float[Tensor, "X"], Float[Tensor, "X"]]:
    """What frequent tokens have in common, and the unit of every number: the rms of its layer's keys or values."""
    base = engine.base
    generator = torch.Generator().manual_seed(0)
    ids = sample_vocabulary(base.embedding.weight.shape[0], FREQUENT_TOKENS, generator, list(base.tokenizer.all_special_ids))
    points = _points(_as(engine, engine.embedded_text(ids), wanted))  # type: ignore[arg-type]
    parts = 1 if wanted is Embedded else 2 * base.layers
    sizes = points.view(len(points), parts, -1).pow(2).mean((0, 2)).sqrt()
    return points.mean(0), sizes.clamp(min=1e-12).repeat_interleave(points.shape[1] // parts)
