"""Single words that decide: put into rows that lack them, and taken out of rows that have them, in every text of a row by itself.

    adds(w, label)  = mean over rows of   log-odds(label | row with w put in) − log-odds(label | row)      nats
    flips(w, label) = share of rows with another answer that get ``label`` once w is put in
    hangs(w)        = rows that have w and answer otherwise without it, as a share of all rows

Candidates: the words that go most with the answers, with the wrong answers, and with the labels of the training rows where these are
known; and single tokens of the vocabulary by a first-order estimate, (E_v − E_0) · ∂ log p(label) / ∂E (HotFlip: Ebrahimi et al. 2018,
section 3, https://arxiv.org/abs/1712.06751), so that a word is found which is in none of the rows. Each is tried on a few rows; those
that add most are measured on other rows, against words drawn at random. What counts is the counterfactual, not the association alone:
Feder et al. 2022, section 2 (https://arxiv.org/abs/2109.00725).

    t(w) = (adds(w) − mean of adds(c)) / (s √(1 + 1/k))        over k words c drawn at random, s their standard deviation; k − 1 degrees

The rows share a word, so they say nothing of how much words differ: a word's mean effect is held against the spread of other words'
mean effects (prediction of one more draw), corrected for the words measured.

A word is suspicious where it surely adds to a label, and not just a little, and, besides,
    it alone tells the label of many training (or given) rows: a shortcut that the data offers and the prompt takes; or
    the answers go with it and the truths do not; or
    it turns many answers although the truths of the rows say nothing of it.
A word that adds to a label, and that the truths of some few rows support, is what the task is about.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from epigraph.engine.inspection import Look, inspect, label_tail, tree_scores
from epigraph.errors import Unsupported
from epigraph.explaining.case import Case, share
from epigraph.explaining.judged import is_right, said
from epigraph.explaining.told import SUPPORT, Mark, Read, Told, associated
from epigraph.explaining.words import begins_word, place_of, put_in, spellings, take_out, with_text
from epigraph.methods import judge
from epigraph.metrics import Interval
from epigraph.tasks.row import Row

TRIED, CONTROLS, MEASURED, OFFERED = 10, 16, 8, 4
FIRST_ROWS, ROWS, CONTROL_ROWS = 8, 32, 16
FEWEST_CONTROLS, LEAST_SPREAD = 5, 0.01
LEAST_ADDED, LEAST_FLIPS, SURE_FLIPS, ALPHA = 0.5, 0.25, 0.4, 0.01
COMMON_ROWS = 8
GRADIENT_ROWS, GRADIENT_TOKENS, GRADIENT_LABELS = 4, 4, 4
BY_GRADIENT = "the gradient points to it"
PLACEHOLDER = " the"


@dataclass(frozen=True, kw_only=True)
class Word:
    """What one word does in one text of the rows, ``field`` ("" where they have only one).

    ``word`` is in lower case, ``spelled`` as the texts mostly have it and as it was put in. ``adds`` nats to ``label`` with the p-value of
    a word drawn at random adding as much; ``flips`` of ``tried`` rows with another answer; ``rows`` have it, ``answered`` and ``true``
    (None where not known) of these with the label. ``why`` is empty where it is no shortcut."""

    word: str
    label: str
    adds: float
    p: float
    flips: Interval
    tried: int
    removal: Interval
    hangs: float
    rows: int
    answered: float | None
    true: float | None
    place: float
    found_by: str
    told: Told | None
    spelled: str
    why: str = ""
    field: str = ""

    @property
    def named(self) -> str:
        """The word as it is spelled, with the text that it stands in where there are several."""
        return f"{self.spelled!r} in {self.field!r}" if self.field else repr(self.spelled)

    @property
    def seriousness(self) -> float:
        """How much hangs on it, 0 to 3: a word that decides many rows first, then what it turns."""
        return (1.0 if self.why else 0.0) + (1.0 if self.why and self.told else 0.0) + 0.5 * (self.flips.value + self.hangs)


@dataclass(frozen=True, kw_only=True)
class Shortcuts:
    """The words that were measured, the most suspicious first, and how often words drawn at random flip an answer."""

    words: tuple[Word, ...]
    ordinary: Interval
    tried: int
    how: str

    @property
    def suspicious(self) -> list[Word]:
        """Those that are no part of the task."""
        return [word for word in self.words if word.why]


def measure_shortcuts(case: Case, train: Sequence[Row] = ()) -> Shortcuts:
    """Try many words on few rows, and measure those that add most. ``train`` are the training rows where they are known."""
    fields = case.model.task.template.fields
    given, trained = Read.of(case.rows, fields, "rows given"), Read.of(train, fields, "training rows")
    candidates = _candidates(case, given, trained)
    rng = random.Random(case.config.seed)
    order = rng.sample(range(len(case.rows)), len(case.rows))
    first, later = order[:FIRST_ROWS], order[FIRST_ROWS : FIRST_ROWS + ROWS]
    apart = len(later) >= FIRST_ROWS
    later = later if apart else order[:ROWS]
    way_of = _Ways(given, trained)
    ways = {mark: way_of(mark) for mark in candidates}
    controls = [
        _put(case, given, way_of(mark), later[:CONTROL_ROWS]) for mark in _controls(given.marks, set(candidates), rng)
    ]
    ordinary = np.array([c.most for c in controls])
    tried: dict[Mark, float] = {}
    for mark, way in ways.items():
        if case.clock.over and tried:
            break
        tried[mark] = _put(case, given, way, first).most
    offered = [mark for mark in tried if _offered(case, mark, (trained, given))][:OFFERED]
    chosen = list(dict.fromkeys([*offered, *sorted(tried, key=lambda m: -tried[m])]))[:MEASURED]
    found = [_measure(case, given, ways[mark], later, candidates[mark]) for mark in chosen]
    judged = [
        _judged(word, ordinary, len(chosen), [p.told(m, word.label) for p in (trained, given)])
        for m, word in zip(chosen, found, strict=True)
    ]
    judged.sort(key=lambda w: -w.seriousness)
    rows = f"{len(later)} other rows" if apart else f"{len(later)} rows, these among them, since there are so few"
    few = "" if len(controls) >= FEWEST_CONTROLS else " These are too few to say of any word that it does more than others."
    return Shortcuts(
        words=tuple(judged),
        ordinary=share([flip for c in controls for flip in c.flips]),
        tried=len(tried),
        how=f"{len(tried)} words put into {len(first)} rows of {case.source} each; the {len(chosen)} that add most measured on {rows}, "
        f"and taken out of the rows that have them; {len(controls)} words drawn at random for comparison, on "
        f"{len(later[:CONTROL_ROWS])} of the same rows: a word counts where its mean effect is beyond the spread of theirs.{few}",
    )


def _candidates(case: Case, given: Read, trained: Read) -> dict[Mark, str]:
    """Word and text → how it was found, at most ``TRIED`` from each source."""
    found: dict[Mark, str] = {}
    answers = [said(answer) for answer in case.answers]
    sources = [("it goes with the answers", associated(given.marks, answers))]
    if case.labelled:
        beyond = ["" if is_right(row, answer) else answer for row, answer in zip(case.rows, answers, strict=True)]
        known = [given.marks[i] for i in case.known]
        sources.append(("it goes with the wrong answers", associated(known, [beyond[i] for i in case.known])))
    if trained.marks:
        going = associated(trained.marks, [truth or "" for truth in trained.truth])
        sources.append(("it goes with the labels of the training rows", going))
    for how, marks in sources:
        for mark in marks[:TRIED]:
            found.setdefault(mark, how)
    for field in given.texts:
        for word in _by_gradient(case, field):
            found.setdefault(Mark(word, field), BY_GRADIENT)
    return found


def _by_gradient(case: Case, field: str) -> list[str]:
    """Single tokens that, put behind this text of the rows, would raise a label's probability most to first order."""
    try:
        gradients = _slot_gradients(case, field)
    except Unsupported:
        return []
    base = case.engine.base
    table = base.embed(torch.arange(base.embedding.weight.shape[0])).float()
    found: list[str] = []
    for gradient in gradients:
        tokens = [
            t for t in (table @ gradient).topk(min(len(table), 200)).indices.tolist() if begins_word(base.tokenizer, t)
        ]
        texts = [base.tokenizer.decode([t]).strip().lower() for t in tokens]
        words = [text for text in texts if text.isalpha() and len(text) > 2]
        found += list(dict.fromkeys(words))[:GRADIENT_TOKENS]
    return found


