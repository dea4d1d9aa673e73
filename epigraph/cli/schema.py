"""``epigraph schema COMMAND``: the JSON schema of what a command prints with --json."""

from typing import Annotated, Any

import typer

from epigraph.cli.options import JsonFlag, examples
from epigraph.cli.output import print_json
from epigraph.errors import NotFound

EXAMPLES = examples("epigraph schema tune", "epigraph schema library list")
NUMBER = {"type": "number"}
TEXT = {"type": "string"}
INTERVAL = {
    "type": "object",
    "properties": {"value": NUMBER, "low": NUMBER, "high": NUMBER},
    "required": ["value", "low", "high"],
}
METRICS = (
    *("accuracy", "mae", "quadratic_kappa", "micro_f1", "macro_f1", "subset_accuracy", "expected_calibration_error"),
    *("bleu", "rouge_l", "exact_match", "token_f1"),
)
SCORES = {
    "type": "object",
    "properties": dict.fromkeys(METRICS, INTERVAL)
    | {
        "rows": {"type": "integer"},
        "split": {"enum": ["test", "holdout", "validation", "crossval", "train"]},
        "majority": NUMBER,
        "interval": TEXT,
    },
    "required": ["rows", "split"],
}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
    }


_MAP = {"type": "object"}
_TEXTS = {"type": "array", "items": TEXT}
_COUNT = {"type": "integer"}
_COUNTS = {"type": "array", "items": _COUNT}
SCORED = {
    "prompt": TEXT,
    "scores": SCORES,
    "hard_prompt": SCORES,
    "cost": _MAP,
    "settings": _MAP,
    "reasons": {"type": "object", "additionalProperties": TEXT},
}
GAIN = _object(
    {"value": NUMBER, "low": NUMBER, "high": NUMBER, "metric": TEXT, "rows": _COUNT, "split": TEXT, "hard_prompt": TEXT}
)
TUNE = SCORED | {
    "warnings": _TEXTS,
    "verdict": {"enum": ["soft", "hard"]},
    "gain": GAIN,
    "trials": {"type": "array", "items": _MAP},
}
CLASS = {"label": TEXT, "precision": NUMBER, "recall": NUMBER, "f1": NUMBER, "rows": _COUNT}
ENTRY = {"prompt": TEXT, "aliases": _TEXTS, "problem": TEXT}
PROBLEM = {"reference": TEXT, "file": TEXT, "message": TEXT}
PART = {"part": TEXT, "files": _COUNT, "bytes": _COUNT}
_NUMBER_OR_NULL = {"type": ["number", "null"]}
_MEASURED = ("average_accuracy", "backward_transfer", "forgetting", "forward_transfer")
MEASURES = _object(
    {"matrix": {"type": "array", "items": {"type": "array", "items": _NUMBER_OR_NULL}}}
    | dict.fromkeys(_MEASURED, _NUMBER_OR_NULL)
)
SCENARIOS = _object({"known": MEASURES, "inferred": MEASURES, "union": MEASURES})
METHOD = _object(
    {
        "name": TEXT,
        "scores": _MAP,
        "cost": _MAP,
        "settings": _MAP,
        "status": {"enum": ["done", "failed", "cannot run"]},
        "reason": TEXT,
    },
    {"title": TEXT, "reasons": _MAP, "curve": {"type": "array", "items": _MAP}, "forgetting": _MAP},
)
PAIR = _object(
    {"first": TEXT, "second": TEXT, "difference": INTERVAL, "p_bootstrap": NUMBER, "p_holm": NUMBER, "rows": _COUNT}
    | {"training_variance": {"type": "boolean"}},
    {"p_mcnemar": {"type": ["number", "null"]}, "significant": {"type": "boolean"}},
)
DRAFT = _object({"number": _COUNT, "task": TEXT, "text": TEXT, "metric": TEXT, "score": INTERVAL, "rows": _COUNT})
MISTAKE = _object(
    {"line": _COUNT, "fields": _MAP, "truth": TEXT, "answer": TEXT, "loss": _NUMBER_OR_NULL, "suspicion": NUMBER},
    {"probability": NUMBER, "instead": TEXT, "trained": {"type": "boolean"}},
)
MISTAKES = _object({"name": TEXT, "rows": _COUNT, "loss": NUMBER, "members": _COUNTS}, {"words": _TEXTS})
CHANGES = {"rows": _COUNT, "changed": _COUNT, "share": NUMBER}
LABELLED = {"broken": _COUNT, "fixed": _COUNT, "otherwise": _COUNT, "broken_share": NUMBER}
HOLDING = {"where": TEXT, "holds": TEXT, "what": TEXT, "prompt": TEXT, "field": TEXT, "found": TEXT, "bytes": _COUNT}
CAUTION = {"text": TEXT, "about": TEXT, "seriousness": NUMBER}
FIDELITY = {
    "rows": _COUNT,
    "agreement": INTERVAL,
    "kappa": {"anyOf": [INTERVAL, {"type": "null"}]},
    "constant": _object({"answer": TEXT, "agreement": NUMBER, "kappa": NUMBER}),
    "divergence": _NUMBER_OR_NULL,
    "overlap": _NUMBER_OR_NULL,
}
_CAUSES = {"type": "array", "items": _object({"section": TEXT, "reason": TEXT})}
ERROR = _object({"type": TEXT, "message": TEXT, "hint": TEXT})
SCHEMAS = {
    "tune": _object(TUNE),
    "demo": _object(
        TUNE | {"predictions": {"type": "array"}, "set_up_seconds": NUMBER, "demo_seconds": NUMBER}, {"few_shot": _MAP}
    ),
    "evaluate": _object(
        SCORED | {"warnings": _TEXTS},
        {
            "per_class": {"type": "array", "items": _object(CLASS)},
            "confusion": _object({"labels": _TEXTS, "counts": {"type": "array", "items": _COUNTS}}),
        },
    ),
    "predict": _object(
        {"fields": {"type": "object", "additionalProperties": TEXT}},
        {
            "line": _COUNT,
            "label": {"type": ["string", "null"]},
            "labels": _TEXTS,
            "choice": _COUNT,
            "probabilities": {"type": "object", "additionalProperties": NUMBER},
            "output": TEXT,
            "abstained": {"type": "boolean"},
            "prompt": TEXT,
            "route": _object({"task": TEXT, "confidence": NUMBER, "probabilities": _MAP}),
        },
    ),
    "multitask": _object(
        {
            "work": TEXT,
            "kind": TEXT,
            "universal": TEXT,
            "tasks": {
                "type": "array",
                "items": _object(
                    {"task": TEXT, "prompt": TEXT, "metric": TEXT, "scores": SCORES, "plain": SCORES, "hard_prompt": SCORES}
                ),
            },
            "similarity": _object({"tasks": _TEXTS, "cosine": {"type": "array"}, "gain": {"type": ["array", "null"]}}),
            "cost": _MAP,
            "reasons": _MAP,
        }
    ),
    "continual": _object(
        {
            "sequence": TEXT,
            "order": _TEXTS,
            "method": TEXT,
            "scenarios": SCENARIOS,
            "methods": {
                "type": "array",
                "items": _object({"name": TEXT, "scenarios": SCENARIOS, "growth": {"type": "array"}}),
            },
            "zero_shot": {"type": "array", "items": _NUMBER_OR_NULL},
            "labels": _MAP,
            "definitions": _MAP,
            "prompts": _TEXTS,
            "warnings": _TEXTS,
        }
    ),
    "compare": _object(
        {
            "verdict": TEXT,
            "findings": _TEXTS,
            "methods": {"type": "array", "items": METHOD},
            "pairs": {"type": "array", "items": PAIR},
            "metric": TEXT,
            "rows": _object({"train": _COUNT, "test": _COUNT, "split": TEXT}),
            "base": _MAP,
            "settings": _MAP,
            "seconds": NUMBER,
            "warnings": _TEXTS,
        },
        {"folder": TEXT, "report": TEXT},
    ),
    "prompt try": _object(
        {
            "draft": DRAFT,
            "scores": _MAP,
            "wrong": {"type": "array", "items": _MAP},
            "best_before": {"type": ["object", "null"]},
        }
    ),
    "prompt list": _object({"drafts": {"type": "array", "items": DRAFT}}),
    "explain": _object(
        {
            "prompt": TEXT,
            "card": _MAP,
            "warnings": _TEXTS,
            "source": TEXT,
            "rows": _COUNT,
            "split": TEXT,
            "unlabelled": _COUNT,
            "trained_rows": {"type": ["integer", "null"]},
            "sections": _MAP,
            "left_out": _CAUSES,
            "seconds": NUMBER,
        },
        {"cautions": {"type": "array", "items": _object(CAUTION)}, "pruned": TEXT, "report": TEXT},
    ),
    "errors": _object(
        {
            "prompt": TEXT,
            "source": TEXT,
            "rows": _COUNT,
            "wrong": _COUNT,
            "trained_rows": _COUNT,
            "suspected": {"type": ["integer", "null"]},
            "worst": {"type": "array", "items": MISTAKE},
            "pairs": {"type": "array", "items": MISTAKES},
            "similar": {"type": "array", "items": MISTAKES},
            "warnings": _TEXTS,
        },
        {"csv": TEXT, "report": TEXT},
    ),
    "fix": _object(
        {
            "prompt": {"type": ["string", "null"]},
            "parent": TEXT,
            "corrections": _object(
                {
                    "rows": _COUNT,
                    "mastered": _COUNT,
                    "already": _COUNT,
                    "missed": _COUNTS,
                    "given_up": _COUNT,
                    "by_heart": _COUNT,
                }
            ),
            "elsewhere": _object(CHANGES | {"source": TEXT}),
            "expected": _object({"share": NUMBER, "of_all": NUMBER}),
            "loss_elsewhere": NUMBER,
            "step": NUMBER,
            "tried": {"type": "array", "items": _object({"step": NUMBER, "mastered": _COUNT, "changed": _COUNT})},
            "settings": _MAP,
            "cost": _MAP,
            "warnings": _TEXTS,
        },
        {
            "held_out": _object(
                CHANGES | LABELLED | {"before": SCORES, "after": SCORES, "change": INTERVAL, "p_mcnemar": NUMBER}
            ),
            "error": ERROR,
        },
    ),
    "distill": _object(
        {
            "prompt": TEXT,
            "teacher": TEXT,
            **FIDELITY,
            "split": {"enum": ["test", "holdout"]},
            "start": _object(FIDELITY),
            "scores": {"anyOf": [SCORES, {"type": "null"}]},
            "teacher_scores": {"anyOf": [SCORES, {"type": "null"}]},
            "lost": {"type": ["object", "null"]},
            "request": _object({"tokens": _MAP, "seconds": {"type": "object", "additionalProperties": NUMBER}, "how": TEXT}),
            "cost": _MAP,
            "settings": _MAP,
            "reasons": {"type": "object", "additionalProperties": TEXT},
            "warnings": _TEXTS,
        }
    ),
    "library list": _object(
        {"prompts": {"type": "array", "items": _object(ENTRY, {"kind": TEXT, "base": TEXT, "scores": _MAP})}}
    ),
    "library show": _object({"name": TEXT, "version": _COUNT, "base": _MAP, "task": _MAP, "scores": _MAP}),
    "library promote": _object({"prompt": TEXT, "alias": TEXT}),
    "library route": _object({"prompt": TEXT, "tasks": {"type": "object", "additionalProperties": TEXT}}),
    "library remove": _object({"removed": TEXT}),
    "library export": _object({"prompt": TEXT, "folder": TEXT}),
    "library import": _object({"prompt": TEXT}),
    "library rollback": _object({"prompt": TEXT, "to": TEXT, "before": TEXT, "aliases": _TEXTS}, {"alias": TEXT}),
    "library diff": _object(
        {
            "first": TEXT,
            "second": TEXT,
            "card": {"type": "array", "items": _object({"field": TEXT, "first": {}, "second": {}})},
            "similarity": {"type": ["object", "null"]},
        },
        {"not_compared": TEXT}
        | {"answers": _object(CHANGES | {"differs": {"type": "array", "items": _MAP}}, LABELLED | {"p_mcnemar": NUMBER})},
    ),
    "library verify": _object(
        {},
        {
            "problems": {"type": "array", "items": _object(PROBLEM)},
            "error": ERROR,
            "holdings": {"type": "array", "items": _object(HOLDING)},
            "embeds": {"type": "object", "additionalProperties": TEXT},
            "words": {"type": "object", "additionalProperties": TEXT},
            "kinds": {"type": "object", "additionalProperties": TEXT},
        },
    ),
    "cache list": _object({"home": TEXT, "parts": {"type": "array", "items": _object(PART)}}),
    "cache clear": _object({"cleared": _TEXTS, "bytes": _COUNT}),
    "bench tuning": _object({"config": _MAP, "outcomes": _MAP, "summary": _MAP}),
    "serve": _object({}, {"url": TEXT, "base": TEXT, "prompts": _TEXTS, "name": TEXT, "key": TEXT, "file": TEXT}),
    "error": _object({"error": ERROR}),
}


def schema(
    command: Annotated[list[str], typer.Argument(help="tune, evaluate, predict, library list, …, or error")],
    *,
    json: JsonFlag = False,  # noqa: ARG001 (it never prints anything else)
) -> None:
    """Print the JSON schema of what a command prints with --json; predict prints one such object a line."""
    name = " ".join(command)
    if name not in SCHEMAS:
        raise NotFound(f"there is no schema for {name!r}.", f"There are: {', '.join(SCHEMAS)}.")
    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema"} | SCHEMAS[name])
