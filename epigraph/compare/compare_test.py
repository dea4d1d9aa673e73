"""A comparison of all methods on a toy base: fair, resumable, and a failing method is a cell that says why."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from epigraph.base import Base
from epigraph.base.toy import toy_base
from epigraph.compare import CompareConfig, Comparison, compare
from epigraph.compare import session as sessions
from epigraph.compare import verdict as verdict_module
from epigraph.compare.asked import METHODS
from epigraph.compare.cells import Cell, CellFolder
from epigraph.compare.disagreement import divided_rows, scores_by_label, shown_methods
from epigraph.compare.general import general_text, loss_on
from epigraph.compare.material import gather
from epigraph.compare.measuring import unread
from epigraph.compare.method import Budget, Job
from epigraph.compare.pace import Pace, duration
from epigraph.compare.report import comparison_json, make_page
from epigraph.compare.roster import make_methods
from epigraph.compare.spent import made
from epigraph.compare.tokens import added_tokens
from epigraph.compare.trained import check_memory
from epigraph.compare.verdict import verdict
from epigraph.engine import Engine
from epigraph.engine.plain import stock_attention
from epigraph.errors import ConfigError, Corrupt, DataError, Unsupported
from epigraph.methods.remembered import identity
from epigraph.methods.solver import PromptedBase
from epigraph.metrics import score_classification
from epigraph.prompts import Embedded, KeyValue
from epigraph.report import to_html, to_markdown
from epigraph.report.numbers import share_text
from epigraph.tasks.row import Row, Split
from epigraph.tasks.task import Task
from epigraph.tasks.template import Template
from epigraph.tuning import finish

FAST = CompareConfig(seeds=2, curve="8", trials=2, epochs=2)


def rows(count: int, seed: int, labels: Sequence[str] = ("animal", "metal")) -> list[Row]:
    draw = random.Random(seed)
    return [
        Row(fields={"text": " ".join("aZ"[i % 2] * draw.randint(1, 6) for _ in range(3))}, target=labels[i % len(labels)])
        for i in range(count)
    ]


def make_task(train: Sequence[Row], test: Sequence[Row]) -> Task:
    made = Task.from_rows([row.fields["text"] for row in train], [row.target for row in train], instruction="Which?")
    return replace(made, train=Split(rows=tuple(train)), test=Split(rows=tuple(test)))


@pytest.fixture(scope="module")
def base() -> Base:
    return toy_base(hidden=32, seed=1, context=1024)


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task(rows(40, 0), rows(24, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def done(base: Base, task: Task, folder: Path) -> Comparison:
    """All methods, two seeds, two points of the curve."""
    return compare(base, task, FAST, folder=folder, hard_prompts=[("mine", "Text: {text}\nKind:")])


def test_every_method_is_a_row_and_the_one_without_a_model_says_so(done: Comparison) -> None:
    status = {result.name: result.status for result in done.results}
    assert status == {
        "hard-prompt:the task's instruction": "done",
        "hard-prompt:mine": "done",
        **{name: "cannot run" if name == "dspy" else "done" for name in METHODS if name != "hard-prompt"},
    }
    assert "no stronger model was named" in next(r.reason for r in done.results if r.name == "dspy")


def test_the_object_has_what_the_contract_names(done: Comparison) -> None:
    said = json.loads(json.dumps(comparison_json(done)))
    assert said["verdict"]
    assert said["rows"] == {"train": 40, "test": 24, "split": "test"}
    for method in said["methods"]:
        assert set(method) >= {"name", "scores", "cost", "settings", "status", "reason"}
        if method["status"] == "done":
            score = method["scores"]["accuracy"]
            assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
            assert method["scores"]["rows"] == 24


def test_costs_are_measured_and_mean_what_they_say(done: Comparison) -> None:
    cost = {result.name: result.cost for result in done.done}
    base_bytes = done.base_bytes
    assert cost["kv"]["kept_bytes"] == 4 * cost["kv"]["kept_parameters"] == 4 * 2 * 2 * 2 * 8 * 8
    assert cost["kv"]["added_tokens"] > 8  # rows as short as these are read twice
    assert cost["full"]["bytes_of_tasks"]["100"] == 100 * cost["full"]["kept_bytes"]
    assert cost["lora"]["bytes_of_tasks"]["100"] == base_bytes + 100 * cost["lora"]["kept_bytes"]
    assert cost["full"]["flops"] > cost["kv"]["flops"] > 0
    assert cost["full"]["flops"] > cost["probe"]["flops"] > 0  # short rows are tried read once and twice
    assert cost["hard-prompt:mine"]["flops"] == 0  # it says itself where it stands: nothing is tried
    assert cost["lora"]["added_tokens"] == 0
    assert cost["few-shot-random"]["added_tokens"] > cost["hard-prompt:the task's instruction"]["added_tokens"] > 0
    for one in cost.values():
        assert one["seconds"] >= 0
        assert one["peak_memory_bytes"] > 0
        assert one["latency_seconds"] > 0
        assert one["rows_a_second"] > 0
        assert one["joules_source"].startswith(("measured", "estimated"))


def test_only_methods_that_change_the_model_forget(done: Comparison) -> None:
    forgetting = {result.name: result.forgetting for result in done.done if result.forgetting}
    assert set(forgetting) == {"lora", "full"}
    assert len({loss["before"] for loss in forgetting.values()}) == 1
    assert all(loss["after"] != loss["before"] for loss in forgetting.values())


def test_more_rows_make_the_curve_and_all_rows_end_it(done: Comparison) -> None:
    curves = {result.name: [point[0] for point in result.curve] for result in done.done}
    assert curves["kv"] == curves["lora"] == curves["few-shot-random"] == [8, 40]
    assert curves["hard-prompt:mine"] == [40]


def test_all_pairs_are_tested_and_corrected(done: Comparison) -> None:
    count = len(done.done)
    assert len(done.pairs) == count * (count - 1) // 2
    for pair in done.pairs:
        assert pair.p >= pair.difference.p
        assert pair.mcnemar is not None
        turned = done.pair(pair.second, pair.first)
        assert turned.difference.value == -pair.difference.value
        assert turned.difference.low <= turned.difference.value <= turned.difference.high


def test_a_second_run_reads_every_finished_cell(
    done: Comparison, base: Base, task: Task, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(sessions, "run_cell", never)
    methods = replace(FAST, methods=",".join(name for name in METHODS if name != "dspy"))
    again = compare(base, task, methods, folder=folder, hard_prompts=[("mine", "Text: {text}\nKind:")])
    assert [c for c in again.cells if c.done] == [c for c in done.cells if c.done]


def test_other_rows_or_settings_are_other_cells(done: Comparison, base: Base, task: Task, folder: Path) -> None:
    before = len(list(folder.rglob("*.json")))
    probe = CompareConfig(methods="probe", seeds=1, curve="none", rows=30)
    compare(base, task, probe, folder=folder)
    compare(base, replace(task, test=Split(rows=task.test.rows[:20])), probe, folder=folder)  # type: ignore[union-attr]
    assert len(list(folder.rglob("*.json"))) == before + 2


def test_the_report_says_verdict_table_pictures_and_disagreements(done: Comparison) -> None:
    page = make_page(done, "epigraph compare train.csv")
    titles = [section.title for section in page.sections]
    assert titles[0] == "What was found"
    assert titles[-1] == "To run it again"
    html, markdown = to_html(page), to_markdown(page)
    assert html.count("<svg") == 2
    for text in (html, markdown):
        assert "full fine-tuning" in text
        assert "epigraph compare train.csv" in text
        assert "at most 8; 500 test rows" in text
        assert "up to 300 rows" in text
    assert not re.search(r"(src|href)=", html)


def test_disagreements_are_rows_on_which_answers_differ(done: Comparison) -> None:
    shown = shown_methods(done)
    assert {r.method.family for r in shown} == {r.method.family for r in done.done}
    for row in divided_rows(done, shown):
        assert len(set(row.said)) > 1
    labels = scores_by_label(done, shown)
    assert {one.label for one in labels} == {"animal", "metal"}
    assert [one.spread for one in labels] == sorted((one.spread for one in labels), reverse=True)


def test_the_verdict_names_sizes_significance_and_forgetting(done: Comparison) -> None:
    said = " ".join(verdict(done))
    assert "Soft prompt `kv`" in said or "soft prompt `kv`" in said or "Soft prompt `token`" in said
    assert "significant" in said
    assert "loss on a general text from" in said
    assert "Holm" in said
    assert "the one named is the best of them by its test score" in said


def test_one_seed_is_noted(base: Base, task: Task, tmp_path: Path) -> None:
    found = compare(base, task, CompareConfig(methods="probe", seeds=1, curve="none"), folder=tmp_path)
    assert any("one seed" in warning for warning in found.warnings)
    assert "training variance is not in it" in found.results[0].scores["interval"]
    assert found.results[0].scores["training_variance"] is False


def test_pairs_say_whether_training_variance_is_in_them() -> None:
    """Differences of one seed were called significant as if another seed could not have given another answer."""
    task = make_task(rows(40, 0), rows(60, 1))
    half, most = (answers_of(task, [n % k > 0 for n in range(60)]) for k in (2, 6))
    one = planted(task, {"hard-prompt": [half], "kv": [most], "optimised": [half]})
    assert [pair["training_variance"] for pair in comparison_json(one)["pairs"]] == [False] * 3
    page = to_markdown(make_page(one))
    for said in (" ".join(verdict(one)), page):
        assert "Training variance is not in the intervals and tests of methods with one seed" in said
        assert ", over the test rows only)" in said
    assert "training variance is in neither interval nor p" in page
    assert "no seed changes this method" in page
    two = planted(task, {"hard-prompt": [half], "kv": [most, half]}, seeds=2)
    assert [pair.training_variance for pair in two.pairs] == [True]
    assert "over the test rows only" not in " ".join(verdict(two))


def test_what_a_method_is_scored_with_is_not_its_peak_memory(
    base: Base, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A soft prompt's verdict against the hard prompt, made after it was tuned, counted as memory that tuning takes."""
    ballast: list[np.ndarray] = []
    decide = finish.decide

    def wasteful(*given: Any, **more: Any) -> Any:
        ballast.append(np.ones(1 << 26))  # 512 MB
        return decide(*given, **more)

    monkeypatch.setattr(finish, "decide", wasteful)
    config = CompareConfig(methods="kv", seeds=1, trials=1, epochs=1, curve="none")
    (cell,) = compare(base, task, config, folder=tmp_path).cells
    assert ballast
    assert 0 < cell.cost["peak_memory_bytes"] < 1 << 28


