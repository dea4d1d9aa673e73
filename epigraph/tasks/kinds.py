"""The kinds of task, and what the code asks of a kind instead of comparing its name.

    classification   one of a fixed set of labels                     ordinal      the same, and the labels have an order
    choice           one of the row's own choices                     multilabel   any number of a fixed set of labels
    generation       a text

``KINDS_OF_TASK`` is the only list; loss, answers and scores of a kind are looked up by its name in the registries of
``methods/judge.py``, ``methods/rivals/objective.py`` and ``tuning/objective.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["classification", "generation", "choice", "multilabel", "ordinal"]


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """What differs between kinds before a base is there."""

    answer: str
    """What a row's answer is called: "missing label"."""
    cue: str
    """The words before the answer in the default template."""
    metrics: tuple[str, ...]
    """The metrics that a task of this kind can be tuned for."""
    field: str = "text"
    """How the only field is called."""
    knows_labels: bool = True
    """Whether answers are made of labels known beforehand (one, or several)."""
    one_label: bool = True
    """Whether an answer is exactly one of these labels."""
    writes: bool = False
    """Whether an answer is a text to be written."""


KINDS_OF_TASK: Mapping[Kind, TaskKind] = {
    "classification": TaskKind(answer="label", cue="Label", metrics=("accuracy", "macro_f1")),
    "generation": TaskKind(
        answer="output",
        cue="Output",
        metrics=("bleu", "exact_match", "rouge_l", "token_f1"),
        field="input",
        knows_labels=False,
        one_label=False,
        writes=True,
    ),
    "choice": TaskKind(
        answer="answer", cue="Answer", metrics=("accuracy",), field="question", knows_labels=False, one_label=False
    ),
    "multilabel": TaskKind(
        answer="labels", cue="Labels", metrics=("micro_f1", "macro_f1", "subset_accuracy"), one_label=False
    ),
    "ordinal": TaskKind(answer="label", cue="Label", metrics=("accuracy", "mae", "macro_f1", "quadratic_kappa")),
}
