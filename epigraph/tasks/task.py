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
from epigraph.tasks.asked import Answers
from epigraph.tasks.balance import choose_metric, count_labels, count_sets, skew_reason, weigh
from epigraph.tasks.cells import cell_text
from epigraph.tasks.columns import Columns, detect_columns, fit_columns
from epigraph.tasks.definition import Definition, check_kind, read_definition
from epigraph.tasks.kinds import KINDS_OF_TASK, Kind, TaskKind
from epigraph.tasks.many_answers import SHOWN
from epigraph.tasks.nearest import nearest
from epigraph.tasks.row import Split
from epigraph.tasks.rows import make_rows
from epigraph.tasks.scale import order_labels
from epigraph.tasks.sources import read_table
from epigraph.tasks.table import Table, columns_of
from epigraph.tasks.template import Template
from epigraph.tasks.verbalizer import check_labels, check_words, make_instruction, make_verbalizer, paired_words


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task with its rows.

    ``labels`` maps each label of the data to the words the base says, sorted by label, or from the lowest to the highest
    where they have an order; it is empty where answers are not made of labels. A label of several is given where its
    probability is ``threshold`` or more. An output ends before the first of ``stop`` and after ``output_tokens`` tokens
    (None: chosen by the outputs in training). ``shares`` is the share of the training rows that each label has.
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
    stop: tuple[str, ...] = ()
    output_tokens: int | None = None
    threshold: float = 0.5
    shares: Mapping[str, float] = field(default_factory=dict, repr=False)
    train: Split = field(default=Split(rows=()), repr=False)
    test: Split | None = field(default=None, repr=False)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.template.fields:
            raise TaskError(f"template {self.template.text!r} has no field.", 'Put the column in it: "{text}{prompt}".')
        self.template.check_fields(self.columns.fields)
        known = self.of_kind.metrics
        if self.metric not in known:
            raise TaskError(f"metric {self.metric!r} is none for {self.kind}.", nearest(self.metric, known))
        if self.stop and not self.writes:
            raise TaskError(f"stop {list(self.stop)!r} was asked, but the task writes no text: it is of kind {self.kind!r}.")
        check_words(self.labels)

    @classmethod
    def from_file(
        cls,
        path: Path | str,
        *,
        train: Path | str | None = None,
        test: Path | str | None = None,
        template: str | None = None,
        kind: str | None = None,
        strict: bool = False,
    ) -> "Task":
        """Read a data file, a task TOML, a folder with train.* and maybe test.*, or ``hub:owner/name``.

        ``train``, ``test``, ``template`` and ``kind`` win over what the path says. Raises NotFound, DataError, TaskError.
        """
        said = read_definition(path)
        said = replace(said, kind=check_kind(kind)) if kind else said
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

        Targets that are no strings become them as ``cell_text`` says (1 → "1", True → "true"). For kind ``choice`` every
        text is a mapping that has its ``choices`` too, and the target is the text, letter or number (from 0) of one of
        them; for ``multilabel`` a target is a list of labels; for ``ordinal`` the order of ``words`` is that of the labels.
        """
        if len(texts) != len(targets):
            raise TaskError(f"there are {len(texts)} texts and {len(targets)} targets.", "Give one target a text.")
        asked = Template(template).fields if template else ()
        kind = check_kind(kind)
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
            kind=kind,
            instruction=instruction,
            template=template,
            metric=metric,
            labels=dict(words or {}),
            columns={"label": target} if kind == "choice" else {},
            answers=Answers(choices=(SHOWN,), first_choice=_numbered(targets)) if kind == "choice" else Answers(),
        )
        known = {one: one for one in asked or names}
        columns = None if kind == "choice" else Columns(kind=kind, fields=known, target=target)
        return cls._learned_from(table, said, strict=strict, columns=columns)

    @classmethod
    def _learned_from(cls, table: Table, said: Definition, *, strict: bool, columns: Columns | None = None) -> "Task":
        """Derive from the training table whatever the definition leaves open."""
        template = Template(said.template) if said.template else None
        asked = template.fields if template else None
        columns = columns or detect_columns(table, asked, said.columns, kind=said.kind, answers=said.answers)
        kind = columns.kind
        train = make_rows(table, columns, kind, strict=strict)
        reasons = {"task": columns.kind_reason} if columns.kind_reason else {}
        labels, order = _labels(table, columns, train, said) if KINDS_OF_TASK[kind].knows_labels else ({}, "")
        metric, why = choose_metric(kind, train.rows)
        reasons |= {"columns": columns.reason} if columns.reason else {}
        if order:
            reasons["order"] = f"{' < '.join(labels)}, {order}"
        if said.metric is None:
            reasons["metric"] = f"{metric}: {why}"
        return cls(
            name=said.name,
            kind=kind,
            instruction=said.instruction or make_instruction(_named(columns), labels.values(), kind),
            instruction_generated=not said.instruction,
            template=template or default_template(columns),
            labels=labels,
            metric=said.metric or metric,
            columns=columns,
            chat=said.chat,
            hard_prompts=said.hard_prompts,
            stop=said.stop,
            output_tokens=said.output_tokens,
            shares=_shares(labels, train),
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
    def of_kind(self) -> TaskKind:
        """What the task's kind is like."""
        return KINDS_OF_TASK[self.kind]

    @property
    def has_labels(self) -> bool:
        """Whether every answer is one of ``labels``, so that these have probabilities that sum to one."""
        return self.of_kind.one_label

    @property
    def knows_labels(self) -> bool:
        """Whether answers are made of ``labels``: one, or any number of them."""
        return self.of_kind.knows_labels

    @property
    def writes(self) -> bool:
        """Whether answers are texts to be written; all others are chosen and have probabilities."""
        return self.of_kind.writes

    @cached_property
    def counts(self) -> Counter[str]:
        """How many training rows each label has; empty where answers are not made of labels."""
        if self.has_labels:
            return count_labels(self.train.rows)
        return count_sets(self.train.rows) if self.knows_labels else Counter()

    @property
    def skewed(self) -> bool:
        """Whether one label has over 3 times its even share of the training rows, or 75% of them."""
        return self.has_labels and bool(skew_reason(self.counts))

    def class_weights(self) -> Mapping[str, float]:
        """The loss weight of every label: inverse root of its rows, mean 1; all 1 where the labels are not skewed."""
        return {**dict.fromkeys(self.labels, 1.0), **(weigh(self.counts) if self.skewed else {})}

    def unseen_labels(self, split: Split) -> Mapping[str, int]:
        """The labels of a split that were never trained, with their rows; a prediction for these counts as wrong."""
        if not self.knows_labels:
            return {}
        counts = count_labels(split.rows) if self.has_labels else count_sets(split.rows)
        return {label: rows for label, rows in sorted(counts.items()) if label not in self.labels}

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
            "shares": dict(self.shares),
            "threshold": self.threshold,
            "stop": list(self.stop),
            **({} if self.output_tokens is None else {"output_tokens": self.output_tokens}),
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
            shares=dict(data.get("shares", {})),
            threshold=float(data.get("threshold", 0.5)),
            stop=tuple(data.get("stop", ())),
            output_tokens=data.get("output_tokens"),
        )


