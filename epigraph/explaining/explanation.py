"""``explain``: what a prompt does, measured; sections switched by what is there, cheap ones first, within a budget.

rows → score, what matters, what it pushes, what could go wrong, what it says, a readable twin, waywardness      text → why
"""

import json
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from epigraph.errors import DataError, EpigraphError, InputError, Unsupported
from epigraph.evaluation import score_labels, score_outputs
from epigraph.explaining.case import Case, Clock, ExplainConfig
from epigraph.explaining.cautions import Caution, find_cautions, texts_of
from epigraph.explaining.judged import said
from epigraph.explaining.matters import measure_parts
from epigraph.explaining.pair import check_pair, compare_pair
from epigraph.explaining.pushes import measure_push
from epigraph.explaining.says import elicit_descriptions
from epigraph.explaining.sensitivity import measure_sensitivity
from epigraph.explaining.shortcuts import measure_shortcuts
from epigraph.explaining.slices import measure_groups, measure_slices
from epigraph.explaining.twin import no_twin, search_twin
from epigraph.explaining.waywardness import measure_waywardness
from epigraph.explaining.why import explain_answer
from epigraph.library.disk import replace_file, storing
from epigraph.model import Given, PromptModel
from epigraph.tasks.row import Row

FEWEST = 4
Stage = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A section that is not there, and why."""

    section: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What was found: a result for each section by its name, warnings, and what was left out.

    ``unlabelled`` of the ``rows`` do not say what is right; scores are of the others. ``trained`` of them are training rows, None
    where it is not known which rows the prompt learned from."""

    prompt: str
    card: Mapping[str, Any]
    source: str
    rows: int
    unlabelled: int
    trained: int | None
    split: str
    sections: Mapping[str, Any]
    cautions: Sequence[Caution]
    left_out: Sequence[LeftOut]
    seconds: float
    case: Case = field(repr=False)

    @property
    def warnings(self) -> list[str]:
        """The warnings in words, the most serious first."""
        return texts_of(self.cautions)

    @property
    def json(self) -> dict[str, Any]:
        """The contract's object."""
        return {
            "prompt": self.prompt,
            "card": dict(self.card),
            "warnings": self.warnings,
            "cautions": [asdict(caution) for caution in self.cautions],
            "source": self.source,
            "rows": self.rows,
            "split": self.split,
            "unlabelled": self.unlabelled,
            "trained_rows": self.trained,
            "sections": {name: _plain(found) for name, found in self.sections.items()},
            "left_out": [asdict(left) for left in self.left_out],
            "seconds": round(self.seconds, 1),
        }

    @property
    def seen_before(self) -> str:
        """In words, how many of the rows the prompt learned from."""
        if not self.rows:
            return ""
        if self.trained is None:
            return "Which rows it learned from is not known here, so neither is whether these are among them."
        few = "None" if not self.trained else "All" if self.trained == self.rows else f"{self.trained}"
        return f"{few} of these rows {'is' if self.trained == 1 else 'are'} among those that it learned from."

    def page(self) -> str:
        """The whole as one HTML page that needs nothing else."""
        from epigraph.explaining.page import render_page

        return render_page(self)

    def save(self, file: Path | str) -> None:
        """Write the page. StorageFailed if it cannot be."""
        path = Path(file)
        with storing("the report", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, self.page().encode())


def _plain(value: Any) -> Any:
    found = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    return json.loads(json.dumps(found))


def explain(
    model: PromptModel,
    rows: Sequence[Row] = (),
    *,
    text: Given | None = None,
    other: PromptModel | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    train: Sequence[Row] = (),
    source: str = "the rows given",
    split: str = "test",
    only: Collection[str] = (),
    config: ExplainConfig | None = None,
    stage: Stage = lambda _name, _done, _total: None,
) -> Explanation:
    """Explain a prompt by what it does to ``rows``, best labelled ones that it was not tuned on.

    ``text`` is one input whose answer is explained, ``other`` a prompt of the same task to compare with, ``groups`` column → its value
    in every row, ``train`` the rows that it learned from where they are known, ``split`` what the rows are in one word, as scores have
    it ("train" where all of them are training rows), ``only`` the sections to measure (all, where none is named). DataError if there is
    neither a row nor a text; InputError or BaseMismatch if ``other`` can't be compared; Unsupported if the one section asked for is not
    to be had.
    """
    config = config or ExplainConfig()
    if not rows and text is None:
        raise DataError("there is nothing to measure the prompt on.", "Give rows (--data FILE) or a text (--text).")
    if rows and len(rows) < FEWEST:
        raise DataError(
            f"{len(rows)} rows were given; explaining needs {FEWEST} or more.", "Give more rows, or only a text."
        )
    if other is not None:
        check_pair(model, other)
    used, chosen_groups = _drawn(rows, groups or {}, config)
    trained = _trained_on(used, train)
    split = "train" if used and trained == len(used) else split
    case = Case(
        model=model,
        rows=used,
        config=config,
        source=source,
        split=split,
        trained=trained,
        groups=chosen_groups,
        text=model.row(text) if text is not None else None,  # the same reading of a text as predict has
        other=other,
        clock=Clock(config.budget),
    )
    found, left = _run(case, list(train), stage, only)
    if len(only) == len(left) == 1:
        raise Unsupported(f"{left[0].section} can't be told of {model.card.reference}: {left[0].reason}")
    checked = {name: found.get(name) for name in ("score", "matters", "sensitivity", "shortcuts", "slices", "groups")}
    return Explanation(
        prompt=model.card.reference,
        card={"kind": model.card.kind, "base": model.card.base.name, "lengths": [f.length for f in model.method.forms]},
        source=source,
        rows=len(used),
        unlabelled=sum(row.target is None for row in used),
        trained=trained if train else None,
        split=split,
        sections=found,
        cautions=find_cautions(**checked, trained=case.trained, rows=len(used)),
        left_out=left,
        seconds=case.clock.seconds,
        case=case,
    )


