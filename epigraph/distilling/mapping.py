"""A prompt carried to another base through the words that both know.

    p ≈ Σ_{k ∈ S} w_k e_k,   w = argmin ‖p − Σ w_k e_k‖² + λ‖w‖²        p' = (r' / r) Σ w_k e'_k

e, e' are the rows of the same token strings in the old and the new embedding table, r, r' the tables' rms. S grows by the row that
is most like what is left of p, K times (orthogonal matching pursuit, Pati et al. 1993). A prompt of keys and
values has no such rows: it is carried only where both bases have the same axes and tables that agree (one is a fine-tuned copy of
the other, all its weights or with a LoRA merged), and then as it is, as are vectors.

Source of the idea: Su et al. 2022, section 4, https://arxiv.org/abs/2111.06719, who train a projector between models instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.base import Base
from epigraph.errors import Unsupported
from epigraph.prompts import Embedded, Form

MOST_ROWS, SHARE_OF_HIDDEN = 64, 0.5  # rows that a vector is made of: no more than half of its numbers
RIDGE = 1e-6  # in units of the rows' mean squared length
SAME_TABLE = 0.9  # mean cosine of the rows from which two bases count as copies
TRIED = 512
AXES = {"hidden": "hidden size", "layers": "layers", "heads": "key/value heads", "head_size": "head size"}
SPACES = ("Ġ", "▁")  # how byte-level and sentence-piece tokenizers write a space
ROWS_AT_ONCE = 8192


@dataclass(frozen=True, kw_only=True)
class Carried:
    """The forms on the new base, how that was done, and which share of the vectors' squared length was kept (1: all)."""

    forms: Sequence[Form]
    how: str
    kept: float


def carry(old: Base, forms: Sequence[Form], new: Base) -> Carried | None:
    """The forms of a prompt on another base; None where keys and values cannot be carried.

    Raises Unsupported where vectors would have to go through a vocabulary of which both bases share nothing.
    """
    if not difference(old, new):
        return Carried(forms=list(forms), how="as it is: both bases have the same axes, words and table", kept=1.0)
    if not all(isinstance(form, Embedded) for form in forms):
        return None
    theirs, ours = shared_tokens(old, new)
    if not theirs:
        raise Unsupported(
            f"bases {old.name} and {new.name} have no token in common, so no vector can be carried from one to the other.",
            "Start from a text instead: --start text",
        )
    rows, targets = _rows(old, theirs), _rows(new, ours)
    found = [
        _carried(form.vectors, rows, targets, new.table_rms / old.table_rms) for form in forms if isinstance(form, Embedded)
    ]
    kept = sum(share for _, share in found) / len(found)
    how = f"as sparse sums of {len(theirs):,} rows that both vocabularies have; they hold {kept:.0%} of the vectors"
    return Carried(forms=[Embedded(vectors) for vectors, _ in found], how=how, kept=kept)


def difference(old: Base, new: Base) -> str:
    """In words, what keeps one base from being a fine-tuned copy of the other; "" where nothing does."""
    if not same_axes(old, new):
        differ = [name for name in AXES if getattr(old, name) != getattr(new, name)]
        said = ", ".join(f"{AXES[name]} {getattr(old, name)} and {getattr(new, name)}" for name in differ)
        return f"{old.name} and {new.name} have other axes: {said}"
    if not same_words(old, new):
        return f"{old.name} and {new.name} have other vocabularies"
    if not tables_agree(old, new):
        return f"the embedding tables of {old.name} and {new.name} do not agree"
    return ""


def same_axes(old: Base, new: Base) -> bool:
    """Whether the forms of one have the shapes that the other takes."""
    return all(getattr(old, name) == getattr(new, name) for name in AXES)


def same_words(old: Base, new: Base) -> bool:
    """Whether both have the same tokens under the same numbers."""
    return bool(old.tokenizer.get_vocab() == new.tokenizer.get_vocab())


def tables_agree(old: Base, new: Base) -> bool:
    """Whether the rows of some tokens point the same way in both embedding tables."""
    count = min(old.embedding.weight.shape[0], new.embedding.weight.shape[0])
    some = torch.arange(0, count, max(1, count // TRIED))
    alike = torch.cosine_similarity(old.embed(some).float().cpu(), new.embed(some).float().cpu(), dim=-1)
    return float(alike.mean()) >= SAME_TABLE


def shared_tokens(old: Base, new: Base) -> tuple[list[int], list[int]]:
    """The numbers of the tokens that both have, in the old base and in the new one; special tokens are left out."""
    theirs, ours = _strings(old), _strings(new)
    both = [text for text in theirs if text in ours]
    return [theirs[text] for text in both], [ours[text] for text in both]


def _strings(base: Base) -> Mapping[str, int]:
    rows = base.embedding.weight.shape[0]
    found: dict[str, int] = {}
    for token, number in sorted(base.tokenizer.get_vocab().items(), key=lambda item: item[1]):
        text = token
        for sign in SPACES:
            text = text.replace(sign, " ")
        if number not in base.special and number < rows:
            found.setdefault(text, number)
    return found


def _rows(base: Base, ids: Sequence[int]) -> Float[Tensor, "S H"]:
    parts = torch.split(torch.tensor(list(ids)), ROWS_AT_ONCE)
    return torch.cat([base.embed(part).float().cpu() for part in parts])


def _carried(
    vectors: Float[Tensor, "P H"], rows: Float[Tensor, "S H"], targets: Float[Tensor, "S X"], scale: float
) -> tuple[Float[Tensor, "P X"], float]:
    """The vectors in the new table's terms, and the share of their squared length that the old table's rows hold."""
    vectors = vectors.detach().float().cpu()
    unit = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    steps = max(1, min(MOST_ROWS, int(SHARE_OF_HIDDEN * rows.shape[1]), len(rows)))
    chosen = torch.zeros(len(vectors), 0, dtype=torch.long)
    left, weights = vectors, vectors[:, :0]
    for _ in range(steps):
        alike = (left @ unit.T).abs().scatter(1, chosen, -1.0)
        chosen = torch.cat([chosen, alike.argmax(1, keepdim=True)], 1)
        weights = _weights(vectors, rows[chosen])
        left = vectors - torch.einsum("pk,pkh->ph", weights, rows[chosen])
    lost = float(left.pow(2).sum() / vectors.pow(2).sum().clamp(min=1e-12))
    return scale * torch.einsum("pk,pkx->px", weights, targets[chosen]), max(0.0, 1 - lost)


def _weights(vectors: Float[Tensor, "P H"], basis: Float[Tensor, "P K H"]) -> Float[Tensor, "P K"]:
    """Ridge regression of every vector on its rows."""
    products = basis @ basis.transpose(1, 2)
    ridge = RIDGE * products.diagonal(dim1=1, dim2=2).mean(1)
    products = products + ridge[:, None, None] * torch.eye(basis.shape[1])
    found: Tensor = torch.linalg.solve(products, basis @ vectors[:, :, None])[:, :, 0]
    return found
