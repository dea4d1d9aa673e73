import random

import pytest
import torch

from epigraph.methods.rivals.toys_test import answer_loss, answer_task, label_task, loss, make, stock, toy_engine
from epigraph.tasks.row import Row
from epigraph.tuning.order import epoch_batches


def test_its_loss_is_over_the_whole_vocabulary_at_every_token_of_the_label() -> None:
    task = label_task(3)
    rival = make("peft-documented", toy_engine(), task)
    losses = []
    for row in task.train.rows:
        text = rival.base.tokenize(f"{row.fields['text']}\nLabel:")
        words = rival.base.tokenize(f" {row.target}")
        logits = stock(rival)(input_ids=torch.tensor([text + words])).logits[0, -len(words) - 1 : -1]
        losses += [-torch.log_softmax(logits, -1)[at, token].detach() for at, token in enumerate(words)]
    assert float(loss(rival).detach()) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)


def test_answers_end_with_the_end_token() -> None:
    task = answer_task()
    rival = make("peft-documented", toy_engine(), task)
    assert float(loss(rival).detach()) == pytest.approx(answer_loss(rival, task.train.rows), rel=1e-4)
    assert all(said[-1] == rival.base.end for _, said in rival.objective.examples)


def test_its_batches_are_not_sorted_by_length() -> None:
    task = label_task(12)
    lengths = make("peft-documented", toy_engine(), task).objective.lengths
    shuffled = list(range(12))
    random.Random("0/0").shuffle(shuffled)
    batches = epoch_batches(lengths, batch=4, seed=0, epoch=0)
    assert sorted(batches) == sorted(shuffled[i : i + 4] for i in range(0, 12, 4))


def test_its_head_is_counted_at_every_position() -> None:
    task = label_task()
    lean, documented = make("peft-prompt", toy_engine(), task), make("peft-documented", toy_engine(), task)
    loss(lean), loss(documented)
    positions = len(task.train.rows) * (max(lean.objective.lengths) + 20)
    assert documented.flops - lean.flops > 2 * 2 * positions * 16 * 260 * 0.9


def test_a_label_that_was_never_trained_may_be_validated() -> None:
    task = label_task()
    rival = make("peft-documented", toy_engine(), task)
    kind = type(rival)
    other = [Row(fields={"text": "a"}, target="unheard of")]
    assert kind(toy_engine(), task, task.train.rows, other).objective.watch([]).score == 0.0
