import numpy as np
import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.errors import ConfigError, DataError
from epigraph.methods import PromptedBase
from epigraph.methods.calibration import calibrate
from epigraph.methods.shift import Shift, contextual_bias, prior_bias
from epigraph.prompts import Embedded
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

LABELS = ["tốt", "xấu", "差"]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_base(), keep=False)


def solver(engine: Engine, task: Task) -> PromptedBase:
    torch.manual_seed(0)
    return PromptedBase(engine, task, [Embedded(torch.randn(3, engine.base.hidden) * engine.base.table_rms)])


def distributions(rows: int = 200) -> np.ndarray:
    return np.random.default_rng(0).dirichlet([5, 1, 0.5], rows)


def test_after_matching_the_mean_is_the_share() -> None:
    p, wanted = distributions(), [0.2, 0.3, 0.5]
    shift = Shift("prior", prior_bias(p, wanted, sets=False))
    assert shift.labels(p).mean(0) == pytest.approx(wanted, abs=1e-4)
    assert shift.labels(p).sum(1) == pytest.approx(np.ones(200))
    sets = Shift("prior", prior_bias(p, wanted, sets=True))
    assert sets.sets(p).mean(0) == pytest.approx(wanted, abs=1e-4)


def test_after_contextual_calibration_no_input_means_nothing() -> None:
    p = distributions(1)
    assert Shift("contextual", contextual_bias(p, sets=False)).labels(p)[0] == pytest.approx([1 / 3] * 3)
    assert Shift("contextual", contextual_bias(p, sets=True)).sets(p)[0] == pytest.approx([0.5] * 3)


def test_a_shift_changes_no_order_within_a_label() -> None:
    p = distributions()
    shifted = Shift("prior", prior_bias(p, [1 / 3] * 3, sets=False)).labels(p)
    odds, before = shifted[:, 0] / shifted[:, 1], p[:, 0] / p[:, 1]
    assert np.allclose(odds / before, (odds / before)[0])


def test_a_solver_is_calibrated_by_empty_inputs_or_by_texts(engine: Engine) -> None:
    task = Task.from_rows([f"văn bản {i}" for i in range(12)], [*LABELS, *LABELS[:1]] * 3)
    plain = solver(engine, task)
    contextual = calibrate(plain, "contextual")
    empty = [Row(fields={"text": text}) for text in ("N/A", "[MASK]", "")]
    mean = plain.probabilities(empty).astype(float).mean(0)
    found = contextual.probabilities(task.train.rows)
    weighed = plain.probabilities(task.train.rows) / mean
    assert found == pytest.approx(weighed / weighed.sum(1, keepdims=True), abs=1e-4)
    matched = calibrate(plain, "prior", task.train.rows)
    shares = [task.shares[label] for label in task.labels]
    assert matched.probabilities(task.train.rows).mean(0) == pytest.approx(shares, abs=1e-3)
    assert Shift.from_dict(matched.shift.to_dict() if matched.shift else {}) == matched.shift


def test_choices_are_weighed_against_the_same_choices_after_no_input(engine: Engine) -> None:
    rows = [{"question": f"q {i}", "choices": ["一", "hai", "ba bốn"][: 2 + i % 2]} for i in range(4)]
    task = Task.from_rows(rows, [0, 1, 0, 1], kind="choice")
    plain = solver(engine, task)
    row = task.train.rows[1]
    bare = [plain.probabilities([Row(fields={"question": t}, choices=row.choices)])[0] for t in ("N/A", "[MASK]", "")]
    weighed = plain.probabilities([row])[0] / np.mean(bare, axis=0)
    assert calibrate(plain, "contextual").probabilities([row])[0] == pytest.approx(weighed / weighed.sum(), abs=1e-4)
    assert calibrate(plain, "contextual").probabilities(task.train.rows)[0, 2] == 0


def test_what_cannot_be_calibrated_is_refused(engine: Engine) -> None:
    task = Task.from_rows(["a", "b"] * 2, ["x", "y"] * 2)
    with pytest.raises(ConfigError, match="calibration 'magic' is not known"):
        calibrate(solver(engine, task), "magic")
    with pytest.raises(DataError, match="no rows to match"):
        calibrate(solver(engine, task), "prior")
    written = Task.from_rows(["a", "b"] * 2, ["x", "y"] * 2, kind="generation")
    with pytest.raises(ConfigError, match="writes text"):
        calibrate(solver(engine, written), "contextual")
