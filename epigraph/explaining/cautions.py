"""A short list of warnings in words, the most serious first.

seriousness = the share of answers that a weakness can turn or make wrong, 0 to 1; single words that decide come before the rest
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from epigraph.explaining.matters import Matters
from epigraph.explaining.sensitivity import Sensitivity
from epigraph.explaining.shortcuts import Shortcuts
from epigraph.explaining.slices import Groups, Slices

NAMED = 5
BIASED, TURNED, FAR, UNFAIR = 0.3, 0.15, 0.1, 0.1


@dataclass(frozen=True, kw_only=True)
class Caution:
    """A warning, what it is of, and how serious it is."""

    text: str
    about: str
    seriousness: float


def find_cautions(
    *,
    score: dict[str, object] | None = None,
    matters: Matters | None = None,
    sensitivity: Sensitivity | None = None,
    shortcuts: Shortcuts | None = None,
    slices: Slices | None = None,
    groups: Groups | None = None,
    trained: int = 0,
    rows: int = 0,
) -> list[Caution]:
    """What the sections give reason to warn of; ``trained`` of the ``rows`` that were measured on are training rows."""
    found: list[Caution] = []
    found += _shortcuts(shortcuts) if shortcuts else []
    found += _sensitivity(sensitivity) if sensitivity else []
    found += _slices(slices) if slices else []
    found += _groups(groups) if groups else []
    found += _matters(matters) if matters else []
    found += _score(score) if score else []
    found += [_seen_before(trained, rows)] if trained else []
    return sorted(found, key=lambda c: -c.seriousness)


def _seen_before(trained: int, rows: int) -> Caution:
    text = f"{trained} of the {rows} rows that it was measured on are among its training rows: scores are too favourable."
    return Caution(text=text, about="provenance", seriousness=trained / rows)


def _shortcuts(found: Shortcuts) -> list[Caution]:
    words = found.suspicious[:NAMED]
    if not words:
        return []
    said = "; ".join(
        f"{w.named} multiplies the odds of {w.label!r} by {math.exp(min(w.adds, 20)):.1f} and turns {w.flips.value:.0%} of the "
        f"other answers ({w.why})"
        for w in words
    )
    text = f"Single words decide: {said}. Words drawn at random turn {found.ordinary.value:.0%}."
    return [Caution(text=text, about="shortcuts", seriousness=1 + max(w.seriousness for w in words))]


def _sensitivity(found: Sensitivity) -> list[Caution]:
    cautions = []
    label = max(found.bias, key=lambda name: found.bias[name], default="")
    if label and found.fields == 1:
        fair = found.expected.get(label, 1 / len(found.bias))
        if found.bias[label] - max(fair, 1 / len(found.bias)) > BIASED:
            text = f"Without any text it answers {label!r} with probability {found.bias[label]:.2f} (share of the rows: {fair:.2f})."
            cautions.append(Caution(text=text, about="bias", seriousness=0.5 * (found.bias[label] - fair)))
    turned = [e for e in found.edits if e.keeps and e.changed.low > TURNED / 2 and e.changed.value > TURNED]
    if turned:
        said = ", ".join(
            f"{e.name} ({e.changed.value:.0%} [{e.changed.low:.0%}–{e.changed.high:.0%}])" for e in turned[:NAMED]
        )
        text = f"Edits that should change nothing turn many answers: {said}."
        cautions.append(Caution(text=text, about="edits", seriousness=turned[0].changed.value))
    return cautions


def _slices(found: Slices) -> list[Caution]:
    sure = [s for s in found.worst if s.sure and s.gap.value < -FAR][:3]
    if not sure:
        return []
    said = ", ".join(f"{s.what} ({s.accuracy.value:.2f} on {s.rows} rows, {-s.gap.value:.2f} below the rest)" for s in sure)
    return [Caution(text=f"It is much worse on: {said}.", about="slices", seriousness=max(-s.gap.value for s in sure))]


def _groups(found: Groups) -> list[Caution]:
    cautions = []
    for group in found.groups:
        if group.sure and group.gap is not None and group.gap.high < 0 and group.gap.value < -UNFAIR / 2:
            low, high = group.gap.low, group.gap.high
            text = f"Where {group.column} is {group.value!r} its accuracy is {-group.gap.value:.2f} lower [{low:+.2f} to {high:+.2f}]."
            cautions.append(Caution(text=text, about="groups", seriousness=0.3 - group.gap.value))
        far = [r for r in group.rates if r.sure and abs(r.undue.value) > UNFAIR and (r.undue.low > 0 or r.undue.high < 0)]
        if far:
            rate = max(far, key=lambda r: abs(r.undue.value))
            known = rate.due is not None
            due = f"; the truths differ by {rate.due:+.0%}, which leaves" if known else ""
            text = (
                f"Where {group.column} is {group.value!r} it answers {rate.label!r} in {rate.rate.value:.0%} of the rows, "
                f"{rate.difference.value:+.0%} against the others{due}{f' {rate.undue.value:+.0%}' if known else ''} "
                f"[{rate.undue.low:+.0%} to {rate.undue.high:+.0%}]."
            )
            cautions.append(Caution(text=text, about="groups", seriousness=abs(rate.undue.value)))
    return cautions


def _matters(found: Matters) -> list[Caution]:
    if found.without_prompt.value >= found.score.low and found.score.value - found.without_prompt.value < 0.02:
        bare, whole = found.without_prompt.value, found.score.value
        text = f"The base without the prompt scores {bare:.2f}, with it {whole:.2f}: the prompt adds little."
        return [Caution(text=text, about="matters", seriousness=0.25)]
    return []


def _score(score: dict[str, object]) -> list[Caution]:
    cautions = []
    error, accuracy, majority = (score.get(n) for n in ("expected_calibration_error", "accuracy", "majority"))
    if isinstance(error, dict) and error["low"] > 0.1:
        text = f"Its probabilities are off by {error['value']:.2f} on average (calibration error): do not take them at their word."
        cautions.append(Caution(text=text, about="calibration", seriousness=0.8 * error["value"]))
    if isinstance(accuracy, dict) and isinstance(majority, float) and accuracy["low"] <= majority:
        text = f"Its accuracy, {accuracy['value']:.2f}, is not surely above that of always answering the commonest label, {majority:.2f}."
        cautions.append(Caution(text=text, about="score", seriousness=0.4))
    return cautions


def texts_of(cautions: Sequence[Caution]) -> list[str]:
    """The warnings as the contract has them."""
    return [caution.text for caution in cautions]
