"""A toy base's facts, toy forms and a toy card for the tests of this package."""

from typing import Any

import torch

from epigraph.library.card import BaseFacts, Card, Lineage
from epigraph.prompts.form import Embedded, KeyValue

TOY = BaseFacts(name="toy", fingerprint="1a2b" * 16, hidden=16, layers=2, kv_heads=2, head_size=4)
OTHER = BaseFacts(name="other", fingerprint="9f" * 32, hidden=32, layers=2, kv_heads=2, head_size=4)


def toy_embedded(length: int = 3, seed: int = 0) -> Embedded:
    return Embedded(torch.randn(length, 16, generator=torch.Generator().manual_seed(seed)))


def toy_kv(length: int = 3, seed: int = 0) -> KeyValue:
    random = torch.Generator().manual_seed(seed)
    return KeyValue(torch.randn(2, 2, length, 4, generator=random), torch.randn(2, 2, length, 4, generator=random))


def toy_card(**changes: Any) -> Card:
    facts: dict[str, Any] = {
        "name": "routing",
        "kind": "token",
        "place": "last",
        "trained_parameters": 48,
        "base": TOY,
        "task": {"kind": "classification", "labels": {"bill": "billing"}, "instruction": None},
        "scores": {"accuracy": {"value": 0.91, "low": 0.88, "high": 0.93}, "rows": 500, "split": "test", "majority": 0.51},
        "hard_prompt": {"accuracy": {"value": 0.6, "low": 0.5, "high": 0.7}, "rows": 500},
        "cost": {"seconds": 31.25, "trained_parameters": 48, "joules": None},
        "settings": {"lr": 1e-2, "kind": "token", "schedule": [1, 2.5]},
        "reasons": {"lr": "best of three"},
        "lineage": Lineage(parents=("routing@1",), how="tuned"),
    }
    return Card(**{**facts, **changes})