def _slot_gradients(case: Case, field: str) -> list[torch.Tensor]:
    """For every label (of the first few) the mean gradient of its log-probability at a token put behind this text [H]."""
    engine, tree = case.engine, case.method.tree
    labels = range(min(GRADIENT_LABELS, len(case.labels)))
    sums = [torch.zeros(engine.base.hidden, device=engine.base.device) for _ in labels]
    for row in case.rows[:GRADIENT_ROWS]:
        longer = with_text(row, field, row.fields.get(field, "").rstrip() + PLACEHOLDER)
        (before,), (after,) = case.method.encode([row]), case.method.encode([longer])
        ids, old = [t for s in after.segments for t in s], [t for s in before.segments for t in s]
        slot = next((i for i, (a, b) in enumerate(zip(ids, old, strict=False)) if a != b), len(old) - 1)
        forms = case.forms
        with torch.no_grad():
            plain = inspect(engine, [after], forms, label_tail(tree, 1))
        column = _column(plain.stream.ids[0].tolist(), slot)
        embedded = plain.embedded.detach().clone().requires_grad_()
        seen = inspect(engine, [after], forms, label_tail(tree, 1), Look(embedded=embedded))
        scores = tree_scores(engine, seen.hidden, seen.stream.ends, tree)[0]
        for label in labels:
            (gradient,) = torch.autograd.grad(scores[label], embedded, retain_graph=True)
            sums[label] += gradient[0, column].float()
    return sums


