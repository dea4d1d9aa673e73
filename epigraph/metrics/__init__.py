"""Scores and their 95% intervals. Everything is 0–1; numpy only, until a score of generated text is asked for.

classification.py   accuracy, macro-F1, calibration error, confusion
generation.py       BLEU, ROUGE-L, exact match
intervals.py        Wilson, bootstrap over rows, over pairs, over rows and seeds; McNemar
"""

from epigraph.metrics.classification import (
    ClassScore,
    Confusion,
    accuracy,
    calibration_metric,
    confusion,
    expected_calibration_error,
    macro_f1,
    macro_f1_metric,
    majority_share,
    per_class,
    right,
    score_classification,
)
from epigraph.metrics.generation import (
    bleu,
    bleu_metric,
    bleu_tokenizer,
    exact_match,
    matches,
    rouge_l,
    rouge_l_rows,
    score_generation,
)
from epigraph.metrics.intervals import (
    Interval,
    Metric,
    bootstrap,
    bootstrap_seeds,
    mcnemar,
    mean_metric,
    paired_bootstrap,
    wilson,
)

LABEL_SCORES = {"accuracy": accuracy, "macro_f1": macro_f1}
"""Scores of labels by the name that a task's metric has: (truth, predicted) → 0–1."""

ANSWER_SCORES = {"bleu": bleu, "rouge_l": rouge_l, "exact_match": exact_match}
"""Scores of generated text by name: (outputs, references) → 0–1."""

__all__ = [
    "ANSWER_SCORES",
    "LABEL_SCORES",
    "ClassScore",
    "Confusion",
    "Interval",
    "Metric",
    "accuracy",
    "bleu",
    "bleu_metric",
    "bleu_tokenizer",
    "bootstrap",
    "bootstrap_seeds",
    "calibration_metric",
    "confusion",
    "exact_match",
    "expected_calibration_error",
    "macro_f1",
    "macro_f1_metric",
    "majority_share",
    "matches",
    "mcnemar",
    "mean_metric",
    "paired_bootstrap",
    "per_class",
    "right",
    "rouge_l",
    "rouge_l_rows",
    "score_classification",
    "score_generation",
    "wilson",
]
