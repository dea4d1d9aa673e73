"""What this machine can do: its rate of matrix products.

layer rate = Σ 2 · M · K · N / Σ seconds         M: tokens of a pass; over the shapes [N, K] of all layers' weights

The layer rate has each weight at hand in the processor's cache. A pass cannot: it reads all layers' weights from memory, which
is what bounds a pass of few tokens. ``streamed_rate`` is the same sum over the base's own weights in their order.
"""

import statistics
import time
from collections import Counter

import torch
from torch import Tensor, nn

from epigraph.base import Base

REPEATS, WARM = 12, 3


def _product_seconds(tokens: int, shape: tuple[int, int], dtype: torch.dtype) -> list[float]:
    left, right = torch.randn(tokens, shape[1]).to(dtype), torch.randn(shape).to(dtype)
    seconds = []
    for _ in range(WARM + REPEATS):
        started = time.perf_counter()
        nn.functional.linear(left, right)
        seconds.append(time.perf_counter() - started)
    return seconds[WARM:]


def layer_weights(base: Base) -> list[Tensor]:
    """The matrices that every token of a pass is multiplied by, in the order of the layers; no embedding, no head."""
    modules = [module for module in base.trunk.modules() if not isinstance(module, nn.Embedding)]
    return [weight for module in modules for weight in module.parameters(recurse=False) if weight.ndim == 2]


def layer_rate(base: Base, tokens: int) -> float:
    """Floating-point operations a second of products of the layers' shapes with so many tokens; of each shape the median."""
    shapes = Counter((weight.shape[0], weight.shape[1]) for weight in layer_weights(base))
    seconds = sum(n * statistics.median(_product_seconds(tokens, shape, base.dtype)) for shape, n in shapes.items())
    return 2.0 * tokens * sum(n * shape[0] * shape[1] for shape, n in shapes.items()) / seconds


@torch.no_grad()
def streamed_rate(base: Base, tokens: int) -> float:
    """The same over the base's own weights, each multiplied once in the order of the layers."""
    weights = layer_weights(base)
    widths = {weight.shape[1] for weight in weights}
    given = {width: torch.randn(tokens, width, device=base.device).to(base.dtype) for width in widths}
    started = time.perf_counter()
    for weight in weights:
        nn.functional.linear(given[weight.shape[1]], weight)
    seconds = time.perf_counter() - started
    return 2.0 * tokens * sum(weight.numel() for weight in weights) / seconds
