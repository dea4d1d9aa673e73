"""Scores and cards of prompts that were tuned together: measured as they are served, each number its own."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from epigraph.evaluation import Scores, evaluate
from epigraph.library import Card, Lineage, StoredPrompt
from epigraph.methods.calibration import calibrate
from epigraph.model import PromptModel, facts
from epigraph.multitask.joint import Joint
from epigraph.multitask.settings import IN_ONE_PASS
from epigraph.multitask.start import shared_start, start_reason
from epigraph.multitask.workshop import Workshop
from epigraph.prompts import AnyForm, Form, kept_numbers
from epigraph.prompts.packed import pack
from epigraph.tuning.finish import MATCHED_ROWS

OF_ITS_TUNING = (
    "rate",
    "epochs",
    "batch",
    "start",
    "stop",
    "trials",
    "winner",
    "left_out",
    "validation",
    "verdict",
    "compiled",
)
"""Reasons of a plain prompt that say nothing of one tuned with others."""


def score(shop: Workshop, t: int, stored: StoredPrompt) -> Scores:
    """As it will be served: with the task, the threshold and the calibration of its card."""
    shop.show("scoring", t, len(shop.tasks))
    part, served = shop.parts[t], PromptModel(stored, shop.engine.base, engine=shop.engine).method
    return evaluate(served, list(part.final), split=part.split, seed=shop.config.tune.seed)


def joined_prompt(shop: Workshop, t: int, forms: Sequence[AnyForm], joint: Joint, trained: int) -> StoredPrompt:
    """A prompt of the joint tuning: task and scores of the hard prompt as the plain one's, costs and settings its own."""
    plain, kept = shop.plain[t].card, kept_numbers(forms)
    size = {"trained_parameters": trained, "kept_parameters": kept, "kept_bytes": 4 * kept}
    settings = {**plain.settings, **vars(joint.settings), "start": shared_start(shop), "trials": 1}
    settings |= {"distil": shop.config.distil, "factor_rate": shop.config.factor_rate}
    calibration = _calibration(shop, t, forms)
    card = replace(
        plain,
        kind="multitask",
        trained_parameters=trained,
        cost={**joint.took, **size, "added_tokens": sum(form.length for form in forms)},
        settings={**settings, "calibration": calibration} if calibration else settings,
        reasons={name: why for name, why in plain.reasons.items() if name not in OF_ITS_TUNING} | reasons_of(shop),
        files={},
    )
    return StoredPrompt(card=card, forms=list(forms))


def _calibration(shop: Workshop, t: int, forms: Sequence[AnyForm]) -> dict[str, Any]:
    """The shift that was asked, matched on the texts that were tuned on; empty where none was."""
    how, part = shop.config.tune.calibrate, shop.parts[t]
    if not how:
        return {}
    shift = calibrate(shop.solver(t, forms), how, [*part.train, *part.validation][:MATCHED_ROWS]).shift
    return shift.to_dict() if shift is not None else {}


def final_card(shop: Workshop, t: int, card: Card, scores: Scores, start: str) -> Card:
    """The card as it is stored: what was measured, and what it was tuned with."""
    kind = shop.config.kind
    others = ", ".join(task.name for k, task in enumerate(shop.tasks) if k != t)
    return replace(
        card,
        scores=scores.json,
        settings={**card.settings, "together": kind},
        lineage=Lineage(parents=(start,) if start else (), how=f"tuned together with {others} ({kind})"),
        files={},
    )


def universal_card(shop: Workshop, name: str, forms: Sequence[Form]) -> Card:
    """The card of the prompt that new tasks start from, which is of no task."""
    names = ", ".join(task.name for task in shop.tasks)
    plain = shop.plain[0].card
    return Card(
        name=name,
        kind=shop.config.kind if shop.config.kind == "multitask" else shop.plain_kind,
        place=plain.place,
        trained_parameters=sum(pack(form).numel() for form in forms),
        base=facts(shop.engine.base),
        settings={
            "together": shop.config.kind,
            "tasks": [task.name for task in shop.tasks],
            "start": shared_start(shop) if shop.config.kind in IN_ONE_PASS else str(plain.settings.get("start", "")),
        },
        reasons={"task": "none: new tasks start from it, with --from"},
        lineage=Lineage(how=f"shared by {names} ({shop.config.kind})"),
    )


def reasons_of(shop: Workshop) -> dict[str, str]:
    """Why the work was done as it was."""
    rate = max(choices.loop.rate for choices in shop.choices)
    return {
        "plain": "every task's plain prompt was tuned with the same settings: it is what the others must beat",
        "rate": f"{rate:.3g} for what is shared: the largest that a task would have alone",
        "length": f"{shop.length} vectors a block for every task: the most that one of them would have alone",
        "start": start_reason(shop),
        "steps": "each step draws 2 or more of the tasks at random; one pass serves all that are drawn",
    }
