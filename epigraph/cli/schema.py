"""``epigraph schema COMMAND``: the JSON schema of what a command prints with --json."""

from typing import Annotated, Any

import typer

from epigraph.cli.output import print_json
from epigraph.errors import NotFound

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
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
    }


_MAP = {"type": "object"}
_TEXTS = {"type": "array", "items": TEXT}
TUNE = {
    "prompt": TEXT,
    "scores": SCORES,
    "hard_prompt": SCORES,
    "cost": _MAP,
    "settings": _MAP,
    "reasons": {"type": "object", "additionalProperties": TEXT},
    "warnings": _TEXTS,
}
SCHEMAS = {
    "tune": _object(TUNE),
    "demo": _object(TUNE | {"predictions": {"type": "array"}, "demo_seconds": NUMBER}, {"few_shot": _MAP}),
    "evaluate": _object({"prompt": TEXT, "scores": SCORES}, {"per_class": {"type": "array"}, "confusion": _MAP}),
    "predict": _object(
        {"fields": {"type": "object", "additionalProperties": TEXT}},
        {
            "label": {"type": ["string", "null"]},
            "probabilities": {"type": "object", "additionalProperties": NUMBER},
            "output": TEXT,
        },
    ),
    "library list": _object({"prompts": {"type": "array", "items": _MAP}}),
    "library show": _object({"name": TEXT, "version": {"type": "integer"}, "base": _MAP, "task": _MAP, "scores": _MAP}),
    "library verify": _object({"problems": {"type": "array", "items": _MAP}}),
    "cache list": _object({"home": TEXT, "parts": {"type": "array", "items": _MAP}}),
    "error": _object({"error": _object({"type": TEXT, "message": TEXT, "hint": TEXT})}),
}


def schema(command: Annotated[list[str], typer.Argument(help="tune, evaluate, predict, library list, …")]) -> None:
    """Print the JSON schema of a command's --json output."""
    name = " ".join(command)
    if name not in SCHEMAS:
        raise NotFound(f"there is no schema for {name!r}.", f"There are: {', '.join(SCHEMAS)}.")
    print_json(SCHEMAS[name])
