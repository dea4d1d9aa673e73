"""The explanation as one HTML page: pictures first, words for who does not know the theory, and under each how it was obtained.

Everything that comes from data is escaped by the template engine; pictures escape what they hold themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from epigraph.explaining.matters import Matters
from epigraph.explaining.pair import Pair
from epigraph.explaining.plot import Bar, bar_of, draw_bars, draw_heat, draw_lines
from epigraph.explaining.pushes import Pushes
from epigraph.explaining.says import Says
from epigraph.explaining.sensitivity import Sensitivity
from epigraph.explaining.shortcuts import Shortcuts
from epigraph.explaining.slices import Groups, Slices
from epigraph.explaining.twin import Twin
from epigraph.explaining.waywardness import Wayward
from epigraph.explaining.why import Why
from epigraph.metrics import Interval

SHOWN = (
    "accuracy", "macro_f1", "micro_f1", "subset_accuracy", "quadratic_kappa", "bleu", "rouge_l", "token_f1", "exact_match",
    "expected_calibration_error",
)  # fmt: skip

if TYPE_CHECKING:
    from epigraph.explaining.explanation import Explanation


@dataclass(frozen=True, kw_only=True)
class Shade:
    """A token or vector in the text picture: ``weight`` −1 to 1, ``worth`` in nats."""

    what: str
    weight: float
    prompt: bool
    worth: float


def render_page(found: "Explanation") -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("epigraph.explaining", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": _share, "interval": _interval, "shares": _shares, "signed": _signed, "visible": visible}
    pictures: dict[str, Any] = {}
    for name, part in found.sections.items():
        pictures |= _DRAWN[name](part) if name in _DRAWN else {}
    return environment.get_template("page.html").render(
        found=found, parts=found.sections, pictures=pictures, left_out=found.left_out
    )


def _share(value: float) -> str:
    return f"{value:.0%}"


def visible(text: str) -> str:
    """A token as one can see it: white space and what does not print as their escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _interval(found: Interval) -> str:
    return f"{found.value:.2f} [{found.low:.2f}–{found.high:.2f}]"


def _shares(found: Interval) -> str:
    return f"{found.value:.0%} [{found.low:.0%}–{found.high:.0%}]"


def _signed(found: Interval) -> str:
    return f"{found.value:+.2f} [{found.low:+.2f} to {found.high:+.2f}]"


def _score(found: dict[str, Any]) -> dict[str, Markup]:
    bars = [
        bar_of(name.replace("_", " "), Interval(**found[name]), strong=True)
        for name in SHOWN
        if isinstance(found.get(name), dict)
    ]
    if "majority" in found:
        bars.append(Bar(name="always the commonest label", value=found["majority"]))
    return {"score": draw_bars("Scores with 95% intervals", bars, least=0, most=1)}


def _matters(found: Matters) -> dict[str, Markup]:
    shorter = sorted(found.shorter, key=lambda s: -len(s.kept))
    pictures = {
        "vectors": draw_bars(
            f"Change of {found.metric} without each vector",
            [bar_of(f"without vector {v.what}", v.change, said=f"{v.change.value:+.2f}") for v in found.vectors[:40]],
        ),
        "shorter": draw_bars(
            f"{found.metric} of ever shorter prompts",
            [bar_of(f"{len(s.kept)} vectors", s.score, strong=s == found.fewest) for s in shorter],
            least=0,
            most=1,
        ),
    }
    if found.groups:
        bars = [bar_of(f"without {g.what}", g.change, said=f"{g.change.value:+.2f}") for g in found.groups]
        pictures["parts"] = draw_bars(f"Change of {found.metric} without groups of vectors or layers", bars)
    if found.layers:
        names = [layer.what for layer in found.layers]
        values = [layer.changed.value for layer in found.layers]
        pictures["layers"] = draw_lines(
            "Answers changed without the prompt at each layer", {"answers changed": values}, names, x_name="layer"
        )
    return pictures


def _pushes(found: Pushes) -> dict[str, Markup]:
    pushed = [Bar(name=repr(t.token), value=t.change, said=f"{t.change:+.1f}") for t in (*found.up[:8], *found.down[:8])]
    names = [str(i + 1) for i in range(len(found.lens_with))]
    lens = {"with the prompt": found.lens_with, "without": found.lens_without}
    return {
        "pushed": draw_bars("Mean change of log-probability, nats", pushed),
        "mass": draw_heat(
            "Attention to the prompt from where the answer is given", found.mass, x_name="layer", y_name="head"
        ),
        "lens": draw_lines("Share of rows whose final answer can be read off after each layer", lens, names, x_name="layer"),
    }