def test_hard_prompts_answer_a_row_once_whoever_is_judged_against_them(
    base: Base, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rate, kind and seed asked the same zero-shot prompts for the same validation rows anew."""
    asked, probabilities = Counter[tuple[str, str]](), PromptedBase.probabilities
    judging, decide = list[bool](), finish.decide

    def judge(*given: Any, **more: Any) -> Any:
        judging.append(True)
        try:
            return decide(*given, **more)
        finally:
            judging.clear()

    def count(self: PromptedBase, given: Sequence[Row]) -> Any:
        if judging and not any(isinstance(form, KeyValue) for form in self.forms):
            asked.update((identity(self), row.fields["text"]) for row in given)
        return probabilities(self, given)

    monkeypatch.setattr(finish, "decide", judge)
    monkeypatch.setattr(PromptedBase, "probabilities", count)
    config = CompareConfig(methods="kv", seeds=1, trials=2, epochs=1, curve="none")
    compare(base, task, config, folder=tmp_path)
    assert asked
    assert set(asked.values()) == {1}


def test_remarks_are_made_once(base: Base, task: Task, tmp_path: Path) -> None:
    """A resumed comparison repeated what it had said of the rows."""
    said: list[str] = []
    twice = replace(task, test=Split(rows=task.train.rows[:8]))
    config = CompareConfig(methods="hard-prompt", seeds=1, curve="none")
    for _ in range(2):
        found = compare(base, twice, config, folder=tmp_path, note=said.append)
    assert sum("stand among the training rows" in line for line in said) == 1
    assert any("stand among the training rows" in warning for warning in found.warnings)


def test_a_hard_prompt_that_a_method_beats_is_not_taken(done: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best was not surely over the hard prompt, another was, and the hard prompt was recommended, as the cheapest."""
    monkeypatch.setattr(verdict_module, "_beats", lambda _comparison, result, _hard: result.name == "kv")
    assert verdict(done)[0].startswith("Take soft prompt `kv`")


def planted(task: Task, answers: dict[str, list[list[str]]], *, seeds: int = 1) -> Comparison:
    """A comparison of which only the answers matter: of every method one list a seed."""
    base = toy_base()
    config = CompareConfig(methods=",".join(answers), seeds=seeds, curve="none")
    material = gather(task, rows=None, tests=None)
    none = ("search_seconds", "search_flops", "search_joules", "added_tokens", "trained_parameters", "kept_parameters")
    cost = dict.fromkeys(none, 0) | {"seconds": 1.0, "joules": 1.0, "joules_source": "estimated", "own_base": False}
    cost |= dict.fromkeys(("kept_bytes", "held_bytes", "peak_memory_bytes"), 8)
    cells = [
        Cell(
            method=method.name,
            rows=len(material.rest),
            seed=seed,
            predicted=given,
            scores=score_classification([r.target or "" for r in material.test[: len(given)]], given, list(task.labels)),
            cost={**cost, "flops": 1 + number},
        )
        for number, method in enumerate(make_methods(config, task))
        for seed, given in enumerate(answers[method.name.split(":")[0]])
    ]
    methods = tuple(make_methods(config, task))
    return Comparison(material=material, config=config, methods=methods, cells=cells, base=base, base_bytes=1, seconds=1.0)


def answers_of(task: Task, right: Sequence[bool]) -> list[str]:
    other = {"animal": "metal", "metal": "animal"}
    assert task.test is not None
    test = gather(task, rows=None, tests=None).test
    return [
        (row.target or "") if good else other[row.target or ""] for row, good in zip(test[: len(right)], right, strict=True)
    ]


def test_methods_are_ranked_on_rows_that_both_answered() -> None:
    """Few-shot with the nearest examples answers the first 500 rows; where these were the easy ones it was said to be best."""
    task = make_task(rows(40, 0), rows(200, 1))
    easy = [True] * 100
    found = planted(
        task,
        {
            "few-shot-nearest": [answers_of(task, [True] * 90 + [False] * 10)],
            "kv": [answers_of(task, easy + [n % 3 > 0 for n in range(100)])],
            "probe": [answers_of(task, [True] * 80 + [False] * 20 + [n % 2 > 0 for n in range(100)])],
        },
    )
    nearest, kv = (next(r for r in found.results if r.name == name) for name in ("few-shot-nearest", "kv"))
    assert nearest.value > kv.value
    assert [r.name for r in found.done] == ["kv", "few-shot-nearest", "probe"]
    assert found.gain(nearest, kv) == pytest.approx(0.1)
    assert found.pair("few-shot-nearest", "kv").rows == 100
    assert any(
        "10.0 points over few-shot" in line and "on the 100 rows that both answered" in line for line in verdict(found)
    )
    assert ", 100 rows" in to_markdown(make_page(found))
    assert sum(one.rows for one in scores_by_label(found, found.done)) == 100


def test_a_runner_up_that_is_surely_better_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict closed with "not significant" whatever the paired test had said."""
    task = make_task(rows(40, 0), rows(200, 1))
    kv = answers_of(task, [n % 5 > 0 for n in range(200)])
    found = planted(
        task,
        {
            "hard-prompt": [answers_of(task, [n % 2 > 0 for n in range(200)])],
            "kv": [kv],
            "lora": [answers_of(task, [True] * 200)],
        },
    )
    monkeypatch.setattr(verdict_module, "_beats", lambda _comparison, result, _hard: result.name == "kv")
    said = verdict(found)[0]
    assert said.startswith("Take soft prompt `kv`")
    assert "scored 20.0 points more, significant (95%:" in said
    monkeypatch.undo()
    level = planted(
        task,
        {
            "hard-prompt": [answers_of(task, [n % 2 > 0 for n in range(200)])],
            "kv": [answers_of(task, [n % 50 > 0 for n in range(200)])],
            "lora": [answers_of(task, [True] * 200)],
        },
    )
    assert "scored 2.0 points more, not significant (p " in verdict(level)[0]


def test_a_test_that_is_not_passed_says_why_its_interval_may_leave_out_0() -> None:
    """The verdict said "not significant (95%: +11.1 to +77.8)": the p was corrected for 45 pairs, the interval was not."""
    task = make_task(rows(40, 0), rows(18, 1))
    half = [answers_of(task, [n % 9 > 3 for n in range(18)])]
    good = [answers_of(task, [True] * 9 + [n % 9 > 3 for n in range(9)])]
    found = planted(task, {"hard-prompt": half, "kv": good})
    pair = found.pair(found.done[1].name, "kv")
    assert pair.difference.low > 0
    assert not pair.significant
    said = " ".join(verdict(found))
    assert f"not significant (p {share_text(pair.p)} of the tests; of this pair alone 95%: +" in said
    level = planted(task, {"hard-prompt": half, "kv": half})
    assert "not significant (95%: -" in " ".join(verdict(level))


def test_seconds_and_operations_each_have_their_direction() -> None:
    """ "2.0 times dearer to train (seconds; 0.0 times by counted FLOPs)" """
    task = make_task(rows(40, 0), rows(18, 1))
    answers = [answers_of(task, [True] * 18)]
    found = planted(task, {"kv": answers, "lora": answers})
    kv, lora = found.cells
    cells = [replace(kv, cost=kv.cost | {"seconds": 2.0, "flops": 10}), replace(lora, cost=lora.cost | {"flops": 1000})]
    said = " ".join(verdict(replace(found, cells=cells)))
    assert "2.0 times dearer to train (seconds; 100 times cheaper by counted FLOPs)" in said


def test_what_was_not_run_is_not_said_to_be_needless() -> None:
    """All that trains had failed, and the verdict was: no method beats the hard prompt, nothing needs to be trained."""
    task = make_task(rows(40, 0), rows(18, 1))
    answers = [answers_of(task, [True] * 18)]
    found = planted(task, {"hard-prompt": answers, "few-shot-random": answers, "kv": answers})
    assert "No method beats the hard prompt" in verdict(found)[0]
    assert "nothing needs to be trained" in verdict(found)[0]
    cells = [replace(cell, status="failed", reason="no memory") if cell.method == "kv" else cell for cell in found.cells]
    said = verdict(replace(found, cells=cells))
    assert said[0].startswith("No method that was run beats the hard prompt (accuracy 1.000); none that trains was run.")
    assert "Soft prompt `kv`: failed: no memory" in [line[:1].upper() + line[1:] for line in said]


def test_methods_that_are_no_better_than_the_constant_answer_are_said_to_be() -> None:
    """ "No method beats the hard prompt (accuracy .500): nothing needs to be trained", where always one label gave .500."""
    task = make_task(rows(40, 0), rows(18, 1))
    constant = [["animal"] * 18]
    found = planted(task, {"hard-prompt": constant, "kv": constant})
    assert "But no method is better than always the most frequent label (.500)." in verdict(found)[0]
    assert "But no method" not in verdict(planted(task, {"kv": [answers_of(task, [True] * 18)]}))[0]


def test_a_verdict_on_rows_that_train_too_says_so() -> None:
    """ "Take linear probe: significantly better than every other method", with 11 of 20 test rows among the training rows."""
    task = make_task(rows(40, 0), rows(40, 0)[:10] + rows(30, 1))
    found = planted(task, {"probe": [answers_of(task, [True] * 40)], "kv": [answers_of(task, [False] * 40)]})
    shared = found.material.shared
    assert shared >= 10
    assert verdict(found)[0].endswith(f" But {shared} of 40 test rows stand among the training rows too.")


def test_a_point_of_the_curve_that_failed_is_named() -> None:
    """It was left out of the picture and the table, and nothing said that it had been tried."""
    task = make_task(rows(40, 0), rows(18, 1))
    answers = [answers_of(task, [True] * 18)]
    found = planted(task, {"hard-prompt": answers, "kv": answers})
    few = [Cell(method="kv", rows=n, seed=0, status="cannot run", reason="it is too few") for n in (8, 16)]
    found = replace(found, cells=[*found.cells, *few])
    assert "soft prompt `kv`, 8, 16 rows: cannot run: it is too few" in to_markdown(make_page(found))
    kv = next(method for method in comparison_json(found)["methods"] if method["name"] == "kv")
    assert kv["gaps"][0] == {"rows": 8, "seed": 0, "status": "cannot run", "reason": "it is too few"}


def test_a_loss_that_stays_is_not_said_to_be_lowered() -> None:
    """ "lowered the model's loss on a general text from 5.555 to 5.555" """
    task = make_task(rows(40, 0), rows(18, 1))
    found = planted(task, {"lora": [answers_of(task, [True] * 18)]})
    cell = replace(found.cells[0], forgetting={"before": 5.55512, "after": 5.55509})
    said = " ".join(verdict(replace(found, cells=[cell])))
    assert "LoRA, all linear layers left the model's loss on a general text at 5.555 nats a token." in said


def test_a_method_of_which_nothing_was_run_is_not_done(done: Comparison) -> None:
    """It was said to be done, without scores."""
    cells = [cell for cell in done.cells if cell.method != "kv"]
    (kv,) = (r for r in replace(done, cells=cells).results if r.name == "kv")
    assert (kv.status, kv.reason) == ("cannot run", "no cell of it was run")
    assert not kv.done


def test_only_a_hard_prompt_has_a_verdict_too(base: Base, task: Task, tmp_path: Path) -> None:
    found = compare(base, task, CompareConfig(methods="hard-prompt", curve="none"), folder=tmp_path)
    assert verdict(found)[0].startswith("Only the hard prompt was run")
    assert len(found.cells) == 1  # no seed changes it


def test_generation_is_compared_too(base: Base, tmp_path: Path) -> None:
    texts = [row.fields["text"] for row in rows(12, 0)]
    task = Task.from_rows(texts, [t.upper()[:6] for t in texts], kind="generation", metric="bleu")
    config = CompareConfig(methods="hard-prompt,probe,kv", seeds=1, trials=1, epochs=1, curve="none")
    found = compare(base, task, config, folder=tmp_path)
    status = {result.name: result.status for result in found.results}
    assert status["probe"] == "cannot run"
    assert status["kv"] == "done"
    assert all(pair.mcnemar is None for pair in found.pairs)
    assert "hard-prompt:generated" in status
    assert make_page(found).sections


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_method_that_breaks_is_a_cell_with_a_reason(
    base: Base, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full fine-tuning without memory, and a fault of our own, leave all the others in the report."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Free", (), {"available": 1000})())

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("epigraph.compare.trained.fit_probe", broken)
    config = CompareConfig(methods="hard-prompt,probe,full", seeds=1, trials=1, epochs=1, curve="8")
    found = compare(base, task, config, folder=tmp_path, engine=Engine(base, budget=1 << 30, folder=tmp_path / "frozen"))
    reasons = {result.name: (result.status, result.reason) for result in found.results}
    assert reasons["full"][0] == "cannot run"
    assert "GB are free" in reasons["full"][1]
    assert reasons["probe"][0] == "failed"
    assert "a fault of Epigraph: ZeroDivisionError" in reasons["probe"][1]
    assert list((tmp_path / "cells").glob("probe*.traceback"))
    assert found.done[0].method.family == "hard"
    assert "GB are free" in to_html(make_page(found))


def test_a_cell_whose_process_was_killed_is_tried_once_more(base: Base, task: Task, tmp_path: Path) -> None:
    """A kill from outside made the resumed comparison leave the cell out; only a second end in the same cell does now."""
    config = CompareConfig(methods="probe", seeds=1, curve="none")
    compare(base, task, config, folder=tmp_path)
    cell = next((tmp_path / "cells").glob("probe*.json"))
    mark = cell.with_suffix(".begun")
    cell.unlink()
    mark.write_text("1")
    assert compare(base, task, config, folder=tmp_path).results[0].done
    assert not mark.exists()
    cell.unlink()
    mark.write_text("2")
    cut = compare(base, task, config, folder=tmp_path)
    assert cut.results[0].status == "failed"
    assert "the process ended in the middle of it 2 times" in cut.results[0].reason
    assert compare(base, task, config, folder=tmp_path).results[0].done


def test_marks_count_how_often_a_cell_was_begun(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path)
    for times in range(3):
        assert folder.cut_off("kv", "key") == times
        folder.mark("kv", "key")
    next(tmp_path.glob("*.begun")).write_bytes(b"")  # as older versions left it
    assert folder.cut_off("kv", "key") == 1


def test_a_search_for_a_rate_costs_what_it_took(done: Comparison) -> None:
    """Trained methods tried rates for free, which made the comparison of costs untrue."""
    for result in done.done:
        cost = result.cost
        for name in ("seconds", "flops", "joules"):
            assert (cost[f"search_{name}"] > 0) == result.method.trained
            assert made(cost, name) == cost[name] + cost[f"search_{name}"]
    assert "rate search" in to_markdown(make_page(done))


def test_tokens_added_are_those_that_are_read_beside_the_bare_row(base: Base, task: Task, tmp_path: Path) -> None:
    """A row that stands twice in the template was said to add nothing but the prompt's vectors."""
    material = gather(task, rows=None, tests=None)
    part = material.part(40, 0)
    job = Job(
        engine=Engine(base, folder=tmp_path),
        task=part.task,
        train=part.train,
        validation=part.validation,
        validation_share=part.share,
        seed=0,
        budget=Budget(trials=1, seconds=None, epochs=1),
        output_tokens=1,
    )
    once = PromptedBase(job.engine, task, [Embedded(torch.zeros(8, 32))])
    twice = PromptedBase(job.engine, task, once.forms, template=Template("{text}{prompt}\n{text}\nLabel:"))
    lengths = [len(base.tokenize("\n" + row.fields["text"])) for row in part.validation]
    assert added_tokens(job, once) == 8
    assert added_tokens(job, twice) == pytest.approx(8 + sum(lengths) / len(lengths), abs=1.01)


def test_a_seeded_method_with_one_seed_done_says_so(base: Base, task: Task, tmp_path: Path) -> None:
    """It said "no seed changes this method"."""
    config = CompareConfig(methods="hard-prompt,probe", seeds=3, curve="none")
    whole = compare(base, task, config, folder=tmp_path)
    some = [cell for cell in whole.cells if cell.seed == 0]
    said = {r.method.family: r.scores["interval"] for r in replace(whole, cells=some).results}
    assert "1 of 3 seeds is done" in said["probe"]
    assert "no seed changes this method" in said["hard"]
    two = {r.method.family: r.scores["interval"] for r in replace(whole, cells=whole.cells[:3]).results}
    assert "2 of 3 seeds together" in two["probe"]


def test_an_interrupted_comparison_leaves_no_mark_and_goes_on(
    base: Base, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CompareConfig(methods="hard-prompt,probe", seeds=1, curve="none")
    whole, count = sessions.run_cell, [0]

    def stop_at_second(*given: Any) -> Any:
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt
        return whole(*given)

    monkeypatch.setattr(sessions, "run_cell", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        compare(base, task, config, folder=tmp_path)
    assert len(list((tmp_path / "cells").glob("*.json"))) == 1
    assert not list((tmp_path / "cells").glob("*.begun"))
    assert all(result.done for result in compare(base, task, config, folder=tmp_path).results)
    assert count[0] == 3


def test_a_damaged_cell_is_named(base: Base, task: Task, tmp_path: Path) -> None:
    config = CompareConfig(methods="probe", seeds=1, curve="none")
    compare(base, task, config, folder=tmp_path)
    next((tmp_path / "cells").glob("probe*.json")).write_text('{"content": {"rows": 3}}')
    with pytest.raises(Corrupt, match="is no cell of a comparison"):
        compare(base, task, config, folder=tmp_path)
    assert CellFolder(tmp_path / "cells").read("nothing", "here") is None


def test_overlap_and_unequal_labels_are_counted_and_warned() -> None:
    train, test = rows(20, 0), [Row(fields={"text": f"new {n}"}, target=("animal", "metal")[n % 2]) for n in range(10)]
    same = Row(fields={"text": f"  {train[0].fields['text'].upper()} "}, target="animal")
    task = make_task(train, [*test[1::2], same, Row(fields={"text": "x"}, target="plant")])
    said = " ".join(gather(task, rows=None, tests=None).warnings)
    assert "1 of 7 test rows stand among the training rows" in said
    assert "test labels that no training row has, their 1 rows count as wrong: plant" in said
    untested = " ".join(gather(make_task(train, test[1::2]), rows=None, tests=None).warnings)
    assert "labels that no test row has, nothing is said of them: animal" in untested


def test_a_limit_leaves_cells_to_the_next_run(base: Base, task: Task, tmp_path: Path) -> None:
    config = CompareConfig(methods="hard-prompt", seeds=1, curve="none", limit=1e-9)
    found = compare(base, task, config, folder=tmp_path)
    assert "the limit of 1e-09 minutes was reached" in found.results[0].reason
    assert verdict(found) == ["No method could be run: see the reasons in the table."]
    assert make_page(found).sections
    assert compare(base, task, replace(config, limit=None), folder=tmp_path).results[0].done


def test_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="usable rows; a comparison needs"):
        gather(make_task(rows(3, 0), rows(3, 1)), rows=None, tests=None)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"methods": " , "}, "no methods were asked"),
        ({"curve": "8,many"}, "curve '8,many' was asked"),
        ({"curve": "2"}, "the fewest are 4"),
        ({"budget": "-1s"}, "budget '-1s' was asked"),
        ({"limit": -1.0}, "limit -1.0 was asked"),
        ({"seeds": 0}, "seeds 0 was asked"),
        ({"trials": 12}, "12 trials were asked; there are 5"),  # trained methods stopped at 5, hard-prompt searches did not
        ({"budget": "12"}, "12 trials were asked"),
    ],
)
def test_what_cannot_be_asked(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CompareConfig(**asked)
    with pytest.raises(ConfigError, match="settings nonsense are not known"):
        CompareConfig.from_dict({"nonsense": 1})


def test_a_budget_means_here_what_it_means_to_tune() -> None:
    """``compare --budget 60s`` was refused, and 60 meant seconds, where ``tune --budget 60`` means trials."""
    time, trials, neither = CompareConfig(budget="1m"), CompareConfig(budget="2"), CompareConfig()
    assert (time.seconds, time.tries) == (60.0, 3)
    assert (trials.seconds, trials.tries) == (None, 2)
    assert (neither.seconds, neither.tries) == (None, 3)
    assert CompareConfig.from_dict({"budget": 90.0}).seconds == 90.0  # as folders have it that were begun before
    assert CompareConfig.from_dict({"budget": None}).budget == ""


def test_an_unknown_method_is_named_with_its_neighbour(task: Task) -> None:
    with pytest.raises(ConfigError, match="method 'loro' is not known"):
        make_methods(CompareConfig(methods="kv,loro"), task)


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_a_longer_point_holds_every_shorter_one_and_the_test_is_the_same(task: Task) -> None:
    material = gather(task, rows=None, tests=None)
    parts = [material.part(n, seed=3) for n in (8, 16, 40)]
    texts = [{id(row) for row in part.task.train.rows} for part in parts]
    assert texts[0] < texts[1] < texts[2]
    for part in parts:
        assert {id(r) for r in part.train} | {id(r) for r in part.validation} == {id(r) for r in part.task.train.rows}
        assert not {id(r) for r in part.train} & {id(r) for r in part.validation}
        assert part.task.test is None


def test_without_a_test_file_a_hold_out_is_split_off_once(task: Task) -> None:
    material = gather(replace(task, test=None), rows=None, tests=None)
    assert material.split == "holdout"
    assert not {id(r) for r in material.test} & {id(r) for r in material.rest}
    assert len(material.test) + len(material.rest) == 40


def test_a_fit_starts_with_nothing_read(base: Base, tmp_path: Path) -> None:
    engine = Engine(base, folder=tmp_path)
    own = engine.store
    with unread(engine):
        assert engine.store is not own
        assert len(engine.store) == 0
    assert engine.store is own


def test_the_general_text_is_scored_as_the_stock_model_scores_it(base: Base) -> None:
    text = general_text()[:300]
    Engine(base)
    ids = torch.tensor([base.tokenize(text)])
    with torch.no_grad(), stock_attention(base):
        stock = float(base.model(input_ids=ids, labels=ids).loss)
    assert loss_on(base, text) == pytest.approx(stock, abs=1e-4)
    assert len(general_text().split()) > 600


def test_memory_for_full_fine_tuning_is_checked_beforehand() -> None:
    check_memory(1000)
    with pytest.raises(Unsupported, match="million parameters takes about"):
        check_memory(10**13)


def test_the_pace_learns_from_cells_that_were_run() -> None:
    pace = Pace([("a", 1.0), ("b", 1.0), ("a", 2.0), ("b", 3.0)])
    pace.step(0, 10.0, known=True)
    assert pace.left == "3 cells left"
    pace.step(1, 5.0, known=False)
    assert pace.seconds == 5.0 * 2 + 5.0 * 3
    pace.step(3, 1.0, known=False)
    assert pace.left == "all cells are done"
    assert [duration(s) for s in (40.0, 720.0, 7500.0)] == ["40 s", "12 min", "2 h 5 min"]
