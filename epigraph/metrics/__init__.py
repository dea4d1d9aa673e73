"""Scores and their 95% intervals; numpy only, until a score of generated text is asked for.

Everything is 0–1 but the mean absolute error, which is in ranks, and kappa, which is −1 to 1.

classification.py   accuracy, macro-F1, calibration error, confusion
ordinal.py          mean absolute error, quadratic weighted kappa
agreement.py        two answerers: agreement, Cohen's kappa
label_sets.py       micro-F1, macro-F1, subset accuracy
generation.py       BLEU, ROUGE-L, exact match, token F1
intervals.py        Wilson, bootstrap over rows, over pairs, over rows and seeds; McNemar
"""

from epigraph.metrics.agreement import agreement, chance_corrected, kappa
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
    token_f1,
    token_f1_rows,
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
from epigraph.metrics.label_sets import (
    best_threshold,
    exact_metric,
    exact_rows,
    macro_set_f1,
    micro_f1,
    per_label,
    score_sets,
    set_marks,
    set_value,
    sets_metric,
    subset_accuracy,
)
from epigraph.metrics.ordinal import mean_absolute_error, quadratic_kappa, ranks, score_ordinal

LABEL_SCORES = {"accuracy": accuracy, "macro_f1": macro_f1}
"""Scores of labels by the name that a task's metric has: (truth, predicted) → 0–1."""

RANK_SCORES = {"mae": mean_absolute_error, "quadratic_kappa": quadratic_kappa}
"""Scores of labels with an order by name: (truth, predicted, labels from lowest to highest)."""

SET_SCORES = {"micro_f1": micro_f1, "macro_f1": macro_set_f1, "subset_accuracy": subset_accuracy}
"""Scores of sets of labels by name: (truth, predicted) → 0–1."""

ANSWER_SCORES = {"bleu": bleu, "rouge_l": rouge_l, "exact_match": exact_match, "token_f1": token_f1}
"""Scores of generated text by name: (outputs, references) → 0–1."""

LOWER_IS_BETTER = frozenset({"mae", "expected_calibration_error"})


def upward(metric: str, value: float) -> float:
    """The value turned so that higher is better, and back again: what choices by a metric compare."""
    return -value if metric in LOWER_IS_BETTER else value


__all__ = [
    "ANSWER_SCORES",
    "LABEL_SCORES",
    "LOWER_IS_BETTER",
    "RANK_SCORES",
    "SET_SCORES",
    "ClassScore",
    "Confusion",
    "Interval",
    "Metric",
    "accuracy",
    "agreement",
    "best_threshold",
    "bleu",
    "bleu_metric",
    "bleu_tokenizer",
    "bootstrap",
    "bootstrap_seeds",
    "calibration_metric",
    "chance_corrected",
    "confusion",
    "exact_match",
    "exact_metric",
    "exact_rows",
    "expected_calibration_error",
    "kappa",
    "macro_f1",
    "macro_f1_metric",
    "macro_set_f1",
    "majority_share",
    "matches",
    "mcnemar",
    "mean_absolute_error",
    "mean_metric",
    "micro_f1",
    "paired_bootstrap",
    "per_class",
    "per_label",
    "quadratic_kappa",
    "ranks",
    "right",
    "rouge_l",
    "rouge_l_rows",
    "score_classification",
    "score_generation",
    "score_ordinal",
    "score_sets",
    "set_marks",
    "set_value",
    "sets_metric",
    "subset_accuracy",
    "token_f1",
    "token_f1_rows",
    "upward",
    "wilson",
]
