import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.correct.answers import right_answers
from epigraph.correct.corrections import text_of
from epigraph.correct.fixing import Fixing, fix
from epigraph.correct.settings import FixConfig
from epigraph.correct.vectors import Vectors
from epigraph.engine import Engine
from epigraph.errors import ConfigError, DataError, InputError, Unsupported
from epigraph.library import Card, Library, StoredPrompt
from epigraph.methods import judge
from epigraph.methods.shift import Shift
from epigraph.model import PromptModel, facts
from epigraph.prompts import KINDS, Embedded, KeyValue, PoolPrompt
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tuning.start import make_prompt

LABELS = ("animal", "metal")
QUICK = FixConfig(tolerance=0.25)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_base(hidden=32, seed=1), keep=False)


def texts(rows: int, seed: int = 0) -> list[Row]:
    """Words of both marks, so that the vectors alone decide."""
    draw = random.Random(seed)
    found = [" ".join("aZ"[draw.randrange(2)] * draw.randint(1, 4) for _ in range(3)) for _ in range(rows)]
    return [Row(fields={"text": text}, target=LABELS[i % 2], line=i + 2) for i, text in enumerate(dict.fromkeys(found))]


def model_of(engine: Engine, task: Task, kind: str = "kv", **card: Any) -> PromptModel:
    """A prompt that was never tuned: the vectors of some words."""
    forms = make_prompt(engine, task, kind=kind, length=3, start="text", seed=0).fold()
    facts_of = facts(engine.base)
    said = Card(
        name="moods", version=1, kind=kind, place="template", trained_parameters=1, base=facts_of, task=task.to_dict()
    )
    card = {"settings": {"output_tokens": 4}, **card}
    model = PromptModel(StoredPrompt(card=replace(said, **card), forms=forms), engine.base, engine=engine)
    if task.kind == "classification":
        model.method = model.method.with_shift(even(model))
    return model


def even(model: PromptModel) -> Shift:
    """A calibration by which one text in two has either label: vectors that were never tuned lean to one."""
    found = model.method.probabilities(texts(60, 9))
    lean = float(np.median(np.log(found[:, 0] / found[:, 1])))
    return Shift("contextual", (-lean / 2, lean / 2))


def labelled(template: str = "{text}{prompt}:") -> Task:
    rows = texts(6)
    return Task.from_rows(
        [r.fields["text"] for r in rows], [r.target for r in rows], template=template, kind="classification"
    )


def mistakes(model: PromptModel, most: int) -> list[Row]:
    """Rows with the label that the prompt does not give: those of which it is least sure, which a small step can turn."""
    rows = texts(40, seed=5)
    sure = model.method.probabilities(rows).max(1)
    rows = [rows[i] for i in np.argsort(sure)[:most]]
    given = judge.answer(model.method, rows).given
    return [replace(row, target=LABELS[1 - LABELS.index(str(g))]) for row, g in zip(rows, given, strict=True)]


FORMS = [
    ("kv", "{text}{prompt}:"),
    ("token", "{text}{prompt}:"),
    ("token", "{prompt}{text}:"),
    ("kv", "{prompt}{text}{prompt}:"),
]


@pytest.mark.parametrize(("kind", "template"), FORMS)
def test_corrections_are_mastered_and_the_rest_stays_within_the_tolerance(kind: str, template: str, engine: Engine) -> None:
    model = model_of(engine, labelled(template), kind)
    wrong, kept = mistakes(model, 2), texts(60, 9)
    before = [form.length for form in model.method.forms]
    result = fix(model, wrong, keep=kept, config=QUICK)
    assert result.refused is None
    assert result.mastered.mastered > 0
    assert result.elsewhere.share <= QUICK.tolerance
    again = PromptModel(result.prompt, engine.base, engine=engine)
    again.method = again.method.with_shift(model.method.shift)
    assert [form.length for form in again.method.forms] == before
    assert int(right_answers(again.method, wrong).sum()) == result.mastered.mastered
    work = Fixing(model, wrong, kept, (), QUICK, "given", lambda *_: None)
    for rows, counted in ((work.kept.apart, result.elsewhere), (work.kept.rows, result.learned_from)):
        old, new = (judge.answer(one.method, rows).given for one in (model, again))
        differs = sum(a != b for a, b in zip(old, new, strict=True))
        assert (differs, len(rows)) == (counted.changed, counted.rows)
    assert not {text_of(row) for row in [*work.kept.apart, *wrong]} & {text_of(row) for row in work.kept.rows}
    assert result.card.lineage.parents == ("moods@1",)
    assert result.card.lineage.how == f"fixed: {len(wrong)} corrections"


