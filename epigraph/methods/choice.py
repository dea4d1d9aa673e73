"""Which of several hard prompts is the best on a few validation rows: the fair opponent of a tuned prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from epigraph.engine import Engine
from epigraph.methods import judge
from epigraph.methods.hard import draw_examples, few_shot, fits, instruction_first, instruction_in_place
from epigraph.methods.solver import PromptedBase, Scorable
from epigraph.methods.threshold import with_best_threshold
from epigraph.metrics import upward
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

ZERO_SHOT = {
    "zero-shot, instruction in the prompt's place": instruction_in_place,
    "zero-shot, instruction first": instruction_first,
}
CHOOSING_ROWS = 64
LONGEST_IN_PLACE = 48  # tokens
DRAWS = 3


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The best candidate and why."""

    name: str
    method: PromptedBase
    reason: str


def best_zero_shot(engine: Engine, task: Task, validation: Sequence[Row], output_tokens: int) -> Chosen:
    """The instruction before the row or, if it is short, in the prompt's place, where every row pays for it anew."""
    builders = zero_shots(engine, task)
    return _best({name: build(engine, task, output_tokens) for name, build in builders.items()}, validation)


def zero_shots(engine: Engine, task: Task) -> dict[str, Callable[[Engine, Task, int], PromptedBase]]:
    """The ways to write the instruction that are worth a try: in the prompt's place only if it is short."""
    long = len(engine.base.tokenize(task.instruction)) > LONGEST_IN_PLACE
    return {name: build for name, build in ZERO_SHOT.items() if not (long and build is instruction_in_place)}


def best_few_shot(
    engine: Engine, task: Task, train: Sequence[Row], validation: Sequence[Row], output_tokens: int, *, seed: int = 0
) -> Chosen | None:
    """The best of three draws of examples; None where not even one example fits beside a row."""
    candidates = {}
    for draw in range(DRAWS):
        examples = draw_examples(engine, task, train, seed=seed + draw)
        if examples and fits(engine, task, examples, output_tokens):
            name = f"{len(examples)}-shot, draw {draw + 1} of {DRAWS}"
            candidates[name] = few_shot(engine, task, examples, output_tokens)
    return _best(candidates, validation) if candidates else None


def _best(candidates: dict[str, PromptedBase], validation: Sequence[Row]) -> Chosen:
    rows = list(validation)[:CHOOSING_ROWS]
    candidates = {name: with_best_threshold(method, rows) for name, method in candidates.items()}
    scores = {name: quick_score(method, rows) for name, method in candidates.items()}
    name = max(scores, key=lambda n: scores[n])
    metric = candidates[name].task.metric
    tried = ", ".join(f"{n}: {upward(metric, s):.3f}" for n, s in scores.items())
    return Chosen(name=name, method=candidates[name], reason=f"best on {len(rows)} validation rows ({tried})")


def quick_score(method: Scorable, rows: Sequence[Row]) -> float:
    """The task's metric, without an interval, turned so that higher is better."""
    return judge.value(method.task, rows, judge.answer(method, rows).given)
