"""What the rivals' tests share: a small task, the loop with our results as its own, and the slow stock forward."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.methods.rivals import RIVALS
from epigraph.methods.rivals.rival import Rival
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.loop import Loop, Settings

LABELS = ("ab", "abc", "xyz")  # one begins another


@cache
def toy_engine(architecture: str = "llama") -> Engine:
    """One engine an architecture for all tests; rivals never change it."""
    return Engine(toy_base(architecture))


def make(name: str, engine: Engine, task: Task, **settings: Any) -> Rival[Any]:
    """A rival by its name, validated on its training rows."""
    kind = RIVALS[name]
    return kind(engine, task, task.train.rows, task.train.rows, kind.settings_type(**settings))


def label_task(rows: int = 6) -> Task:
    """Texts of different lengths, labels of several tokens."""
    texts = [f"text {'abc'[i % 3] * (1 + i)}" for i in range(rows)]
    return Task.from_rows(texts, [LABELS[i % 3] for i in range(rows)])


def answer_task() -> Task:
    """Outputs of different lengths."""
    return Task.from_rows(["one", "two three", "4"], ["x", "a longer one", "yes"], kind="generation")


def train(rival: Rival[Any], *, rate: float, epochs: int = 4) -> Loop:
    settings = Settings(epochs=epochs, batch=4, rate=rate, warmup=0.1, clip=1.0, patience=epochs, seed=0)
    loop = Loop(rival.module, rival.objective, settings, lambda _moment: None)
    loop.run()
    return loop


def loss(rival: Rival[Any]) -> Tensor:
    """The loss of all training rows."""
    (found,) = rival.objective.losses([list(range(len(rival.objective.lengths)))], [[]])
    assert isinstance(found, Tensor)
    return found


def stock(rival: Rival[Any]) -> Any:
    """The rival's model as its own library calls it: PEFT's wrapper, or the tuned model."""
    return getattr(rival, "model", rival.base.model)


@torch.no_grad()
def label_losses(rival: Rival[Any], rows: Sequence[Row]) -> list[float]:
    """−log p(label) of every row alone, from the stock model's logits over V."""
    return [_label_loss(rival, row) for row in rows]


def _label_loss(rival: Rival[Any], row: Row) -> float:
    trie = rival.solver.tree.trie
    label = trie.index(row.target or "")
    (encoded,) = rival.solver.encode([row])
    ids = [*encoded.segments[-1], *trie.spoken(label)]
    logits = stock(rival)(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -len(ids) :].float()
    total = 0.0
    for node, token in trie.decisions(label):
        children = list(trie.nodes[node].children)
        scores = torch.log_softmax(logits[len(encoded.segments[-1]) - 1 + trie.nodes[node].depth, children], -1)
        total -= float(scores[children.index(token)])
    return total


@torch.no_grad()
def answer_loss(rival: Rival[Any], rows: Sequence[Row]) -> float:
    """The mean of −log p over the answers' tokens, each row alone."""
    losses: list[Tensor] = []
    for row in rival.solver.encode(rows, answers=True):
        ids = [*row.segments[-1], *row.answer]
        logits = stock(rival)(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -len(ids) :].float()
        scores = torch.log_softmax(logits, -1)[len(row.segments[-1]) - 1 : -1]
        losses += [-scores[at, token] for at, token in enumerate(row.answer)]
    return float(torch.stack(losses).mean())


@torch.no_grad()
def stock_probabilities(rival: Rival[Any], rows: Sequence[Row]) -> Tensor:
    """The probability of every label for every row, a row and a label at a time."""
    losses = [[_label_loss(rival, Row(fields=row.fields, target=label)) for label in rival.task.labels] for row in rows]
    return torch.exp(-torch.tensor(losses))


@torch.no_grad()
def stock_output(rival: Rival[Any], row: Row, limit: int) -> str:
    """The likeliest tokens one after another, everything computed anew each time."""
    text = list(rival.solver.encode([row])[0].segments[-1])
    said: list[int] = []
    for _ in range(limit):
        token = int(stock(rival)(input_ids=torch.tensor([text + said]), use_cache=False).logits[0, -1].argmax())
        if token == rival.base.end:
            break
        said.append(token)
    return rival.base.detokenize(said).strip()
