"""The scikit-learn estimator on a toy base: clone, Pipeline, cross-validation, labels of any type, pickles without the base."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import epigraph
from epigraph.base import Base
from epigraph.base.toy import toy_base
from epigraph.sklearn import PromptClassifier, _engine

FAST: dict[str, Any] = {"epochs": 4, "batch": 8, "rate": 0.3}


@pytest.fixture
def data(toy_rows: Any) -> tuple[list[str], list[str]]:
    texts, labels = zip(*toy_rows(48), strict=True)
    return list(texts), list(labels)


def test_fit_predict_and_score(toy: Base, data: tuple[list[str], list[str]], toy_rows: Any, tmp_path: Path) -> None:
    model = PromptClassifier(base=toy, **FAST)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        model.predict(data[0])
    assert model.fit(*data) is model
    texts, labels = zip(*toy_rows(20, seed=9), strict=True)
    assert model.score(list(texts), list(labels)) >= 0.9
    probabilities = model.predict_proba(list(texts))
    assert probabilities.shape == (20, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert list(model.classes_) == ["animal", "metal"]
    model.save(str(tmp_path / "prompt"))
    loaded = epigraph.load(tmp_path / "prompt", toy).predict(list(texts))
    assert [p.label for p in loaded] == list(model.predict(list(texts)))


def test_clone_and_parameters(toy: Base) -> None:
    """A clone once copied the weights, and with them read every text anew: a base never changes, so its copy is itself."""
    model = PromptClassifier(base=toy, length=3, labels={"animal": "beast"}, **FAST)
    again = clone(model)
    assert again is not model
    assert again.get_params() == model.get_params()
    assert again.base is toy
    assert _engine(again.base) is _engine(model.base)
    assert clone(model).set_params(length=5).length == 5


def test_cross_validation_in_a_pipeline(toy: Base, data: tuple[list[str], list[str]]) -> None:
    pipeline = make_pipeline(
        FunctionTransformer(lambda texts: [t.strip() for t in texts]), PromptClassifier(base=toy, **FAST)
    )
    texts, labels = np.array(data[0], dtype=object), np.array(data[1])
    scores = cross_val_score(pipeline, texts, labels, cv=2, error_score="raise")
    assert scores.shape == (2,)
    assert scores.mean() >= 0.8


@pytest.mark.parametrize(
    "kinds",
    [
        (3, 7),
        (True, False),
        (np.int64(-1), np.int64(1)),
        (0.0, 1.0),
        ("tích cực", "消极"),
    ],
    ids=str,
)
def test_labels_come_back_as_they_were_given(toy: Base, data: tuple[list[str], list[str]], kinds: tuple[Any, Any]) -> None:
    given = [kinds[label == "metal"] for label in data[1]]
    model = PromptClassifier(base=toy, **(FAST | {"epochs": 1})).fit(data[0], given)
    found = model.predict(data[0][:6])
    assert found.dtype == np.asarray(given).dtype
    assert set(found.tolist()) <= set(kinds)
    assert 0 <= model.score(data[0], given) <= 1
    assert [p.argmax() for p in model.predict_proba(data[0][:6])] == [list(model.classes_).index(f) for f in found]


def test_rows_of_several_fields_and_data_frames_of_one(toy: Base) -> None:
    rows = [{"premise": f"{i}", "hypothesis": "aa" if i % 2 else "ZZ"} for i in range(24)]
    template = "{premise}\n{hypothesis}{prompt}\nSo:"
    model = PromptClassifier(base=toy, template=template, **(FAST | {"epochs": 1})).fit(rows, [i % 2 for i in range(24)])
    assert model.predict(rows[:3]).shape == (3,)
    column = np.array([["aa"], ["ZZ"]] * 12)
    assert PromptClassifier(base=toy, **(FAST | {"epochs": 1})).fit(column, [0, 1] * 12).predict(column[:2]).shape == (2,)
    with pytest.raises(ValueError, match=r"X has shape \(2, 2\); texts were expected, one a row"):
        PromptClassifier(base=toy).fit([["a", "b"], ["c", "d"]], [0, 1])


def test_a_pickle_does_not_contain_the_base(toy: Base, toy_folder: Path, data: tuple[list[str], list[str]]) -> None:
    weights = sum(p.numel() * p.element_size() for p in toy.model.parameters())
    for base in (str(toy_folder), toy):
        model = PromptClassifier(base=base, **(FAST | {"epochs": 1, "length": 2})).fit(*data)
        content = pickle.dumps(model)
        assert len(content) < weights / 2
        again = pickle.loads(content)
        assert again.base == str(toy_folder)
        np.testing.assert_allclose(again.predict_proba(data[0][:5]), model.predict_proba(data[0][:5]), atol=0.02)


def test_a_base_in_memory_cannot_be_sent_along() -> None:
    """It went into the pickle whole, weights and all."""
    with pytest.raises(NotImplementedError, match=r"lives in memory only.*save_pretrained"):
        pickle.dumps(PromptClassifier(base=toy_base()))


def test_a_matrix_of_labels_and_labels_with_an_order(toy: Base) -> None:
    texts = [f"text {i} {'ab'[i % 2]}" for i in range(24)]
    matrix = np.array([[i % 2, 1 - i % 2, int(i % 3 == 0), 0] for i in range(24)])
    settings: dict[str, Any] = {"base": toy, "epochs": 1, "rate": 0.1}
    sets = PromptClassifier(**settings, labels={0: "b", 1: "a", 2: "third"}).fit(texts, matrix)
    assert sets.predict(texts[:5]).shape == sets.predict_proba(texts[:5]).shape == (5, 4)
    assert set(np.unique(sets.predict(texts))) <= {0, 1}
    assert 0 <= sets.score(texts, matrix) <= 1
    scale = PromptClassifier(**settings, ordinal=True, metric="mae").fit(texts, [1 + i % 4 for i in range(24)])
    assert list(scale.classes_) == [1, 2, 3, 4]
    median = (scale.predict_proba(texts).cumsum(1) < 0.5).sum(1) + 1
    assert list(scale.predict(texts)) == list(median)
