"""A toy prompt with its rows, for the tests of this package."""

import random
from collections.abc import Sequence
from functools import lru_cache

import torch

from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.explaining.case import Case, ExplainConfig
from epigraph.library import Card, StoredPrompt
from epigraph.model import PromptModel, facts
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task


@lru_cache(maxsize=1)
def toy_engine() -> Engine:
    return Engine(toy_base(), budget=10**9)


def toy_rows(count: int = 24, seed: int = 0) -> list[Row]:
    draw = random.Random(seed)
    words = ["red", "green", "blue", "zebra", "tree", "don't", "is", "fine"]
    return [
        Row(fields={"text": " ".join(draw.choices(words, k=4))}, target=draw.choice(["good", "bad"])) for _ in range(count)
    ]


def toy_forms(kind: str, length: int = 4, seed: int = 0) -> list[Form]:
    base, draw = toy_engine().base, torch.Generator().manual_seed(seed)
    if kind == "token":
        return [Embedded(torch.randn(length, base.hidden, generator=draw) * base.table_rms)]
    shape = (base.layers, base.heads, length, base.head_size)
    return [KeyValue(torch.randn(shape, generator=draw), torch.randn(shape, generator=draw))]


def toy_model(kind: str = "kv", forms: Sequence[Form] | None = None, name: str = "moods") -> PromptModel:
    task = Task.from_rows(["a b", "c d"] * 4, ["good", "bad"] * 4, template="{text}{prompt}\nLabel:")
    engine = toy_engine()
    card = Card(name=name, kind=kind, place="last", trained_parameters=8, base=facts(engine.base), task=task.to_dict())
    return PromptModel(StoredPrompt(card=card, forms=list(forms or toy_forms(kind))), engine.base, engine=engine)


def toy_case(
    kind: str = "kv", forms: Sequence[Form] | None = None, rows: Sequence[Row] | None = None, **config: int
) -> Case:
    return Case(
        model=toy_model(kind, forms), rows=list(toy_rows() if rows is None else rows), config=ExplainConfig(**config)
    )
