"""A hard prompt as its author wrote it: words before the row, or a whole template.

    "Which department handles this?"                 before the row, or in the prompt's place if validation prefers that
    "Message: {text}\\nWhich department? Answer:"     a template of its own: the row stands where its fields are named

With or without examples, from a few words to many sentences: what the author wrote is what the base reads.
"""

from collections.abc import Sequence
from dataclasses import replace

from epigraph.engine import Engine
from epigraph.errors import TaskError
from epigraph.methods.choice import Chosen, best_zero_shot
from epigraph.methods.solver import PromptedBase, text_forms
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tasks.template import PROMPT, Template

AS_TEMPLATE = "a template of its own"


def is_template(task: Task, text: str) -> bool:
    """Whether the text names a field of the task, so that the row stands inside it."""
    return any(f"{{{name}}}" in text for name in task.template.fields)


def worded(task: Task) -> dict[str, Task]:
    """The task in its own instruction, and in each of its hard prompts that are words, by what their names end in.

    Hard prompts that are whole templates stand around the row; ``best_wording`` scores them.
    """
    own = {f", own words {n}": text.strip() for n, text in enumerate(task.hard_prompts, 1) if not is_template(task, text)}
    return {"": task} | {name: replace(task, instruction=text) for name, text in own.items() if text}


def best_wording(engine: Engine, task: Task, text: str, validation: Sequence[Row], output_tokens: int) -> Chosen:
    """The hard prompt, placed where it is best on validation. TaskError if it is empty or its fields are not the task's."""
    if not text.strip():
        raise TaskError("a hard prompt is empty.", "Write at least a few words.")
    if is_template(task, text):
        method = template_prompt(engine, task, text, output_tokens)
        return Chosen(name=AS_TEMPLATE, method=method, reason="it says itself where the row stands")
    return best_zero_shot(engine, replace(task, instruction=text.strip()), validation, output_tokens)


def template_prompt(engine: Engine, task: Task, text: str, output_tokens: int) -> PromptedBase:
    """A hard prompt that is a whole template; an empty block in it lets the engine freeze what it can."""
    template = Template("{prompt}" + text.replace(f"{{{PROMPT}}}", ""))
    template.check_fields(tuple(task.columns.fields))
    last = template.placed("last")
    after_field = any(piece.text for piece in last.segments[-1])
    forms = text_forms(engine, "", bos=False)
    return PromptedBase(engine, task, forms, template=last if after_field else template, output_tokens=output_tokens)
