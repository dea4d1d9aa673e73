"""Attention of passes without a gradient by a fused kernel, which never writes scores down; blocks are joined by their sums.

    out = Σ_b e^(l_b − l) out_b        l_b = log Σ_k e^(q · k) over the keys of block b,        l = log Σ_b e^(l_b)

Exact: the softmax over all keys is that of each block, weighed by the block's share of the sum. The rows of all examples that share
a block are one product with it. Where keys are few, writing the scores down is as fast, and done instead. Source of joining
blocks of which one is shared: Juravsky et al. 2024 (Hydragen), section 3, https://arxiv.org/abs/2402.05099; of the kernel: Dao et
al. 2022, https://arxiv.org/abs/2205.14135. On a CPU only: the kernels of other devices give no sums that can be joined.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

FEWEST_KEYS = 48  # from which on the kernel is faster
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_KERNEL: Callable[..., Any] | None = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def serves(query: Tensor, key: Tensor, value: Tensor, shared: tuple[Tensor, Tensor] | None) -> bool:
    """Whether the kernel takes this pass, and pays: no gradient is wanted, it is a CPU's, and keys are many."""
    keys = key.shape[2] + (shared[0].shape[2] if shared else 0)
    tensors = (query, key, value, *(shared or ()))
    return (
        _KERNEL is not None
        and keys >= FEWEST_KEYS
        and query.device.type == "cpu"
        and not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
        and all(t.dtype == query.dtype and t.shape[-1] == query.shape[-1] for t in tensors)
        and query.dtype in DTYPES
    )


def attend(
    rows: Float[Tensor, "B A R D"],
    own: tuple[Float[Tensor, "B A Q D"], Float[Tensor, "B A Q D"]],
    bias: Float[Tensor, "#B 1 R Q"],
    shared: tuple[Float[Tensor, "S A P D"], Float[Tensor, "S A P D"]] | None,
) -> Float[Tensor, "B A R D"]:
    """The outputs of scaled queries over their own keys and, where there is one, a block that all of a group see as a whole."""
    out, total = _block(rows, *own, bias)
    if shared is None:
        return out
    B, S = len(rows), len(shared[0])
    common, sums = _block(grouped(rows, S), *shared, None)
    share = torch.sigmoid(apart(sums[..., None], B) - total[..., None]).to(out.dtype)
    return torch.lerp(out, apart(common, B), share)


def grouped(rows: Float[Tensor, "B A R X"], groups: int) -> Float[Tensor, "S A BR X"]:
    """The rows of the examples of each of S groups, one below another."""
    B, A, R, X = rows.shape
    return rows.view(groups, B // groups, A, R, X).transpose(1, 2).reshape(groups, A, B // groups * R, X)


def apart(rows: Float[Tensor, "S A BR X"], examples: int) -> Float[Tensor, "B A R X"]:
    """Grouped rows as those of B examples again."""
    S, A, both, X = rows.shape
    each = examples // S
    return rows.reshape(S, A, each, both // each, X).transpose(1, 2).reshape(examples, A, both // each, X)


def _block(rows: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The outputs of one block by itself, [N, A, R, D], and the logarithms of its sums, [N, A, R]."""
    assert _KERNEL is not None
    out, sums = _KERNEL(rows, keys, values, 0.0, False, attn_mask=bias, scale=1.0)
    return out, sums