def _trained_on(rows: Sequence[Row], train: Sequence[Row]) -> int:
    """How many of the rows have the same texts as a training row."""
    seen = {_texts(row) for row in train}
    return sum(_texts(row) in seen for row in rows)


def _texts(row: Row) -> tuple[object, ...]:
    return (*sorted((name, " ".join(text.split())) for name, text in row.fields.items()), row.choices)


def _drawn(
    rows: Sequence[Row], groups: Mapping[str, Sequence[str]], config: ExplainConfig
) -> tuple[list[Row], dict[str, list[str]]]:
    """At most ``config.rows`` rows with their groups' values."""
    for name, values in groups.items():
        if len(values) != len(rows):
            raise InputError(f"group {name!r} has {len(values)} values for {len(rows)} rows.", "Give one value a row.")
    order = list(range(len(rows)))
    if len(rows) > config.rows:
        order = sorted(random.Random(config.seed).sample(order, config.rows))
    return [rows[i] for i in order], {name: [values[i] for i in order] for name, values in groups.items()}


Section = tuple[str, Callable[[], Any], str]


def _sections(case: Case, train: list[Row], found: dict[str, Any]) -> list[Section]:
    """Name, work and why not ("" where it can be done), cheap ones first."""
    no_rows = "" if case.rows else "no rows were given (--data)"
    one_label = no_rows or ("" if case.has_labels else _no_labels(case))
    judged = "answers are written: none is right or wrong by itself" if case.task.writes else ""
    truth = "" if case.labelled else "the rows say no truth" if not _some_truth(case) else "too few rows say a truth"
    column = "" if case.groups else "no column was named (--group)"
    second = "" if case.other else "no other prompt was named (--with)"
    source = (
        "the training rows" if train else f"the rows that it is measured on, {case.source}; its training rows are not known"
    )

    def why() -> Any:
        assert case.text is not None
        return explain_answer(case, case.text, train or list(case.rows), source)

    def twin() -> Any:
        said = found.get("says")
        return search_twin(case, [d.text for d in said.descriptions[:3]] if said else [])

    return [
        ("score", lambda: _score(case), no_rows or truth),
        ("slices", lambda: measure_slices(case), no_rows or truth or judged),
        ("groups", lambda: measure_groups(case), no_rows or column or judged),
        ("matters", lambda: measure_parts(case), no_rows or case.no_forms),
        ("why", why, ("" if case.text else "no text was given (--text)") or case.no_forms),
        ("pushes", lambda: measure_push(case), no_rows or case.no_forms),
        ("pair", lambda: compare_pair(case), no_rows or second),
        ("shortcuts", lambda: measure_shortcuts(case, train), one_label),
        ("sensitivity", lambda: measure_sensitivity(case), "" if case.has_labels else no_rows),
        ("says", lambda: elicit_descriptions(case), no_rows or case.no_forms),
        ("waywardness", lambda: measure_waywardness(case, train), no_rows or case.no_forms),
        ("twin", twin, no_rows or ("" if case.has_labels else no_twin(case))),
    ]


def _no_labels(case: Case) -> str:
    """Why what asks for one label an answer can't be done with this kind of task."""
    ways = {
        "generation": "answers are written, not labels",
        "choice": "every row has its own choices, so that no word can be held against a label",
        "multilabel": "a row may have several labels, and words are held against one",
    }
    return ways.get(case.task.kind, "answers are no labels")


def _some_truth(case: Case) -> bool:
    return any(row.target is not None for row in case.rows)


def _run(case: Case, train: list[Row], stage: Stage, only: Collection[str]) -> tuple[dict[str, Any], list[LeftOut]]:
    found: dict[str, Any] = {}
    left: list[LeftOut] = []
    sections = [section for section in _sections(case, train, found) if not only or section[0] in only]
    for number, (name, work, why_not) in enumerate(sections):
        if not why_not and case.clock.over:
            why_not = f"the budget of {case.config.budget:.0f} s was spent"
        if why_not:
            left.append(LeftOut(section=name, reason=why_not))
            continue
        stage(f"explaining: {name}", number, len(sections))
        try:
            found[name] = work()
        except EpigraphError as refused:  # what other sections found is kept
            left.append(LeftOut(section=name, reason=refused.message))
    stage("explaining", len(sections), len(sections))
    return found, left


def _score(case: Case) -> dict[str, Any]:
    """The contract's scores on the rows that say what is right."""
    rows, known = case.known_rows, list(case.known)
    seed, split = case.config.seed, case.split
    if case.task.writes:
        scores = score_outputs(rows, [said(case.answers[i]) for i in known], split=split, seed=seed).json
    else:
        scores = score_labels(case.method, rows, case.probabilities[known], split=split, seed=seed).json
    return scores | ({"trained_rows": case.trained} if case.trained else {})
