"""A task: what to learn, from what text, in what words, judged how.

    file | TOML | folder ─► Definition ─► Table ─► Columns ─► rows, labels, words, metric ─► Task

What the user leaves open is derived from the training rows; ``reasons`` says why it came out so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from epigraph.errors import TaskError
from epigraph.tasks.balance import METRICS, choose_metric, count_labels, skew_reason, weigh
from epigraph.tasks.cells import cell_text
from epigraph.tasks.columns import Columns, Kind, detect_columns, fit_columns
from epigraph.tasks.definition import Definition, check_kind, read_definition
from epigraph.tasks.nearest import nearest
from epigraph.tasks.row import Split
from epigraph.tasks.rows import make_rows
from epigraph.tasks.sources import read_table
from epigraph.tasks.table import Table, columns_of
from epigraph.tasks.template import Template
from epigraph.tasks.verbalizer import check_labels, check_words, make_instruction, make_verbalizer, paired_words

_CUES = {"classification": "Label", "generation": "Output"}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task with its rows.

    ``labels`` maps each label of the data to the words the base says, sorted by label; it is empty for generation.
    ``columns`` maps the template's fields to the headers of the training file. ``reasons`` holds, for values that were
    derived, why.
    """

    name: str
    kind: Kind
    instruction: str
    template: Template
    labels: Mapping[str, str]
    metric: str
    columns: Columns
    chat: bool = False
    hard_prompts: tuple[str, ...] = ()
    instruction_generated: bool = False
    train: Split = field(default=Split(rows=()), repr=False)
    test: Split | None = field(default=None, repr=False)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.template.fields:
            raise TaskError(f"template {self.template.text!r} has no field.", 'Put the column in it: "{text}{prompt}".')
        self.template.check_fields(self.columns.fields)
        if self.metric not in METRICS[self.kind]:
            raise TaskError(f"metric {self.metric!r} is none for {self.kind}.", nearest(self.metric, METRICS[self.kind]))
        check_words(self.labels)

    @classmethod
    def from_file(
        cls,
        path: Path | str,
        *,
        train: Path | str | None = None,
        test: Path | str | None = None,
        template: str | None = None,
        strict: bool = False,
    ) -> "Task":
        """Read a data file, a task TOML, a folder with train.* and maybe test.*, or ``hub:owner/name``.

        ``train``, ``test`` and ``template`` win over what the path says. Raises NotFound, DataError, TaskError.
        """
        said = read_definition(path)
        said = replace(said, train=train or said.train, test=test or said.test, template=template or said.template)
        if said.train is None:
            raise TaskError(f"{path} names no training data.", 'Add [data] train = "train.csv".')
        task = cls._learned_from(read_table(said.train), said, strict=strict)
        return task if said.test is None else replace(task, test=task.read_rows(said.test, strict=strict))

    @classmethod
    def from_rows(
        cls,
        texts: Sequence[str | Mapping[str, str]],
        targets: Sequence[Any],
        *,
        name: str = "task",
        kind: Kind = "classification",
        instruction: str | None = None,
        template: str | None = None,
        words: Mapping[str, str] | None = None,
        metric: str | None = None,
        strict: bool = False,
    ) -> "Task":
        """A task of Python lists. A text is a string, or a mapping of the template's fields; ``words`` are label → words.

        Targets that are no strings become them as ``cell_text`` says (1 → "1", True → "true").
        """
        if len(texts) != len(targets):
            raise TaskError(f"there are {len(texts)} texts and {len(targets)} targets.", "Give one target a text.")
        asked = Template(template).fields if template else ()
        single = asked[0] if len(asked) == 1 else "text"
        fields = [{single: text} if isinstance(text, str) else dict(text) for text in texts]
        names = columns_of(list(fields))
        target = "label" if "label" not in names else "target label"
        records = [{**one, target: value} for one, value in zip(fields, targets, strict=True)]
        table = Table(
            columns=(*names, target),
            records=tuple(records),
            lines=tuple(range(1, len(records) + 1)),
            source="the rows given",
        )
        said = Definition(
            name=name,
            kind=check_kind(kind),
            instruction=instruction,
            template=template,
            metric=metric,
            labels=dict(words or {}),
        )
        columns = Columns(kind=kind, fields={one: one for one in asked or names}, target=target)
        return cls._learned_from(table, said, strict=strict, columns=columns)

    @classmethod
    def _learned_from(cls, table: Table, said: Definition, *, strict: bool, columns: Columns | None = None) -> "Task":
        """Derive from the training table whatever the definition leaves open."""
        template = Template(said.template) if said.template else None
        columns = columns or detect_columns(table, template.fields if template else None, said.columns, kind=said.kind)
        kind = columns.kind
        train = make_rows(table, columns, kind, strict=strict)
        labels = _labels(table, columns, train, said) if kind == "classification" else {}
        metric, why = choose_metric(kind, train.rows)
        reasons = {"columns": columns.reason} if columns.reason else {}
        if said.metric is None:
            reasons["metric"] = f"{metric}: {why}"
        return cls(
            name=said.name,
            kind=kind,
            instruction=said.instruction or make_instruction(columns.fields, labels.values()),
            instruction_generated=not said.instruction,
            template=template or default_template(columns),
            labels=labels,
            metric=said.metric or metric,
            columns=columns,
            chat=said.chat,
            hard_prompts=said.hard_prompts,
            train=train,
            reasons=reasons,
        )

    def read_rows(self, path: Path | str, need_target: bool = True, *, strict: bool = False) -> Split:
        """Read another file of this task; its headers may be written differently. Raises as ``from_file``.

        With ``need_target=False`` rows without a label or output are no faults, and neither is a file without the column.
        """
        table = read_table(path)
        columns = fit_columns(self.columns, table, need_target=need_target)
        return make_rows(table, columns, self.kind, strict=strict, need_target=need_target, known=self.labels)

    @property
    def has_labels(self) -> bool:
        """Whether every answer is one of ``labels``, so that answers have probabilities; outputs are written otherwise."""
        return self.kind == "classification"

    @cached_property
    def counts(self) -> Counter[str]:
        """How many training rows each label has; empty for generation."""
        return count_labels(self.train.rows) if self.has_labels else Counter()

    @property
    def skewed(self) -> bool:
        """Whether one label has over 3 times its even share of the training rows, or 75% of them."""
        return bool(skew_reason(self.counts))

    def class_weights(self) -> Mapping[str, float]:
        """The loss weight of every label: inverse root of its rows, mean 1; all 1 where the labels are not skewed."""
        return {**dict.fromkeys(self.labels, 1.0), **(weigh(self.counts) if self.skewed else {})}

    def unseen_labels(self, split: Split) -> Mapping[str, int]:
        """The labels of a split that were never trained, with their rows; a prediction for these counts as wrong."""
        if not self.has_labels:
            return {}
        return {label: rows for label, rows in sorted(count_labels(split.rows).items()) if label not in self.labels}

    def to_dict(self) -> dict[str, Any]:
        """The definition without data, as a prompt's card keeps it (strings, booleans, lists and tables only)."""
        return {
            "name": self.name,
            "kind": self.kind,
            "instruction": self.instruction,
            "instruction_generated": self.instruction_generated,
            "template": self.template.text,
            "chat": self.chat,
            "metric": self.metric,
            "hard_prompts": list(self.hard_prompts),
            "columns": self.columns.to_dict(),
            "labels": dict(self.labels),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Task":
        """The task of a card, without rows. Raises TaskError where an entry is missing."""
        missing = [name for name in ("name", "kind", "template", "metric", "columns") if name not in data]
        if missing:
            raise TaskError(f"the definition of the task lacks {', '.join(missing)}.", "Is the card complete?")
        kind = check_kind(data["kind"])
        return cls(
            name=data["name"],
            kind=kind,
            instruction=data.get("instruction", ""),
            instruction_generated=data.get("instruction_generated", False),
            template=Template(data["template"]),
            chat=data.get("chat", False),
            metric=data["metric"],
            hard_prompts=tuple(data.get("hard_prompts", ())),
            columns=Columns.from_dict(kind, data["columns"]),
            labels=dict(data.get("labels", {})),
        )


def default_template(columns: Columns) -> Template:
    """Every field on a line of its own and a cue, the prompt before the cue's last token.

    What stands before the prompt is read once; each token after it is paid for at every step. Behind "Label" instead of
    before it, a step of a `kv` prompt computes one token a row instead of three, at the same accuracy
    (benchmarks/README.md, "Where the prompt stands").
    """
    fields = "\n".join(f"{{{name}}}" for name in columns.fields)
    return Template(f"{fields}\n{_CUES[columns.kind]}{{prompt}}:")


def _labels(table: Table, columns: Columns, train: Split, said: Definition) -> dict[str, str]:
    """Label → words: as the task says, as a column beside the label spells them, or the label itself made readable."""
    counts = count_labels(train.rows)
    check_labels(counts, train.source)
    spelled = {} if columns.words is None else paired_words(_pairs(table, columns))
    known = {label: words for label, words in spelled.items() if label in counts}
    return make_verbalizer(counts, {**known, **said.labels})


def _pairs(table: Table, columns: Columns) -> list[tuple[str, str]]:
    cells = ((cell_text(row.get(columns.target or "")), cell_text(row.get(columns.words or ""))) for row in table.records)
    return [(label, words) for label, words in cells if label is not None and words is not None]
