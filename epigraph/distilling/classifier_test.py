"""Tiny classifiers as teachers: what they say, how their labels are matched, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from epigraph.base import load_base
from epigraph.base.classifier import is_classifier, load_classifier
from epigraph.base.toy import toy_base, toy_tokenizer
from epigraph.distilling.classifier import ClassifierTeacher, classifier_teacher
from epigraph.distilling.taught import probabilities
from epigraph.distilling.teacher import Teacher
from epigraph.errors import TaskError, Unsupported
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

TASK = Task.from_rows(["aa", "bb"] * 4, ["good", "bad"] * 4, words={"bad": "negative", "good": "positive"})
ROWS = [Row(fields={"text": text}) for text in ("a", "quite a long text", "bb", "x" * 500)]


def save(folder: Path, *labels: str, architecture: str = "Bert", **more: Any) -> Path:
    """A random classifier of these labels, as save_pretrained writes it."""
    import transformers as t

    sizes = {"vocab_size": 260, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    config = getattr(t, f"{architecture}Config")(**sizes, **named, max_position_embeddings=64, pad_token_id=256, **more)
    torch.manual_seed(0)
    model = getattr(t, f"{architecture}ForSequenceClassification")(config)
    for parameter in model.parameters():  # far from uniform, so that a wrong order shows
        parameter.data.mul_(5.0)
    model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


def teacher_of(folder: Path, task: Task = TASK) -> ClassifierTeacher:
    return classifier_teacher(load_classifier(folder, dtype="float32"), task)


@pytest.mark.parametrize("architecture", ["Bert", "Llama"])
def test_its_softmax_is_given_in_the_order_of_the_task(tmp_path: Path, architecture: str) -> None:
    """Batched and padded as alone; labels by name whatever their case, or by the words that stand for them."""
    teacher = teacher_of(save(tmp_path / "c", "POSITIVE", "Bad", architecture=architecture))
    assert isinstance(teacher, Teacher)
    found = probabilities(teacher.teach(ROWS))
    model, tokenizer = teacher.classifier.model, teacher.classifier.tokenizer
    for row, one in zip(ROWS, found, strict=True):
        ids = torch.tensor([tokenizer(row.fields["text"])["input_ids"][:64]])
        good, bad = torch.softmax(model(ids).logits[0], -1).tolist()
        assert one.tolist() == pytest.approx([bad, good], abs=1e-4)
    assert list(TASK.labels) == ["bad", "good"]
    assert abs(found[0][0] - found[1][0]) > 1e-3
    assert teacher.tokens(ROWS[:3]) == (1 + 17 + 2) / 3


def test_labels_that_do_not_match_are_refused(tmp_path: Path) -> None:
    numbered = save(tmp_path / "numbered", "LABEL_0", "LABEL_1")
    with pytest.raises(TaskError, match=r"it has no 'bad', 'good'; the task has no 'LABEL_0', 'LABEL_1'.*id2label"):
        teacher_of(numbered)
    with pytest.raises(TaskError, match="the task has no 'neutral'"):
        teacher_of(save(tmp_path / "three", "bad", "neutral", "good"))
    writes = Task.from_rows(["a", "b"], ["x y", "z"], kind="generation")
    with pytest.raises(TaskError, match="is a classifier, but the task is of kind 'generation'"):
        teacher_of(numbered, writes)
    several = save(tmp_path / "several", "bad", "good", problem_type="multi_label_classification")
    with pytest.raises(Unsupported, match="gives several labels at once"):
        teacher_of(several)


def test_two_fields_are_a_pair(tmp_path: Path) -> None:
    fields = [{"a": "one", "b": "two"}, {"a": "three", "b": "four"}]
    task = Task.from_rows(fields, ["good", "bad"], template="{a}{prompt}{b}\nIs:")
    teacher = teacher_of(save(tmp_path / "c", "good", "bad"), task)
    (found,) = probabilities(teacher.teach([Row(fields=fields[0])]))
    read = teacher.classifier.tokenizer("one", "two", return_tensors="pt")
    expected = torch.softmax(teacher.classifier.model(**read).logits[0], -1).tolist()
    assert dict(zip(task.labels, found.tolist(), strict=True)) == pytest.approx(
        dict(zip(("good", "bad"), expected, strict=True)), abs=1e-4
    )


def test_a_head_that_is_not_there_is_not_drawn_at_random(tmp_path: Path) -> None:
    """A folder without its head loaded with a fresh one, and a model that knew nothing taught."""
    folder = save(tmp_path / "c", "good", "bad", architecture="Llama")
    assert is_classifier(folder)
    with pytest.raises(Unsupported, match=r"is not a causal language model as a whole: it has no lm_head\.weight"):
        load_base(folder, dtype="float32")
    toy = toy_base()
    toy.model.model.save_pretrained(tmp_path / "trunk")
    toy.tokenizer.save_pretrained(tmp_path / "trunk")
    assert not is_classifier(tmp_path / "trunk")
    with pytest.raises(Unsupported, match=r"is not a classifier of texts as a whole: it has no score\.weight"):
        load_classifier(tmp_path / "trunk", dtype="float32")


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3"])
def test_a_head_that_is_the_table_is_not_missing(tmp_path: Path, architecture: str) -> None:
    toy = toy_base(architecture)
    toy.model.save_pretrained(tmp_path)
    toy.tokenizer.save_pretrained(tmp_path)
    assert load_base(tmp_path, dtype="float32").hidden == 16