@pytest.mark.parametrize("seed", range(4))
def test_with_tolerance_zero_every_other_answer_is_the_same_or_it_is_refused(
    seed: int, engine: Engine, tmp_path: Path
) -> None:
    model = model_of(engine, labelled())
    wrong, kept = mistakes(model, 1 + seed), texts(40, seed + 20)
    result = fix(model, wrong, keep=kept, config=replace(QUICK, tolerance=0.0, seed=seed))
    assert result.elsewhere.changed == 0
    if result.refused is None:
        assert result.mastered.mastered > 0
        return
    library = Library(tmp_path / "library")
    with pytest.raises(InputError, match="nothing was stored"):
        result.store(library)
    assert not library.root.exists()


def test_held_out_answers_that_break_refuse_the_step_and_fixed_ones_do_not(engine: Engine) -> None:
    model = model_of(engine, labelled())
    wrong = mistakes(model, 2)
    rows = texts(40, 31)
    given = judge.answer(model.method, rows).given
    as_before = [replace(row, target=str(g)) for row, g in zip(rows, given, strict=True)]
    turned = [replace(row, target=LABELS[1 - LABELS.index(str(g))]) for row, g in zip(rows, given, strict=True)]
    strict = replace(QUICK, tolerance=0.0)
    kept = texts(12, 77)
    loose = fix(model, wrong, keep=kept, held_out=as_before, config=QUICK)
    assert loose.held_out is not None
    assert loose.held_out.changes.broken == loose.held_out.changes.changed
    fixed = fix(model, wrong, keep=kept, held_out=turned, config=strict)
    assert fixed.held_out is not None
    assert fixed.held_out.changes.broken == 0
    broke = fix(model, wrong, keep=kept, held_out=as_before, config=strict)
    assert broke.held_out is not None
    assert (broke.refused is not None) == (broke.taken is None or bool(broke.held_out.changes.broken))


def test_without_texts_the_base_writes_some_the_same_ones_for_a_seed(engine: Engine) -> None:
    model = model_of(engine, labelled())
    wrong = mistakes(model, 3)
    config = replace(QUICK, keep_rows=24, steps=2)
    first, second = (fix(model, wrong, config=config) for _ in range(2))
    assert "texts that the base wrote" in first.kept
    assert first.elsewhere == second.elsewhere
    assert first.tried == second.tried
    for one, other in zip(first.forms, second.forms, strict=True):
        assert isinstance(one, KeyValue)
        assert isinstance(other, KeyValue)
        assert torch.equal(one.keys, other.keys)


def test_corrections_that_are_right_already_are_said_and_kept(engine: Engine) -> None:
    model = model_of(engine, labelled())
    row = texts(12, 5)[-1]
    fine = replace(row, target=str(judge.answer(model.method, [row]).given[0]))
    result = fix(model, [*mistakes(model, 2), fine], keep=texts(30, 9), config=QUICK)
    assert result.mastered.already == 1
    assert any("right already" in warning for warning in result.warnings)
    with pytest.raises(DataError, match="right already"):
        fix(model, [fine], keep=texts(30, 9), config=QUICK)


def test_what_cannot_be_corrected_is_refused_by_name(engine: Engine) -> None:
    task = labelled()
    model = model_of(engine, task)
    wrong = mistakes(model, 2)
    voting = model_of(engine, task)
    voting.card = replace(voting.card, settings={"members": 2})
    with pytest.raises(Unsupported, match="ensemble of 2 prompts"):
        fix(voting, wrong, keep=texts(20))
    pool = KINDS["pool"].begin([form for form in model.method.forms if isinstance(form, KeyValue)], _supply(engine))
    assert isinstance(pool, PoolPrompt)
    model.method.forms = pool.fold()
    with pytest.raises(Unsupported, match="depends on the input"):
        fix(model, wrong, keep=texts(20))


def _supply(engine: Engine) -> Any:
    from epigraph.prompts import Supply

    return Supply(hidden=engine.base.hidden)


def test_too_few_texts_to_keep_and_settings_that_cannot_be_are_refused(engine: Engine) -> None:
    model = model_of(engine, labelled())
    with pytest.raises(DataError, match="8 are needed"):
        fix(model, mistakes(model, 2), keep=texts(4, 9))
    for wrong in ({"tolerance": -0.1}, {"tolerance": 2.0}, {"keep_rows": 2}, {"hold": 0.0}, {"reach": -1.0}, {"steps": 0}):
        with pytest.raises(ConfigError, match="was asked"):
            FixConfig(**wrong)