def _column(ids: Sequence[int], slot: int) -> int:
    """The column of the text's token number ``slot``, prompt vectors not counted."""
    return [i for i, token in enumerate(ids) if token >= 0][slot]


def _controls(has: Sequence[set[Mark]], taken: set[Mark], rng: random.Random) -> list[Mark]:
    counts = Counter(mark for each in has for mark in each)
    ordinary = sorted(w for w, n in counts.items() if w not in taken and n >= 2) or sorted(set(counts) - taken)
    return rng.sample(ordinary, min(CONTROLS, len(ordinary)))


@dataclass(frozen=True)
class _Effect:
    """Log-odds of every label with the word minus those without [n, C], and the flips to the label that gains most."""

    shifts: Float[np.ndarray, "N C"]
    label: int
    flips: list[bool]

    @property
    def most(self) -> float:
        """The mean gain of that label, in nats."""
        return float(self.shifts[:, self.label].mean()) if len(self.shifts) else 0.0


@dataclass(frozen=True)
class _Way:
    """How a word is put in: spelled and placed as the texts have it."""

    mark: Mark
    spelled: str
    place: float


class _Ways:
    """How words are put in, as these rows have them."""

    def __init__(self, *parts: Read) -> None:
        self.parts = parts
        self.spelled = spellings([text for part in parts for texts in part.texts.values() for text in texts])

    def __call__(self, mark: Mark) -> _Way:
        place = place_of([words for part in self.parts for words in part.words[mark.field]], mark.word)
        return _Way(mark, self.spelled.get(mark.word, mark.word), place)


