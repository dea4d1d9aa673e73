"""The work under way: the base, the tasks with what was chosen for them, and the tunings of one task, kept on disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from epigraph.config import TuneConfig
from epigraph.engine import Engine
from epigraph.library import StoredPrompt, read_prompt, write_prompt
from epigraph.methods import PromptedBase
from epigraph.multitask.settings import MultitaskConfig
from epigraph.prompts import AnyForm, Dependent, Form
from epigraph.tasks.task import Task
from epigraph.tuning import Surroundings, tune
from epigraph.tuning.choices import Choices
from epigraph.tuning.data import Parts
from epigraph.tuning.loop import Listener
from epigraph.tuning.run import Run
from epigraph.tuning.surroundings import Stage


@dataclass(kw_only=True)
class Workshop:
    """The work under way."""

    engine: Engine
    folder: Path
    config: MultitaskConfig
    tasks: list[Task]
    choices: list[Choices]
    parts: list[Parts]
    sources: list[str]
    listener: Listener = lambda _moment: None
    show: Stage = lambda _name, _done, _total: None
    note: Callable[[str], None] = lambda _text: None
    plain: list[StoredPrompt] = field(default_factory=list)

    @property
    def plain_kind(self) -> str:
        """The kind of the plain prompts, and of what starts from them."""
        return self.config.form

    @property
    def length(self) -> int:
        """Of all prompts: what is averaged, mixed and started from has one shape."""
        return max(choices.length for choices in self.choices)

    @property
    def single(self) -> TuneConfig:
        """How every prompt of one task is tuned: a soft prompt, whatever a hard one reaches."""
        return replace(self.config.tune, kind=self.plain_kind, length=self.length, keep="soft")

    def tuned(self, part: str, t: int, task: Task, config: TuneConfig, **around: Any) -> StoredPrompt:
        """A tuning kept in the work folder: read if it is finished, gone on with if it was interrupted."""
        home = self.folder / part / f"{t}-{task.name}"
        if (home / "prompt" / "card.toml").is_file():
            return read_prompt(home / "prompt")
        runs = home / "runs"
        begun = sorted(p for p in runs.glob("*") if (p / "run.toml").is_file() and not (p / "stored").exists())
        surroundings = Surroundings(
            runs=runs,
            resume=begun[-1] if begun else None,
            listener=self.listener,
            stage=self.show,
            note=self.note,
            source=(self.sources[t], "", ""),
            **around,
        )
        result = tune(self.engine.base, task, config.single, name=task.name, engine=self.engine, around=surroundings)
        stored = result.prompt.stored
        write_prompt(home / "prompt", stored.forms, stored.card)
        metrics = result.prompt.metrics_file
        if metrics is not None:
            Run(metrics.parent).finish(str(home / "prompt"))
        return stored

    def solver(self, t: int, forms: Sequence[AnyForm]) -> PromptedBase:
        """Task ``t`` solved with these forms."""
        tokens = int(self.plain[t].card.settings.get("output_tokens", 1))
        return PromptedBase(self.engine, self.choices[t].task, forms, output_tokens=tokens)


def plain_forms(forms: Sequence[AnyForm]) -> list[Form]:
    """Those that are the same for every input."""
    return [form for form in forms if not isinstance(form, Dependent)]
