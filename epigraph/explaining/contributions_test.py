"""Contributions of text and prompt add up, each along its path; a base in bf16 is looked into in fp32."""

from dataclasses import replace

import pytest
import torch

from epigraph.base.precision import Precision
from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.explaining import contributions as module
from epigraph.explaining.contributions import in_fp32, integrated
from epigraph.explaining.margin import Margin
from epigraph.explaining.toys_test import toy_case, toy_forms
from epigraph.prompts import KeyValue
from epigraph.tasks.row import Row

ROW = Row(fields={"text": "red tree"})


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_text_and_prompt_each_add_up_along_their_path(kind: str) -> None:
    margin = Margin(toy_case(kind), ROW)
    found = integrated(margin)
    prompt = torch.tensor([of_prompt for _, of_prompt in margin.parts()])
    assert float(found.text.parts[~prompt].sum()) == pytest.approx(found.text.total, abs=0.1 * max(1, abs(found.text.total)))
    assert float(found.prompt.parts[prompt].sum()) == pytest.approx(
        found.prompt.total, abs=0.1 * max(1, abs(found.prompt.total))
    )
    assert not found.text.parts[prompt].any()
    said = torch.cat([margin.said[: margin.end], torch.zeros(len(prompt) - margin.end, dtype=torch.bool)])
    assert not found.text.parts[~said].any()
    assert not found.prompt.parts[~prompt].any()
    assert found.text.parts.any()
    assert found.prompt.parts.any()
    assert found.gap < 0.1


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_what_the_template_says_is_told_from_what_the_row_says(kind: str) -> None:
    """The colon behind the prompt, where the answer is read, was moved as well and got the largest part of all."""
    margin = Margin(toy_case(kind), ROW)
    names = [name for name, _ in margin.parts()]
    assert "".join(names[i] for i in margin.said.nonzero().flatten().tolist()) == "red tree"
    assert not Margin(toy_case(kind), Row(fields={"text": ""})).said.any()


def test_a_prompt_brings_the_margin_less_that_of_its_keys_and_values_at_zero() -> None:
    case = toy_case("kv")
    (form,) = toy_forms("kv")
    assert isinstance(form, KeyValue)
    margin = Margin(case, ROW)
    nothing = margin.at([KeyValue(form.keys * 0, form.values * 0)], module.Look())
    assert integrated(margin).prompt.total == pytest.approx(margin.whole - float(nothing[0]), abs=1e-5)


def test_a_base_in_bf16_is_looked_into_in_fp32_and_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16 the sums missed up to six times what they explain: gradients were lost in rounding."""
    case, base = toy_case("kv"), toy_base()
    low = replace(base, model=base.model.bfloat16(), precision=Precision(torch.bfloat16, "a test"))
    rounded = replace(case, model=case.model.on(Engine(low, keep=False)))
    finer = in_fp32(rounded)
    assert finer.engine.base.dtype == torch.float32
    assert low.embedding.weight.dtype == torch.bfloat16
    assert finer.engine.base.embedding.weight.dtype == torch.float32
    assert Margin(finer, ROW).whole == pytest.approx(Margin(rounded, ROW).whole, abs=0.2)
    assert integrated(Margin(finer, ROW)).gap < 0.1
    assert in_fp32(finer) is finer
    monkeypatch.setattr(module, "free_bytes", lambda _device: 1000)
    assert in_fp32(rounded) is rounded
