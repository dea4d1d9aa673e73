"""What the engine receives from any kind: one form a ``{prompt}`` block.

    Embedded   vectors at the embedding layer               [P, H]      (Lester et al. 2021, https://arxiv.org/abs/2104.08691)
    KeyValue   keys and values at every attention layer     [L, A, P, D] (Li & Liang 2021, https://arxiv.org/abs/2101.00190)
    Dependent  a block that depends on the input: asked with the frozen query [B, H], it is one of the above with an axis B

Nobody asks a prompt for its kind; everybody asks it for its forms. Stored keys are already rotated, as if at positions
0…P−1 (the convention of PEFT's prefix tuning).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from epigraph.errors import Unsupported


@dataclass(frozen=True)
class Embedded:
    """P vectors that stand in the sequence like embedded tokens; [B, P, H] for kinds that depend on the input."""

    vectors: Float[Tensor, "*B P H"]

    @property
    def length(self) -> int:
        """P, the positions the block takes."""
        return self.vectors.shape[-2]


@dataclass(frozen=True)
class KeyValue:
    """Keys and values of P positions at every layer, as the attention reads them; with an axis B where they depend on the input."""

    keys: Float[Tensor, "*B L A P D"]
    values: Float[Tensor, "*B L A P D"]

    @property
    def length(self) -> int:
        """P, the positions the block takes."""
        return self.keys.shape[-2]


Form = Embedded | KeyValue


@dataclass(frozen=True)
class Dependent:
    """Block ``number`` of a prompt whose forms depend on the input; ``prompt.form(query)`` gives those of all its blocks."""

    prompt: nn.Module
    number: int
    length: int


AnyForm = Embedded | KeyValue | Dependent


def plain_forms(forms: Sequence[AnyForm], what: str) -> list[Form]:
    """The forms where none depends on the input; ``what`` (a noun: "an export") needs that. Raises Unsupported."""
    plain = [form for form in forms if not isinstance(form, Dependent)]
    if len(plain) < len(forms):
        raise Unsupported(
            f"{what} needs a prompt whose vectors are the same for every text; this one depends on the input.",
            "Tune a prompt of another kind.",
        )
    return plain


def kept_numbers(forms: Sequence[AnyForm]) -> int:
    """How many numbers must be kept to answer with these forms."""
    total = 0
    for form in forms:
        if isinstance(form, KeyValue):
            total += form.keys.numel() + form.values.numel()
        elif isinstance(form, Embedded):
            total += form.vectors.numel()
        elif form.number == 0:  # the blocks of a dependent prompt are one module
            total += sum(tensor.numel() for tensor in form.prompt.state_dict().values())
    return total
