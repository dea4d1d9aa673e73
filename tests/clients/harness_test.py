"""lm-evaluation-harness over `local-completions`: a log-likelihood and a generation task, defined here over JSON files.

Its log likelihoods equal those computed in this process, under the prompt, to 1e-4, and differ from the bare base's.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from epigraph.base import load_base
from epigraph.engine import Engine, generate
from epigraph.engine.plain import plain_states
from epigraph.library import Library
from epigraph.model import load
from epigraph.prompts import Embedded
from epigraph.tasks.encode import Encoded

ROWS = [{"question": f"what is {i}", "good": f" {i}", "bad": " no"} for i in range(4)]
CHOICE = """
task: local_choice
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{[good, bad]}}"
target_delimiter: ""
doc_to_target: 0
metric_list: [{metric: acc}]
"""
WRITING = """
task: local_writing
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{good}}"
generation_kwargs: {until: ["QQQ"], max_gen_toks: 6, temperature: 0, do_sample: false}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    rows = tmp_path / "rows.json"
    rows.write_text("\n".join(json.dumps(row) for row in ROWS))
    for name, text in (("choice", CHOICE), ("writing", WRITING)):
        (tmp_path / f"{name}.yaml").write_text(text.replace("FILE", str(rows)))
    return tmp_path


def evaluate(served: Any, tasks: Path, task: str, model: str, *, ids: bool = True) -> list[Any]:
    """What the harness got, a list of responses a row. It sends token ``ids`` unless it is told to send text."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    arguments = {
        "model": model,
        "base_url": f"{served.url}/completions",
        "tokenizer": str(served.base),
        "num_concurrent": 1,
        "max_length": 512,
        "tokenized_requests": ids,
    }
    found = lm_eval.simple_evaluate(
        model="local-completions",
        model_args=arguments,
        tasks=[task],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        batch_size=2,
        bootstrap_iters=0,
        log_samples=True,
    )
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    return [sample["resps"] for sample in samples]


def log_likelihood(served: Any, prompt: str | None, context: str, answer: str) -> float:
    """The same in this process, by the stock forward."""
    base = load_base(served.base, dtype="float32")
    forms = Library(served.library).get(prompt).forms if prompt else []
    before, after = base.tokenize(context), base.tokenize(answer)
    ids = (*before, *after)
    hidden = plain_states(base, Encoded(((), ids) if forms else (ids,)), forms)
    logs = torch.log_softmax(base.logits(hidden), -1)
    return float(sum(logs[len(before) - 1 + i, token] for i, token in enumerate(after)))


def test_log_likelihoods_are_those_under_the_prompt(served: Any, tasks: Path) -> None:
    under = evaluate(served, tasks, "local_choice", "first")
    bare = evaluate(served, tasks, "local_choice", "base")
    for row, with_prompt, without in zip(ROWS, under, bare, strict=True):
        for answer, one, other in zip((row["good"], row["bad"]), with_prompt, without, strict=True):
            value, bare_value = float(one[0][0]), float(other[0][0])
            assert value == pytest.approx(log_likelihood(served, "first", row["question"], answer), abs=1e-4)
            assert bare_value == pytest.approx(log_likelihood(served, None, row["question"], answer), abs=1e-4)
            assert abs(value - bare_value) > 1e-3


def test_generations_from_token_ids_go_on_from_the_prompt_and_nothing_else(served: Any, tasks: Path) -> None:
    found, bare = (evaluate(served, tasks, "local_writing", model) for model in ("first", "base"))
    engine = Engine(load_base(served.base, dtype="float32"), keep=False)
    nothing = [Embedded(torch.zeros(0, engine.base.hidden))]
    for responses, forms in ((found, Library(served.library).get("first").forms), (bare, nothing)):
        rows = [Encoded(((), tuple(engine.base.tokenize(row["question"])))) for row in ROWS]
        said = [engine.base.detokenize(ids) for ids in generate(engine, rows, forms, 6)]
        assert [one[0][0] for one in responses] == said
    assert found != bare


def test_generations_from_texts_go_through_the_tasks_template(served: Any, tasks: Path) -> None:
    found = evaluate(served, tasks, "local_writing", "first", ids=False)
    model = load(Library(served.library).folder("first"), load_base(served.base, dtype="float32"))
    model.method.output_tokens = 6
    meant = [one.output for one in model.predict([row["question"] for row in ROWS])]
    assert [one[0][0] for one in found] == meant
