"""README.md of a stored prompt: a model card made from the card, with the front matter that Hugging Face reads.

It repeats what the card says and claims nothing more. It holds no text of the task, which may be private.
"""

import json
from collections.abc import Mapping
from typing import Any

from epigraph.library.card import Card

README = "README.md"


def model_card(card: Card) -> str:
    """The whole page."""
    parts = [
        _front_matter(card),
        f"# {card.name}",
        _what(card),
        _scores(card),
        _cost(card),
        _how_to_load(card),
        _limits(card),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(card: Card) -> str:
    tags = ["epigraph", "prompt-tuning", "soft-prompt", card.kind, *(["peft"] if card.portable else [])]
    lines = [
        f"base_model: {json.dumps(card.base.name)}",
        "library_name: epigraph",
        "tags:",
        *(f"- {json.dumps(t)}" for t in tags),
    ]
    return "\n".join(["---", *lines, "---"])


def _what(card: Card) -> str:
    vectors = " + ".join(str(length) for length in card.lengths)
    what = f"An ensemble of {card.members} soft prompts, which vote," if card.members > 1 else "A soft prompt"
    return (
        f"{what} of kind `{card.kind}` for the frozen language model `{card.base.name}`: {vectors} learned vectors "
        f"({card.trained_parameters:,} trained parameters) that stand {_PLACES[card.place]}. Its weights are unchanged."
    )


_PLACES = {
    "first": "before the input",
    "last": "after the input",
    "both": "before and after the input",
    "template": "where the task's template says",
}


def _scores(card: Card) -> str:
    rows = [_score_row(name, score, card.hard_prompt.get(name)) for name, score in card.scores.items() if _is_score(score)]
    if not rows:
        return ""
    head = ["## Scores", "", "| metric | this prompt (95% interval) | hand-written prompt |", "|---|---|---|"]
    facts = [f"{name}: {card.scores[name]}" for name in ("rows", "split", "majority") if name in card.scores]
    return "\n".join([*head, *rows, *(["", f"Measured on {', '.join(facts)}."] if facts else [])])


def _score_row(name: str, score: Mapping[str, Any], rival: object) -> str:
    return f"| {name} | {_interval(score)} | {_interval(rival) if _is_score(rival) else 'not measured'} |"


def _is_score(score: object) -> bool:
    return isinstance(score, Mapping) and isinstance(score.get("value"), (int, float))


def _interval(score: Any) -> str:
    bounds = [score.get("low"), score.get("high")]
    known = all(isinstance(bound, (int, float)) for bound in bounds)
    return f"{score['value']:.3f}" + (f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if known else "")


def _cost(card: Card) -> str:
    facts = [f"- {name}: {value}" for name, value in card.cost.items() if isinstance(value, (int, float, str))]
    return "\n".join(["## Cost of tuning", "", *facts]) if facts else ""


def _how_to_load(card: Card) -> str:
    page = f"""## How to load

```python
import epigraph

base = epigraph.load_base({card.base.name!r})
model = epigraph.load("path/to/this/folder", base)
```"""
    if not card.portable:
        return page
    return f"""{page}

or with PEFT alone:

```python
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "path/to/this/folder")
```"""


def _limits(card: Card) -> str:
    origin = card.lineage.how or "tuned with epigraph"
    trust = "" if card.base.verified else " This fingerprint was taken on trust when the prompt was imported."
    return f"""## Limits

It works with this base only (fingerprint `{card.base.fingerprint[:12]}…`).{trust} It learned one task from one data set; \
on other data its scores do not hold. Origin: {origin}. Everything known about it is in `card.toml`."""
