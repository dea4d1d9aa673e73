"""A hard prompt with its examples, as the text that a model reads before every row: for a base here, or for an address.

[words] [example 1] … [example k] [row] [cue]        or a template of its author's, in which the row stands where it says
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from epigraph.engine import Engine
from epigraph.errors import ConfigError, TaskError
from epigraph.methods.hard import GAP, draw_examples, few_shot, instruction_first, shown_example
from epigraph.methods.solver import PromptedBase
from epigraph.methods.wording import is_template, template_prompt
from epigraph.tasks.encode import answer_text, render
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tasks.template import PROMPT, Template

ROOM = 16  # tokens that must be left for a text


@dataclass(frozen=True, kw_only=True)
class HardPrompt:
    """Words and examples of one task. TaskError where there are neither, ConfigError for examples beside a template."""

    task: Task
    text: str
    examples: Sequence[Row] = ()

    def __post_init__(self) -> None:
        if not self.text.strip() and not self.examples:
            raise TaskError("the hard prompt is empty.", "Write at least a few words, or ask for examples with --shots.")
        if self.is_template and self.examples:
            raise ConfigError(
                f"the hard prompt says itself where the text stands, and {len(self.examples)} examples were asked for.",
                "Write the examples into it, or leave --shots out.",
            )

    @property
    def is_template(self) -> bool:
        """Whether it says itself where the row stands."""
        return is_template(self.task, self.text)

    @property
    def worded(self) -> Task:
        """The task with these words as its instruction."""
        return replace(self.task, instruction=self.text.strip()) if self.text.strip() else self.task

    @property
    def before(self) -> str:
        """What is read before every row; of a template all of it, with nothing in its fields."""
        if self.is_template:
            return render(self._pieces.segments[-1], dict.fromkeys(self._pieces.fields, ""))
        shown = ["".join(shown_example(self.task, row)) for row in self.examples]
        return GAP.join([self.worded.instruction, *shown]) + GAP

    @property
    def _pieces(self) -> Template:
        """The whole as a template whose prompt block, at its beginning, is empty."""
        own = Template("{prompt}" + self.text.replace(f"{{{PROMPT}}}", ""))
        own.check_fields(tuple(self.task.columns.fields))
        return own

    def ask(self, row: Row) -> str:
        """The text that is sent where a model answers at an address."""
        if self.is_template:
            return render(self._pieces.segments[-1], row.fields)
        return self.before + render(self.task.template.placed("first").segments[-1], row.fields)

    def say(self, words: str) -> str:
        """How an answer follows that text."""
        return answer_text(self._pieces if self.is_template else self.task.template.placed("first"), words)

    def on(self, engine: Engine, output_tokens: int) -> PromptedBase:
        """The same on a base. TaskError where it leaves no room for a text."""
        base = engine.base
        tokens = len(base.tokenize(self.before)) + output_tokens
        if tokens + ROOM > base.context:
            raise TaskError(
                f"the hard prompt takes {tokens} tokens with its answer, but {base.name} reads {base.context} in all.",
                "Shorten it, ask for fewer --shots, or choose a base with a longer context.",
            )
        if self.is_template:
            return template_prompt(engine, self.task, self.text, output_tokens)
        if self.examples:
            return few_shot(engine, self.worded, self.examples, output_tokens)
        return instruction_first(engine, self.worded, output_tokens)


def draw(engine: Engine, task: Task, rows: Sequence[Row], shots: int, seed: int) -> list[Row]:
    """``shots`` labelled rows, labels in turn, as many as fit into half of the base's context."""
    labelled = [row for row in rows if row.target is not None]
    return draw_examples(engine, task, labelled, seed=seed, shots=shots) if shots else []
