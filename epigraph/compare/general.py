"""Forgetting: the base's loss on a general text before and after a method changed it.

    loss = mean over tokens of −log p(token | tokens before), in nats; windows of at most 512 tokens

A method that leaves the base as it is forgets nothing by construction; one that trains weights may. The text
(``general.txt``) was written for this purpose and is about nothing in particular.
"""

from functools import cache
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from epigraph.base import Base
from epigraph.engine.plain import stock_attention
from epigraph.methods.rivals.stock import autocast

WINDOW, MOST_WINDOWS = 512, 8


@cache
def general_text() -> str:
    """The text that forgetting is measured on."""
    return (Path(__file__).parent / "general.txt").read_text(encoding="utf-8")


@torch.no_grad()
def loss_on(base: Base, text: str) -> float:
    """The base's mean loss a token, by the stock forward."""
    ids, width = base.tokenize(text), min(WINDOW, base.context)
    windows = [ids[i : i + width] for i in range(0, len(ids), width)][:MOST_WINDOWS]
    total, tokens = 0.0, 0
    with stock_attention(base), autocast(base):
        for window in windows:
            if len(window) < 2:
                continue
            given = torch.tensor([window], device=base.device)
            logits = base.model(input_ids=given, use_cache=False).logits[0, :-1].float()
            total += float(cross_entropy(logits, given[0, 1:], reduction="sum"))
            tokens += len(window) - 1
    return total / max(1, tokens)
