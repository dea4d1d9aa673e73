"""The whole path, from tasks to stored prompts.

    each task's plain prompt (baseline, teacher, source) → together → each task's prompt beside its plain one → library

Every baseline is tuned by the same ``tune`` with the same settings.
"""

from epigraph.cost import Meter
from epigraph.library import Library
from epigraph.multitask.cards import final_card, reasons_of, score, universal_card
from epigraph.multitask.folder import FINISHED, PLAIN, mark, store
from epigraph.multitask.kinds import KINDS_OF_WORK
from epigraph.multitask.results import MultitaskResult, TaskResult
from epigraph.multitask.similarity import agreement, cosines
from epigraph.multitask.transfer import measure_gains
from epigraph.multitask.workshop import Workshop, plain_forms


def work(shop: Workshop, library: Library, name: str) -> MultitaskResult:
    """From tasks to stored prompts."""
    meter, config = Meter(), shop.config
    for t, task in enumerate(shop.tasks):
        shop.note(f"plain prompt of {task.name}: baseline, teacher and source")
        shop.plain.append(shop.tuned(PLAIN, t, task, shop.single))
    start, made, trained = KINDS_OF_WORK[config.kind](shop)
    scored = [score(shop, t, own) for t, own in enumerate(made)]
    similar = cosines([plain_forms(stored.forms) for stored in shop.plain])
    gains = measure_gains(shop) if config.transfer else None
    reference = store(shop.folder, library, name, start, universal_card(shop, name, start)) if start else ""
    results = []
    for t, (own, scores) in enumerate(zip(made, scored, strict=True)):
        written = store(
            shop.folder, library, shop.tasks[t].name, own.forms, final_card(shop, t, own.card, scores, reference)
        )
        plain = shop.plain[t].card
        results.append(
            TaskResult(
                name=shop.tasks[t].name,
                prompt=written,
                metric=shop.tasks[t].metric,
                scores=scores.json,
                plain=plain.scores,
                hard=plain.hard_prompt,
            )
        )
    mark(shop.folder / FINISHED, {"prompts": [one.prompt for one in results]})
    return MultitaskResult(
        folder=shop.folder,
        kind=config.kind,
        universal=reference,
        tasks=results,
        similarity=similar,
        gains=gains,
        agreement=agreement(similar, gains.value) if gains else None,
        cost={
            "seconds": round(meter.seconds, 1),
            "trained_parameters": trained,
            "flops": shop.engine.flops,
            **meter.energy(),
        },
        reasons={"dtype": shop.engine.base.precision.reason, **reasons_of(shop)},
    )
