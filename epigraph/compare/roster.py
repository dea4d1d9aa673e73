"""Which methods a comparison has: from the names asked for to methods that can be fitted.

``hard-prompt`` stands for every hard prompt that the user wrote, or for the instruction made from column and label names
where there is none. Any kind of soft prompt and any rival can be named.
"""

from collections.abc import Callable, Sequence

from epigraph.compare.asked import CompareConfig
from epigraph.compare.method import Method
from epigraph.compare.trained import Probe, RivalMethod, SoftPrompt
from epigraph.compare.written import FewShot, HardPrompt, NearestFewShot, Optimised, Proposed
from epigraph.errors import ConfigError
from epigraph.methods.rivals import RIVALS
from epigraph.methods.shots import DRAWS
from epigraph.prompts import KINDS
from epigraph.tasks.nearest import nearest
from epigraph.tasks.task import Task

HARD = "hard-prompt"
FIXED: dict[str, Callable[[], Method]] = {
    **{f"few-shot-{draw}": lambda draw=draw: FewShot(draw=draw) for draw in DRAWS},  # type: ignore[misc]
    "few-shot-nearest": NearestFewShot,
    "optimised": Optimised,
    "probe": Probe,
}


def make_methods(config: CompareConfig, task: Task, written: Sequence[tuple[str, str]] = ()) -> list[Method]:
    """The methods in the order asked; ``written`` are the user's hard prompts as (name, text). ConfigError on an unknown."""
    found: list[Method] = []
    for name in config.named:
        if name == HARD:
            found += hard_prompts(task, written)
        elif name in FIXED:
            found.append(FIXED[name]())
        elif name == "dspy":
            found.append(Proposed(model=config.prompt_model, address=config.prompt_address))
        elif name in KINDS:
            found.append(SoftPrompt(kind=name))
        elif name in RIVALS:
            found.append(RivalMethod(rival=name))
        else:
            known = (HARD, *FIXED, "dspy", *KINDS, *RIVALS)
            raise ConfigError(f"method {name!r} is not known.", nearest(name, known) or f"Known are: {', '.join(known)}.")
    return found


def hard_prompts(task: Task, written: Sequence[tuple[str, str]]) -> list[Method]:
    """One method a hard prompt: the user's files, those of the task, or the generated instruction."""
    of_task = [(f"task {n}", text) for n, text in enumerate(task.hard_prompts, 1)]
    mine = [*written, *of_task]
    if not mine or not task.instruction_generated:
        whose = "generated" if task.instruction_generated else "the task's instruction"
        mine = [(whose, task.instruction), *mine]
    return [HardPrompt(name=f"{HARD}:{name}", title=f"hard prompt ({name})", text=text) for name, text in mine]
