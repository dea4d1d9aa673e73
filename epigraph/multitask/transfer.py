"""Which task helps which: each is tuned on a few rows from every other one's plain prompt, beside its own text start."""

from collections.abc import Sequence
from dataclasses import replace

from epigraph.errors import Unsupported
from epigraph.evaluation import Scores, evaluate
from epigraph.library import StoredPrompt
from epigraph.methods.judge import references_of
from epigraph.metrics import upward
from epigraph.metrics.paired import resample, row_metric, seeded_difference
from epigraph.model import PromptModel
from epigraph.multitask.folder import TRANSFER
from epigraph.multitask.similarity import Gains
from epigraph.multitask.workshop import Workshop, plain_forms
from epigraph.tasks.row import Row, Split
from epigraph.tasks.split import head

MOST_TRANSFER_TESTS = 100


def measure_gains(shop: Workshop) -> Gains:
    """Score of each task tuned on a few rows from each other task's prompt, less that from its own text start."""
    few = shop.config.transfer
    gains = Gains.none(len(shop.tasks))
    for j, task in enumerate(shop.tasks):
        rows = tuple(head(shop.parts[j].train, few, seed=shop.config.tune.seed))
        tests = tuple(head(shop.parts[j].final, MOST_TRANSFER_TESTS, seed=0))
        small = replace(task, train=Split(rows=rows), test=Split(rows=tests))
        config = shop.single
        own = _score_on(shop, shop.tuned(f"{TRANSFER}/text", j, small, config), tests)
        for i, stored in enumerate(shop.plain):
            if i == j:
                continue
            shop.note(f"transfer from {shop.tasks[i].name} to {task.name}, {len(rows)} rows")
            forms = plain_forms(stored.forms)
            moved = replace(config, start="prompt:source")
            found = shop.tuned(f"{TRANSFER}/{shop.tasks[i].name}", j, small, moved, forms_of=lambda _name, f=forms: f)
            gains.put(i, j, _difference(task.metric, tests, own, _score_on(shop, found, tests)))
    return gains


def _score_on(shop: Workshop, stored: StoredPrompt, rows: Sequence[Row]) -> Scores:
    return evaluate(PromptModel(stored, shop.engine.base, engine=shop.engine).method, rows, split="test")


def _difference(metric: str, rows: Sequence[Row], first: Scores, second: Scores) -> tuple[float, float | None, float | None]:
    """second − first on the same rows, higher is better, with its paired interval where the metric can be resampled."""
    try:
        draws = [
            resample([row_metric(metric, one.truth, one.predicted, references_of(rows))], len(rows))
            for one in (first, second)
        ]
    except Unsupported:
        return upward(metric, second.value(metric)) - upward(metric, first.value(metric)), None, None
    found = seeded_difference(*draws)
    return found.value, found.low, found.high
