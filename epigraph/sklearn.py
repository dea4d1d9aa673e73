"""A prompt as a scikit-learn classifier: fit, predict, predict_proba, score; in a Pipeline, in cross_val_score.

    PromptClassifier().fit(texts, labels).predict(["my card was swallowed"])

One engine a base is shared by all classifiers of a process, so the folds of a cross-validation read each text once.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from epigraph.base import Base, load_base
from epigraph.config import TuneConfig
from epigraph.engine import Engine
from epigraph.errors import DataError, Unsupported
from epigraph.library import StoredPrompt
from epigraph.model import PromptModel
from epigraph.tasks.cells import cell_text
from epigraph.tasks.task import Task
from epigraph.tuning import tune


class PromptClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Tunes a soft prompt on texts and labels.

    ``base`` is a ``Base``, a folder or a name. The other parameters are those of ``TuneConfig``; ``labels`` maps labels to
    the words the base says for them. X is a sequence, array or data frame of texts, or a sequence of mappings from field
    names to texts; y a sequence or array of labels of any type, or a matrix of 0 and 1 with a column a label, where a text
    may have several. ``ordinal`` says that labels have an order: that of their numbers, or of ``labels``.
    """

    def __init__(
        self,
        *,
        base: Any = "default",
        kind: str = "",
        length: int | None = None,
        place: str = "",
        start: str = "",
        epochs: int | None = None,
        rate: float | None = None,
        batch: int | None = None,
        seed: int = 0,
        validation: float | None = None,
        budget: str = "",
        template: str | None = None,
        instruction: str | None = None,
        labels: dict[Any, str] | None = None,
        ordinal: bool = False,
        metric: str | None = None,
        calibrate: str = "",
    ) -> None:
        self.base = base
        self.kind = kind
        self.length = length
        self.place = place
        self.start = start
        self.epochs = epochs
        self.rate = rate
        self.batch = batch
        self.seed = seed
        self.validation = validation
        self.budget = budget
        self.template = template
        self.instruction = instruction
        self.labels = labels
        self.ordinal = ordinal
        self.metric = metric
        self.calibrate = calibrate

    def fit(self, X: Any, y: Any) -> "PromptClassifier":
        """Tune on all rows but those kept for validation."""
        targets = y if isinstance(y, list) and not _is_matrix(y) else np.asarray(y)
        self.multilabel_ = _is_matrix(targets)
        self.classes_ = np.arange(np.shape(targets)[1]) if self.multilabel_ else np.unique(np.asarray(targets))
        words = {str(cell_text(label)): text for label, text in (self.labels or {}).items()}
        task = Task.from_rows(
            _rows(X),
            [list(np.flatnonzero(row)) for row in targets] if self.multilabel_ else list(targets),
            kind="multilabel" if self.multilabel_ else "ordinal" if self.ordinal else "classification",
            template=self.template,
            instruction=self.instruction,
            words=words or None,
            metric=self.metric,
        )
        config = TuneConfig(
            kind=self.kind,
            length=self.length,
            place=self.place,
            start=self.start,
            epochs=self.epochs,
            rate=self.rate,
            batch=self.batch,
            seed=self.seed,
            validation=self.validation,
            budget=self.budget,
            holdout=0.0,
            calibrate=self.calibrate,
        )
        engine = _engine(self.base)
        result = tune(engine.base, task, config, engine=engine)
        self.prompt_ = result.prompt.stored
        self.reasons_ = dict(result.reasons)
        self._model = result.model
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The label of every row; a matrix of 0 and 1 where a text may have several."""
        check_is_fitted(self, "prompt_")
        found = self._ready().predict(_rows(X))
        names = self._names()
        if self.multilabel_:
            return np.array([[int(name in (p.labels or ())) for name in names] for p in found])
        place = {name: i for i, name in enumerate(names)}
        answers: np.ndarray = self.classes_[[place[p.label or ""] for p in found]]
        return answers

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities in the order of ``classes_``, each by itself where a text may have several labels."""
        check_is_fitted(self, "prompt_")
        found = self._ready().predict(_rows(X))
        never = 0.0  # a column of nothing but 0 is no label of the task
        return np.array([[(p.probabilities or {}).get(name, never) for name in self._names()] for p in found])

    def _names(self) -> list[str]:
        return [str(cell_text(label)) for label in self.classes_]

    def _ready(self) -> PromptModel:
        if getattr(self, "_model", None) is None:
            engine = _engine(self.base)
            self._model = PromptModel(self.prompt_, engine.base, engine=engine)
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        """Without the base: a classifier that is stored or sent elsewhere loads it again. Unsupported if it cannot."""
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_model", None)
        if isinstance(self.base, Base):
            if self.base.path is None:
                raise Unsupported(
                    f"base {self.base.name} lives in memory only, so the classifier cannot be stored or sent without it.",
                    "Save the model and its tokenizer with save_pretrained, and give that folder as base.",
                )
            state["base"] = str(self.base.path)
        return state

    def save(self, folder: str) -> None:
        """Write the prompt as a folder that ``epigraph.load`` reads."""
        from pathlib import Path

        from epigraph.library import write_prompt

        check_is_fitted(self, "prompt_")
        stored: StoredPrompt = self.prompt_
        write_prompt(Path(folder), stored.forms, stored.card)


def _is_matrix(y: Any) -> bool:
    """Whether y is a matrix of 0 and 1 with several columns."""
    try:
        found = np.asarray(y)
    except ValueError:  # rows of different lengths
        return False
    return found.ndim == 2 and found.shape[1] > 1 and bool(np.isin(found, (0, 1)).all())


def _rows(X: Any) -> list[Any]:
    """Texts or mappings; a column of a data frame or an array of one column is taken as texts."""
    if hasattr(X, "to_dict") and hasattr(X, "columns"):
        return [{str(k): str(v) for k, v in record.items()} for record in X.to_dict("records")]
    values = np.asarray(X, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(
            f"X has shape {values.shape}; texts were expected, one a row.", "Give a list of strings or of mappings."
        )
    return [value if isinstance(value, dict) else str(value) for value in values]


def _engine(base: Any) -> Engine:
    return _engine_of(base) if isinstance(base, Base) else _engine_named(str(base))


@lru_cache(maxsize=1)
def _engine_named(name: str) -> Engine:
    return Engine(load_base(name))


@lru_cache(maxsize=4)
def _engine_of(base: Base) -> Engine:
    return Engine(base)