def _sensitivity(found: Sensitivity) -> dict[str, Markup]:
    edits = [
        bar_of(e.name + ("" if e.keeps else " *"), e.changed, strong=e.keeps, said=f"{e.changed.value:.0%}")
        for e in found.edits
    ]
    bias = [
        Bar(name=label, value=p, said=f"{p:.2f}") for label, p in sorted(found.bias.items(), key=lambda item: -item[1])[:12]
    ]
    return {
        "edits": draw_bars("Share of answers that an edit changes", edits, least=0, most=1),
        "bias": draw_bars("Mean probability of each label without a text", bias, least=0, most=1),
    }


def _shortcuts(found: Shortcuts) -> dict[str, Markup]:
    bars = [
        bar_of(
            f"{w.spelled}{f' ({w.field})' if w.field else ''} → {w.label}",
            w.flips,
            strong=bool(w.why),
            said=f"{w.flips.value:.0%}",
        )
        for w in found.words
    ]
    bars.append(bar_of("words drawn at random", found.ordinary, said=f"{found.ordinary.value:.0%}"))
    return {"shortcuts": draw_bars("Share of other answers that one word turns", bars, least=0, most=1)}


def _slices(found: Slices) -> dict[str, Markup]:
    bars = [bar_of(s.what, s.gap, strong=s.sure, said=f"{s.gap.value:+.2f}") for s in found.worst]
    return {"slices": draw_bars("Accuracy against the rest of the rows", bars)}


def _groups(found: Groups) -> dict[str, Markup]:
    bars = [
        bar_of(f"{g.column} {g.value}", g.gap, strong=g.sure, said=f"{g.gap.value:+.2f}")
        for g in found.groups
        if g.gap is not None
    ]
    return {"groups": draw_bars("Accuracy of each group against all others", bars)}


def _says(found: Says) -> dict[str, Markup]:
    bars = [bar_of(d.text, d.agreement, strong=True) for d in found.descriptions]
    bars += [
        bar_of("(the task's instruction)", found.instruction),
        bar_of("(the base alone)", found.bare),
        bar_of("(one answer for all)", found.constant),
    ]
    return {"says": draw_bars("Agreement with the prompt of a classifier given only the description", bars, least=0, most=1)}


def _twin(found: Twin) -> dict[str, Markup]:
    bars = [
        bar_of("the soft prompt", found.soft, strong=True),
        bar_of("its twin", found.best.score),
        bar_of("the instruction", found.instruction.score),
    ]
    if found.written is not None:
        bars.append(bar_of("the best written by hand", found.written.score))
    return {"twin": draw_bars(found.metric, bars, least=0, most=1)}


def _wayward(found: Wayward) -> dict[str, Markup]:
    bars = [
        bar_of("this prompt", found.soft, strong=True),
        bar_of("one that reads as the text", found.wayward, strong=True),
        bar_of("the text itself", found.before),
    ]
    return {"wayward": draw_bars(found.metric, bars, least=0, most=1)}


def _why(found: Why) -> dict[str, Any]:
    ways = [("by leaving each out", [part.left_out for part in found.parts])]
    if found.sums:
        ways.insert(0, ("by integrated gradients", [part.integrated for part in found.parts]))
    chances = [Bar(name=n, value=p) for n, p in sorted(found.probabilities.items(), key=lambda item: -item[1])[:12]]
    return {
        "shades": [(how, _shades(found, worth)) for how, worth in ways],
        "chances": draw_bars("Probabilities", chances, least=0, most=1),
    }


def _shades(found: Why, worth: Sequence[float]) -> list[Shade]:
    """Every part, coloured by what it is worth beside the part that is worth most."""
    most = max(map(abs, worth), default=1.0) or 1.0
    return [
        Shade(what=part.what, weight=w / most, prompt=part.prompt, worth=w)
        for part, w in zip(found.parts, worth, strict=True)
    ]


def _pair(found: Pair) -> dict[str, Markup]:
    pictures = {
        "pair": draw_bars(
            found.metric,
            [bar_of(found.first, found.scores[0], strong=True), bar_of(found.second, found.scores[1])],
            least=0,
            most=1,
        )
    }
    if found.between:
        names = [f"{i / (len(found.between) - 1):.1f}" for i in range(len(found.between))]
        values = [point.value for point in found.between]
        pictures["between"] = draw_lines(
            f"{found.metric} between the two", {found.metric: values}, names, x_name=f"from {found.first} to {found.second}"
        )
    return pictures


_DRAWN: dict[str, Any] = {
    "score": _score,
    "matters": _matters,
    "pushes": _pushes,
    "sensitivity": _sensitivity,
    "shortcuts": _shortcuts,
    "slices": _slices,
    "groups": _groups,
    "says": _says,
    "twin": _twin,
    "waywardness": _wayward,
    "why": _why,
    "pair": _pair,
}