def tasks() -> dict[str, tuple[Task, Callable[[int, int], list[Row]]]]:
    """A task of every other kind, and its rows by number and seed."""
    plain = [row.fields["text"] for row in texts(12)]
    scale = Task.from_rows(plain, ["1", "2", "3"] * 4, kind="ordinal", template="{text}{prompt}:")
    sets = Task.from_rows(plain, [["x"], ["y"], ["x", "y"]] * 4, kind="multilabel", template="{text}{prompt}:")
    wrote = Task.from_rows(plain, ["ab", "ba", "c"] * 4, kind="generation", template="{text}{prompt}:", metric="exact_match")
    chosen = Task.from_rows(
        [{"question": text, "choices": ["ab", "cd"]} for text in plain],
        ["ab", "cd"] * 6,
        kind="choice",
        template="{question}{prompt}:",
    )

    def rows(target: str, name: str = "text", **more: Any) -> Callable[[int, int], list[Row]]:
        return lambda n, seed: [
            Row(fields={name: row.fields["text"]}, target=target, line=row.line, **more) for row in texts(n, seed)
        ]

    return {
        "ordinal": (scale, rows("1")),
        "multilabel": (sets, rows("x", labels=("x",))),
        "generation": (wrote, rows("ab")),
        "choice": (chosen, rows("cd", "question", choices=("ab", "cd"))),
    }


@pytest.mark.parametrize("kind", ["ordinal", "multilabel", "generation", "choice"])
@pytest.mark.parametrize("given", [True, False], ids=["given", "written"])
def test_every_kind_of_task_takes_corrections(kind: str, given: bool, engine: Engine) -> None:
    task, rows = tasks()[kind]
    model = model_of(engine, task)
    asked = rows(12, 5)
    if kind == "ordinal" and right_answers(model.method, asked).all():
        asked = [replace(row, target="3") for row in asked]
    if kind == "choice" and right_answers(model.method, asked).all():
        asked = [replace(row, target="ab") for row in asked]
    wrong = [row for row, right in zip(asked, right_answers(model.method, asked), strict=True) if not right][:2]
    keep = rows(14, 9) if given else []
    result = fix(model, wrong, keep=keep, config=FixConfig(tolerance=1.0, hold=1.0, keep_rows=16))
    assert result.mastered.rows == len(wrong)
    assert result.refused is not None or result.mastered.mastered > result.mastered.already


def test_shared_blocks_stay_one() -> None:
    block = Embedded(torch.arange(8.0).view(2, 4))
    one = Vectors([block, block], torch.device("cpu"), shared=True)
    assert (one.size, Vectors([block, block], torch.device("cpu")).size) == (8, 16)
    first, second = one.forms(torch.ones(8))
    assert isinstance(first, Embedded)
    assert isinstance(second, Embedded)
    assert torch.equal(first.vectors, second.vectors)


def test_the_stored_prompt_holds_no_text_of_corrections_and_kept_texts(engine: Engine, tmp_path: Path) -> None:
    model = model_of(engine, labelled())
    wrong, kept = mistakes(model, 2), texts(30, 9)
    library = Library(tmp_path / "library")
    card = fix(model, wrong, keep=kept, held_out=texts(20, 3), config=QUICK).store(library)
    files = [path for path in library.root.rglob("*") if path.is_file()]
    assert files
    content = b"\n".join(path.read_bytes() for path in files)
    assert [row for row in [*wrong, *kept] if row.fields["text"].encode() in content] == []
    assert not library.verify()
    assert card.scores["rows"] == len(texts(20, 3))


def test_rows_that_are_held_out_are_not_kept_too(engine: Engine) -> None:
    """A row of both files was learned to keep and then counted as one that nothing was learned from."""
    model, rows = model_of(engine, labelled()), texts(40, 3)
    work = Fixing(model, rows[:1], rows[1:30], rows[20:], QUICK, "given", lambda *_: None)
    assert not {text_of(row) for row in work.kept.both} & {text_of(row) for row in rows[20:]}
    assert len(work.kept.both) == 19
    _ = work.corrections
    assert any(text.startswith("10 texts to keep are held out as well") for text in work._warnings())


def test_a_single_choice_is_no_margin_to_keep(engine: Engine) -> None:
    """No other choice stands against it: its margin is infinite, and the step was taken for one that diverged."""
    task = Task.from_rows(["a", "b"], ["x", "y"], kind="classification")
    work = Fixing(model_of(engine, labelled()), texts(2), texts(12, 5), (), QUICK, "given", lambda *_: None)
    kept = [replace(task.train.rows[0], choices=c) for c in (("x",), ("x", "y"))]
    work.old_answers = dict.fromkeys(map(text_of, kept), "x")
    assert len(work._margins(kept).rows) == 1


def test_what_more_would_cost_is_told_and_is_what_it_costs(engine: Engine) -> None:
    """Within a tolerance where not all are mastered; with the one that is named, they are."""
    model = model_of(engine, labelled())
    wrong, kept = mistakes(model, 8), texts(60, 9)
    whole = fix(model, wrong, keep=kept, config=replace(QUICK, tolerance=1.0))
    assert whole.more is None
    strict = fix(model, wrong, keep=kept, config=replace(QUICK, tolerance=0.0))
    assert strict.elsewhere.changed == 0
    assert strict.more is not None
    again = fix(model, wrong, keep=kept, config=replace(QUICK, tolerance=strict.tolerance_for_more))
    assert again.mastered.mastered >= strict.more.mastered
    assert again.elsewhere.changed <= strict.more.changed