def _put(case: Case, given: Read, way: _Way, among: Sequence[int]) -> _Effect:
    """What the word does in those of these rows that lack it."""
    lacking = [i for i in among if way.mark not in given.marks[i]]
    if not lacking:
        return _Effect(np.zeros((0, len(case.labels))), 0, [])
    with case.engine.store.passing():
        after = case.method.probabilities(
            [_changed(case, i, way.mark.field, lambda text: put_in(text, way.spelled, way.place)) for i in lacking]
        )
    shifts = _log_odds(after) - _log_odds(case.probabilities[lacking])
    label = int(shifts.mean(0).argmax())
    answers = judge.read(case.task, [case.rows[i] for i in lacking], after).given
    before, turned = case.chosen[lacking], [case.labels.index(said(answer)) for answer in answers]
    return _Effect(shifts, label, [bool(t == label) for t, b in zip(turned, before, strict=True) if b != label])


def _log_odds(p: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    p = np.clip(p.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p) - np.log(1 - p))


def _changed(case: Case, number: int, field: str, change: Callable[[str], str]) -> Row:
    row = case.rows[number]
    return with_text(row, field, change(row.fields.get(field, "")) or "-")


def _measure(case: Case, given: Read, way: _Way, among: Sequence[int], found_by: str) -> Word:
    """What the word does on these rows."""
    mark, effect = way.mark, _put(case, given, way, among)
    word, field, has = mark.word, mark.field, given.marks
    label = case.labels[effect.label]
    having = [i for i in range(len(has)) if mark in has[i]]
    some = having[:ROWS]
    without = case.answers_to([_changed(case, i, field, lambda text: take_out(text, word)) for i in some]) if some else ()
    gone = [a != case.answers[i] for i, a in zip(some, without, strict=True)]
    return Word(
        word=word,
        label=label,
        adds=effect.most,
        p=1.0,
        flips=share(effect.flips),
        tried=len(effect.flips),
        removal=share(gone),
        hangs=(sum(gone) / len(gone) if gone else 0.0) * len(having) / len(has),
        rows=len(having),
        answered=_part([case.answers[i] == label for i in having]),
        true=_part([case.truth[i] == label for i in case.known if mark in has[i]]),
        place=way.place,
        found_by=found_by,
        told=None,
        spelled=way.spelled,
        field=field if len(given.texts) > 1 else "",
    )


def _part(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def _judged(word: Word, ordinary: Float[np.ndarray, "K"], tried: int, told: Sequence[Told]) -> Word:
    """The word with its p-value, what it tells by itself, and the reason why it is suspicious, if it is."""
    p = min(1.0, tried * beyond_others(word.adds, ordinary))
    judged = replace(word, p=p, told=next((t for t in told if t.decides), None))
    return replace(judged, why=_suspicion(judged, told))


def _offered(case: Case, mark: Mark, parts: Sequence[Read]) -> bool:
    """Whether the rows could be answered by this word alone, for any label."""
    return any(part.told(mark, label).decides for part in parts for label in case.labels)


def beyond_others(adds: float, ordinary: Float[np.ndarray, "K"]) -> float:
    """The one-sided p-value of a mean effect as one more draw of the words drawn at random; 1 where these are too few."""
    from scipy.stats import t

    k = len(ordinary)
    if k < FEWEST_CONTROLS or adds <= ordinary.mean():
        return 1.0
    spread = max(float(ordinary.std(ddof=1)), LEAST_SPREAD) * math.sqrt(1 + 1 / k)
    return float(t.sf((adds - float(ordinary.mean())) / spread, k - 1))


def _suspicion(word: Word, told: Sequence[Told]) -> str:
    if word.p > ALPHA or word.adds < LEAST_ADDED:
        return ""
    if word.told is not None:
        return f"it stands in {word.told.share:.0%} of the {word.told.where}, {word.told.purity:.0%} of them {word.label!r}"
    if word.rows >= COMMON_ROWS and word.true is not None and (word.answered or 0) > word.true + SUPPORT:
        return f"the answers go with it in {word.answered:.0%} of {word.rows} rows, the truths in {word.true:.0%}"
    seen = [t for t in told if t.rows >= 2]
    if any(t.purity > t.prior + SUPPORT for t in seen):
        return ""
    if word.flips.value < LEAST_FLIPS or (word.found_by == BY_GRADIENT and word.flips.low < SURE_FLIPS):
        return ""
    return "the truths do not go with it" if seen else "none of these rows says anything of it"