def default_template(columns: Columns) -> Template:
    """Every field on a line of its own and a cue, the prompt before the cue's last token.

    What stands before the prompt is read once; each token after it is paid for at every step. Behind "Label" instead of
    before it, a step of a `kv` prompt computes one token a row instead of three, at the same accuracy
    (benchmarks/README.md, "Where the prompt stands").
    """
    fields = "\n".join(f"{{{name}}}" for name in columns.fields)
    return Template(f"{fields}\n{KINDS_OF_TASK[columns.kind].cue}{{prompt}}:")


def _named(columns: Columns) -> list[str]:
    """The fields that are read from the data."""
    return [name for name, column in columns.fields.items() if column]


def _labels(table: Table, columns: Columns, train: Split, said: Definition) -> tuple[dict[str, str], str]:
    """Label → words: as the task says, as a column beside the label spells them, or the label itself made readable.

    Also whence their order is known, where they have one.
    """
    if columns.kind == "multilabel":
        counts = dict.fromkeys(columns.marks, 0) | count_sets(train.rows)
        if len(counts) < 2:
            found = f"has one label, {next(iter(counts))!r}" if counts else "has no labels"
            raise TaskError(f"{train.source} {found} in all its rows.", "Two labels or more are needed.")
        return make_verbalizer(counts, said.labels), ""
    counts = count_labels(train.rows)
    check_labels(counts, train.source)
    order, why = order_labels(counts, said.labels, train.source) if columns.kind == "ordinal" else (None, "")
    spelled = {} if columns.words is None else paired_words(_pairs(table, columns))
    known = {label: words for label, words in spelled.items() if label in counts}
    return make_verbalizer(counts, {**known, **said.labels}, order), why


def _shares(labels: Mapping[str, str], train: Split) -> dict[str, float]:
    """The share of the rows that each label has, whether rows have one or several."""
    counts = count_sets(train.rows) or count_labels(train.rows)
    return {label: counts[label] / max(1, len(train.rows)) for label in labels}


def _numbered(targets: Sequence[Any]) -> int | None:
    """0 where the answers are whole numbers: a Python list counts from 0."""
    return 0 if targets and all(isinstance(target, int) and not isinstance(target, bool) for target in targets) else None


def _pairs(table: Table, columns: Columns) -> list[tuple[str, str]]:
    cells = ((cell_text(row.get(columns.target or "")), cell_text(row.get(columns.words or ""))) for row in table.records)
    return [(label, words) for label, words in cells if label is not None and words is not None]
