"""What is shared by tasks before it is tuned, and why it starts there."""

from epigraph.multitask.settings import IN_ONE_PASS
from epigraph.multitask.workshop import Workshop
from epigraph.prompts import SoftPrompt
from epigraph.tuning.start import make_prompt


def first_values(shop: Workshop) -> SoftPrompt:
    """What is shared, before it is tuned."""
    choices = shop.choices[0]
    start, seed = shared_start(shop), choices.loop.seed
    return make_prompt(shop.engine, choices.task, kind=shop.plain_kind, length=shop.length, start=start, seed=seed)


def shared_start(shop: Workshop) -> str:
    """Rows of the vocabulary unless random ones were asked: a text that names one task's labels would not be shared."""
    return "random" if shop.config.tune.start == "random" else "vocab"


def start_reason(shop: Workshop) -> str:
    """What started where, in words."""
    asked = shop.config.tune.start
    if shop.config.kind not in IN_ONE_PASS:
        return f"{asked or 'as tune chooses'}, for the plain prompts, which are combined"
    shared = shared_start(shop)
    why = "" if asked == shared else ", since words of one task would not be shared"
    plain = f"; the plain prompts start from {asked}" if asked not in ("", shared) else ""
    return f"{shared} for what is shared{why}{plain}"
