from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.errors import BaseMismatch, DataError, NotFound
from epigraph.library import Card, StoredPrompt, write_prompt
from epigraph.model import PromptModel, facts, load
from epigraph.prompts import Embedded
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

BASE = toy_base()
TASK = Task.from_rows([f"text {i}" for i in range(8)], ["good", "bad"] * 4, template="{text}{prompt}\nLabel:")


def stored(task: Task = TASK) -> StoredPrompt:
    torch.manual_seed(0)
    form = Embedded(torch.randn(3, BASE.hidden) * BASE.table_rms)
    card = Card(
        name="moods",
        kind="token",
        place="last",
        trained_parameters=48,
        base=facts(BASE),
        task=task.to_dict(),
        form="Embedded",
        lengths=(3,),
        settings={"output_tokens": 5},
    )
    return StoredPrompt(card=card, forms=[form])


def test_a_text_a_mapping_and_a_row_are_answered_alike() -> None:
    model = PromptModel(stored(), BASE)
    found = model.predict(["fine", {"text": "fine", "more": "ignored"}, Row(fields={"text": "fine"})])
    assert found[0] == found[1] == found[2]
    assert set(found[0].probabilities or {}) == {"good", "bad"}
    assert found[0].label == max(found[0].probabilities or {}, key=lambda label: (found[0].probabilities or {})[label])


def test_a_stream_answers_as_the_rows_arrive_and_in_order() -> None:
    model = PromptModel(stored(), BASE)
    texts = [f"text {'x' * (i % 5)} {i}" for i in range(10)]
    asked: list[str] = []

    def arriving() -> object:
        for text in texts:
            asked.append(text)
            yield text

    stream = model.stream(arriving(), together=3)
    assert next(stream).fields == {"text": texts[0]}
    assert len(asked) == 3
    rest = list(stream)
    assert [p.fields["text"] for p in rest] == texts[1:]
    alone = [model.predict([text])[0] for text in texts[1:]]
    for one, together in zip(alone, rest, strict=True):
        np.testing.assert_allclose(
            list((one.probabilities or {}).values()), list((together.probabilities or {}).values()), atol=1e-5
        )


def test_a_model_with_an_engine_of_its_own_keeps_no_texts() -> None:
    """A server that answers for days would otherwise hold the states of every text it ever saw."""
    model = PromptModel(stored(), BASE)
    model.predict([f"text {i}" for i in range(5)])
    assert model.method.engine.store.bytes_in_memory == 0
    shared = Engine(BASE)
    sharing = PromptModel(stored(), BASE, engine=shared)
    sharing.predict(["one text", "two texts"])
    rows = sharing.method.encode([Row(fields={"text": text}) for text in ("one text", "a text that nobody gave")])
    assert shared.missing(rows) == shared.missing(rows[1:]) != []


def test_it_abstains_below_the_confidence_that_is_asked() -> None:
    model = PromptModel(stored(), BASE)
    (sure,) = model.predict(["fine"])
    best = max((sure.probabilities or {}).values())
    assert model.predict(["fine"], min_confidence=best - 1e-3) == [sure]
    (unsure,) = model.predict(["fine"], min_confidence=best + 1e-3)
    assert (unsure.label, unsure.abstained) == (None, True)
    assert unsure.json == {"fields": {"text": "fine"}, "label": None, "probabilities": sure.probabilities, "abstained": True}
    assert "abstained" not in sure.json


def test_generated_outputs_end_where_the_card_says() -> None:
    task = Task.from_rows(["a", "b"], ["one two three four", "five six seven eight"], kind="generation")
    model = PromptModel(stored(task), BASE)
    (found,) = model.predict(["a"])
    assert found.json == {"fields": {"text": "a"}, "output": found.output}
    assert found.output is not None
    assert model.method.output_tokens == 5


def test_rows_that_lack_a_field_are_named() -> None:
    two = Task.from_rows([{"premise": "a", "hypothesis": "b"}] * 4, ["x", "y"] * 2)
    model = PromptModel(stored(two), BASE)
    with pytest.raises(DataError, match=r"one text was given, but .* has the fields premise, hypothesis"):
        model.predict(["a"])
    with pytest.raises(DataError, match=r"the row has no field hypothesis\. It has: premise"):
        model.predict([{"premise": "a"}])


def test_it_is_loaded_on_its_own_base_only(tmp_path: Path) -> None:
    prompt = stored()
    write_prompt(tmp_path / "p", prompt.forms, prompt.card)
    assert load(tmp_path / "p", BASE).predict(["fine"]) == PromptModel(prompt, BASE).predict(["fine"])
    with pytest.raises(
        BaseMismatch, match=r"'moods' was trained on base toy-llama .*; this base is toy-gpt2 .* Tune it again"
    ):
        load(tmp_path / "p", toy_base("gpt2"))
    with pytest.raises(BaseMismatch, match="trained on base"):
        PromptModel(replace(prompt, card=replace(prompt.card, base=facts(toy_base(seed=1)))), BASE)
    with pytest.raises(NotFound, match="there is no folder"):
        load(tmp_path / "none", BASE)
