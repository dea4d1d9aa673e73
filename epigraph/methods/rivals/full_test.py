import torch

from epigraph.base.load import wrap_model
from epigraph.base.toy import toy_base, toy_tokenizer
from epigraph.engine import Engine
from epigraph.methods.rivals.toys_test import label_task, loss, make, toy_engine, train


def test_at_the_start_it_is_the_base() -> None:
    engine, task = toy_engine(), label_task()
    full, lora = make("full", engine, task), make("lora", engine, task)
    torch.testing.assert_close(loss(full), loss(lora))
    assert full.trained_parameters == sum(p.numel() for p in engine.base.model.parameters())


def test_tied_embeddings_have_the_gradient_of_both_their_ends() -> None:
    """As input of the text's tokens, and as head of the labels' tokens, which the text does not have."""
    rival = make("full", toy_engine("gpt2"), label_task())
    table = rival.base.embedding.weight
    assert table is rival.base.head.weight
    loss(rival).backward()  # type: ignore[no-untyped-call]
    read = {token for text in rival.objective.texts for token in text}
    said = set(rival.solver.tree.trie.tokens)
    moved = set(table.grad.abs().sum(1).nonzero().flatten().tolist())
    assert said - read
    assert moved == read | said


def test_an_own_head_has_its_gradient_at_the_labels_tokens_only() -> None:
    rival = make("full", toy_engine("llama"), label_task())
    loss(rival).backward()  # type: ignore[no-untyped-call]
    moved = rival.base.head.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert moved == sorted(rival.solver.tree.trie.tokens)


def test_the_head_that_scores_is_the_one_that_was_trained() -> None:
    """The label rows of the head are copied by a tree; a tree from before the training would score with the old ones."""
    task = label_task()
    rival = make("full", toy_engine("llama"), task)
    before = rival.probabilities(task.train.rows)
    with torch.no_grad():
        rival.base.head.weight.mul_(-1)
    assert abs(rival.probabilities(task.train.rows) - before).max() > 1e-3


def test_a_base_in_half_precision_is_trained_in_fp32_and_kept_in_half() -> None:
    toy = toy_base()
    engine = Engine(wrap_model(toy.model.to(torch.bfloat16), toy_tokenizer()))
    rival = make("full", engine, label_task())
    assert {p.dtype for p in rival.module.parameters()} == {torch.float32}
    assert rival.kept_bytes == 2 * rival.trained_parameters
    before = float(loss(rival).detach())
    train(rival, rate=0.01, epochs=2)
    assert float(loss(rival).detach()) < before
    assert next(engine.base.model.parameters()).dtype == torch.bfloat16
