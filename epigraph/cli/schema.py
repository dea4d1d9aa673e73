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
METRICS = ("accuracy", "macro_f1", "expected_calibration_error", "bleu", "rouge_l", "exact_match")
SCORES = {
    "type": "object",
    "properties": dict.fromkeys(METRICS, INTERVAL)
    | {
        "rows": {"type": "integer"},
        "split": {"enum": ["test", "holdout", "validation", "crossval"]},
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
TUNE = SCORED | {"warnings": _TEXTS}
CLASS = {"label": TEXT, "precision": NUMBER, "recall": NUMBER, "f1": NUMBER, "rows": _COUNT}
ENTRY = {"prompt": TEXT, "aliases": _TEXTS, "problem": TEXT}
PROBLEM = {"reference": TEXT, "file": TEXT, "message": TEXT}
PART = {"part": TEXT, "files": _COUNT, "bytes": _COUNT}
ERROR = _object({"type": TEXT, "message": TEXT, "hint": TEXT})
SCHEMAS = {
    "tune": _object(TUNE),
    "demo": _object(TUNE | {"predictions": {"type": "array"}, "demo_seconds": NUMBER}, {"few_shot": _MAP}),
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
            "label": {"type": ["string", "null"]},
            "probabilities": {"type": "object", "additionalProperties": NUMBER},
            "output": TEXT,
            "abstained": {"type": "boolean"},
        },
    ),
    "library list": _object(
        {"prompts": {"type": "array", "items": _object(ENTRY, {"kind": TEXT, "base": TEXT, "scores": _MAP})}}
    ),
    "library show": _object({"name": TEXT, "version": _COUNT, "base": _MAP, "task": _MAP, "scores": _MAP}),
    "library promote": _object({"prompt": TEXT, "alias": TEXT}),
    "library remove": _object({"removed": TEXT}),
    "library export": _object({"prompt": TEXT, "folder": TEXT}),
    "library import": _object({"prompt": TEXT}),
    "library verify": _object({"problems": {"type": "array", "items": _object(PROBLEM)}}, {"error": ERROR}),
    "cache list": _object({"home": TEXT, "parts": {"type": "array", "items": _object(PART)}}),
    "cache clear": _object({"cleared": _TEXTS, "bytes": _COUNT}),
    "bench tuning": _object({"config": _MAP, "outcomes": _MAP, "summary": _MAP}),
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
