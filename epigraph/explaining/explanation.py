"""``explain``: what a prompt does, measured; sections switched by what is there, cheap ones first, within a budget.

rows → score, what matters, what it pushes, what could go wrong, what it says, a readable twin, waywardness      text → why
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from epigraph.errors import DataError, InputError, Unsupported
from epigraph.evaluation import score_labels, score_outputs
from epigraph.explaining.case import Case, Clock, ExplainConfig
from epigraph.explaining.cautions import Caution, find_cautions, texts_of
from epigraph.explaining.matters import measure_parts
from epigraph.explaining.pair import compare_pair
from epigraph.explaining.pushes import measure_push
from epigraph.explaining.says import elicit_descriptions
from epigraph.explaining.sensitivity import measure_sensitivity
from epigraph.explaining.shortcuts import measure_shortcuts
from epigraph.explaining.slices import measure_groups, measure_slices
from epigraph.explaining.twin import search_twin
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
    """What was found: a result for each section by its name, warnings, and what was left out."""

    prompt: str
    card: Mapping[str, Any]
    source: str
    rows: int
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
            "warnings": self.warnings,
            "cautions": [asdict(caution) for caution in self.cautions],
            "source": self.source,
            "rows": self.rows,
            "sections": {name: _plain(found) for name, found in self.sections.items()},
            "left_out": [asdict(left) for left in self.left_out],
            "seconds": round(self.seconds, 1),
        }

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
    config: ExplainConfig | None = None,
    stage: Stage = lambda _name, _done, _total: None,
) -> Explanation:
    """Explain a prompt by what it does to ``rows``, best labelled ones that it was not tuned on.

    ``text`` is one input whose answer is explained, ``other`` a prompt of the same task to compare with, ``groups`` column → its value
    in every row, ``train`` the training rows where they are known. DataError if there is neither a row nor a text.
    """
    config = config or ExplainConfig()
    if not rows and text is None:
        raise DataError("there is nothing to measure the prompt on.", "Give rows (--data FILE) or a text (--text).")
    if rows and len(rows) < FEWEST:
        raise DataError(
            f"{len(rows)} rows were given; explaining needs {FEWEST} or more.", "Give more rows, or only a text."
        )
    used, chosen_groups = _drawn(rows, groups or {}, config)
    case = Case(
        model=model,
        rows=used,
        config=config,
        source=source,
        groups=chosen_groups,
        text=model.row(text) if text is not None else None,  # the same reading of a text as predict has
        other=other,
        clock=Clock(config.budget),
    )
    found, left = _run(case, list(train), stage)
    checked = {name: found.get(name) for name in ("score", "matters", "sensitivity", "shortcuts", "slices", "groups")}
    return Explanation(
        prompt=model.card.reference,
        card={"kind": model.card.kind, "base": model.card.base.name, "lengths": [f.length for f in case.forms]},
        source=source,
        rows=len(used),
        sections=found,
        cautions=find_cautions(**checked),
        left_out=left,
        seconds=case.clock.seconds,
        case=case,
    )


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
    labels = no_rows or ("" if case.has_labels else "answers are written, not labels")
    truth = "" if case.labelled else "the rows say no truth"
    column = "" if case.groups else "no column was named (--group)"
    second = "" if case.other else "no other prompt was named (--with)"

    def why() -> Any:
        assert case.text is not None
        return explain_answer(case, case.text, train or list(case.rows))

    def twin() -> Any:
        said = found.get("says")
        return search_twin(case, [d.text for d in said.descriptions[:3]] if said else [])

    return [
        ("score", lambda: _score(case), no_rows or truth),
        ("slices", lambda: measure_slices(case), labels or truth),
        ("groups", lambda: measure_groups(case), no_rows or column),
        ("matters", lambda: measure_parts(case), no_rows),
        ("why", why, "" if case.text else "no text was given (--text)"),
        ("pushes", lambda: measure_push(case), no_rows),
        ("pair", lambda: compare_pair(case), no_rows or second),
        ("shortcuts", lambda: measure_shortcuts(case, train), labels),
        ("sensitivity", lambda: measure_sensitivity(case), ""),
        ("says", lambda: elicit_descriptions(case), no_rows),
        ("waywardness", lambda: measure_waywardness(case), no_rows),
        ("twin", twin, labels),
    ]


def _run(case: Case, train: list[Row], stage: Stage) -> tuple[dict[str, Any], list[LeftOut]]:
    found: dict[str, Any] = {}
    left: list[LeftOut] = []
    sections = _sections(case, train, found)
    for number, (name, work, why_not) in enumerate(sections):
        if not why_not and case.clock.over:
            why_not = f"the budget of {case.config.budget:.0f} s was spent"
        if why_not:
            left.append(LeftOut(section=name, reason=why_not))
            continue
        stage(f"explaining: {name}", number, len(sections))
        try:
            found[name] = work()
        except Unsupported as refused:
            left.append(LeftOut(section=name, reason=refused.message))
    stage("explaining", len(sections), len(sections))
    return found, left


def _score(case: Case) -> dict[str, Any]:
    """The contract's scores on these rows."""
    if case.has_labels:
        return score_labels(case.method, case.rows, case.probabilities, split="test", seed=case.config.seed).json
    return score_outputs(case.rows, case.answers, split="test", seed=case.config.seed).json
